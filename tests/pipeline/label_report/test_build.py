"""The label report of small runs, from shards to page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, split_annotations, write_split
from datamodules.files.errors import UserError
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts, PartInstance, encode_mask
from pipeline.label_report.build import build_label_report, main
from pipeline.label_report.compare import LabelComparison
from pipeline.label_report.scan import scan_labels, shards_of
from pipeline.label_report.truth import held_out

EMPTY, BROKEN = 3, 5  # places in the sorted rows


def write_run(run: Path, rows: list[ImageParts], vocabulary: PartVocabulary, size: int = 7) -> Path:
    (run / "labels").mkdir(parents=True)
    for number, start in enumerate(range(0, len(rows), size)):
        table = to_table(rows[start : start + size])
        pq.write_table(table, run / f"labels/{number:05d}.parquet")
    vocabulary.save(run / "vocabulary.json")
    return run


@pytest.fixture(scope="module")
def shapes(shapes_root: Path) -> tuple[PartVocabulary, list[ImageParts]]:
    """Vocabulary and the human annotations of all train images."""
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    rows = [
        row
        for folder in ("pinpp", "truth")
        for row in read_annotations(shapes_root / folder, vocabulary)
    ]
    return vocabulary, sorted(rows, key=lambda row: row.key)


def scored(row: ImageParts, score: float) -> ImageParts:
    return replace(row, instances=tuple(replace(one, score=score) for one in row.instances))


def call(shapes_root: Path, labels: Path, out: Path, **more: Any) -> dict[str, Any]:
    assert main(labels, shapes_root / "imagenet", out=out, **more) == out / "index.html"
    return json.loads((out / "report.json").read_text())


def test_perfect_labels_of_the_held_out_tenth(
    shapes_root: Path, shapes: tuple[PartVocabulary, list[ImageParts]], tmp_path: Path
) -> None:
    vocabulary, rows = shapes
    run = write_run(tmp_path / "run", rows, vocabulary)
    report = call(shapes_root, run, tmp_path / "out", pinpp=shapes_root / "pinpp")
    figures = report["runs"][0]
    annotations = read_annotations(shapes_root / "pinpp", vocabulary)
    assert figures["compared"] == len(split_annotations(annotations, "val")) == 3
    assert figures["images"] == len(rows) == 36
    assert (figures["AP"], figures["miou"], figures["coverage"]) == pytest.approx((1, 1, 1))
    assert figures["empty"] == figures["errors"] == 0
    assert "Every readable image has a part" in (tmp_path / "out/index.html").read_text()


def test_split_file_decides_what_is_compared(
    shapes_root: Path, shapes: tuple[PartVocabulary, list[ImageParts]], tmp_path: Path
) -> None:
    vocabulary, _ = shapes
    annotations = read_annotations(shapes_root / "pinpp", vocabulary)
    write_split(tmp_path / "split.json", annotations[4:], annotations[:4])
    truth, name = held_out(vocabulary, shapes_root / "pinpp", split=tmp_path / "split.json")
    assert list(truth) == [row.key for row in annotations[:4]]
    assert "split.json" in name


def test_page_lists_empty_images_errors_and_both_runs(
    shapes_root: Path, shapes: tuple[PartVocabulary, list[ImageParts]], tmp_path: Path
) -> None:
    vocabulary, truth = shapes
    rows = [scored(row, 0.8) for row in truth]
    rows[EMPTY] = replace(rows[EMPTY], instances=())
    rows[BROKEN] = replace(rows[BROKEN], height=0, width=0, instances=(), error="cut <off>")
    foreign = [replace(one, part=1 + one.part % vocabulary.num_parts) for one in rows[9].instances]
    wrong = [*rows[:9], replace(rows[9], instances=tuple(foreign)), *rows[10:]]
    folders = [
        write_run(tmp_path / name, content, vocabulary)
        for name, content in (("filtered", rows), ("unfiltered", wrong))
    ]
    report = call(
        shapes_root,
        folders[0],
        tmp_path / "out",
        unfiltered=folders[1],
        truth=shapes_root / "pinpp",
        min_score=0.5,
    )
    filtered, unfiltered = report["runs"]
    assert filtered["compared"] == unfiltered["compared"] == 24
    assert (filtered["empty"], filtered["errors"], filtered["labelled"]) == (1, 1, 34)
    assert [row["labelled"] for row in filtered["thresholds"]][-4:] == [34, 0, 0, 0]
    assert unfiltered["miou"] <= filtered["miou"] < 1
    page = (tmp_path / "out/index.html").read_text()
    assert rows[EMPTY].key in page
    assert "cut &lt;off&gt;" in page
    assert "without filter" in page
    listed = (tmp_path / "out/images_without_labels.tsv").read_text().splitlines()
    assert listed == [f"{rows[EMPTY].key}\tempty\t", f"{rows[BROKEN].key}\terror\tcut <off>"]
    assert all(src.startswith("data:") for src in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r'(href|src)="(https?:|/)', page)
    links = set(re.findall(r'href="([^"#]*\.jpg)"', page))
    assert links
    assert all((tmp_path / "out" / link).is_file() for link in links)


def test_page_of_many_categories_shows_the_worst_first(tmp_path: Path) -> None:
    objects = tuple(f"n{number:02d}" for number in range(45))
    names = tuple(f"{name}:{part}" for name in objects for part in ("head", "leg"))
    vocabulary = PartVocabulary(objects, names)
    mask = np.zeros((6, 8), bool)
    mask[:3] = True
    rows = []
    for label, name in enumerate(objects):
        head = PartInstance(2 * label + 1, encode_mask(mask), (0, 0, 8, 3))
        rows.append(ImageParts(f"{name}/0.jpg", label, 6, 8, (head,)))
    found = [replace(row, instances=()) if row.label == 30 else scored(row, 0.9) for row in rows]
    run = write_run(tmp_path / "run", found, vocabulary)
    truth = {row.key: row for row in rows}
    arguments = run, truth, vocabulary, tmp_path / "imagenet", tmp_path / "out"
    page = build_label_report(*arguments, truth_name="annotations").read_text()
    first, rest = page.split("<summary>all 45 categories</summary>")
    assert first.index(">n30</td>") < first.index(">n00</td>")
    assert rest.count(">n44</td>") == 1
    assert "all 90 parts" in rest


def test_totals_over_many_batches_equal_plain_counting(tmp_path: Path) -> None:
    vocabulary = PartVocabulary(("ant", "bee"), ("ant:head", "bee:wing"))
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(1300):
        scores = rng.random(rng.integers(0, 4)).astype(np.float32)
        label = int(rng.integers(2))
        instances = [
            {"part": label + 1, "score": score, "box": [0.0] * 4, "rle": b""} for score in scores
        ]
        rows.append(
            {
                "key": f"{vocabulary.objects[label]}/{number}.jpg",
                "label": label,
                "height": 4,
                "width": 4,
                "instances": instances,
                "error": "",
            }
        )
    (tmp_path / "labels").mkdir()
    schema = to_table([]).schema
    for number, (start, end) in enumerate(((0, 1200), (1200, 1300))):
        table = to_table([]).from_pylist(rows[start:end], schema=schema)
        pq.write_table(table, tmp_path / f"labels/{number:05d}.parquet")
    files, count = shards_of(tmp_path, vocabulary)
    assert count == 1300
    read: list[int] = []
    comparison = LabelComparison(vocabulary, (0.0, 0.5), 0.5)
    totals = scan_labels(files, {}, comparison, advance=read.append)
    assert sum(read) == 1300
    best = np.array([max((one["score"] for one in row["instances"]), default=-1) for row in rows])
    labels = np.array([row["label"] for row in rows])
    assert totals.images.tolist() == np.bincount(labels).tolist()
    assert totals.labelled.tolist() == np.bincount(labels[best >= 0.5]).tolist()
    assert totals.labelled_at.tolist() == [(best >= 0).sum(), (best >= 0.5).sum()]
    kept = [sum(one["score"] >= 0.5 for one in row["instances"]) for row in rows]
    assert totals.parts_per_image[:4].tolist() == np.bincount(kept, minlength=4).tolist()
    assert totals.instances.sum() == sum(kept)
    assert totals.scores.sum() == totals.all_instances == sum(len(r["instances"]) for r in rows)
    assert [len(totals.empty[label]) for label in (0, 1)] == [3, 3]


def test_refusals_are_one_line(
    shapes_root: Path, shapes: tuple[PartVocabulary, list[ImageParts]], tmp_path: Path
) -> None:
    vocabulary, rows = shapes
    run = write_run(tmp_path / "run", rows, vocabulary)
    pinpp = shapes_root / "pinpp"
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"nowhere.* does not exist"):
        call(shapes_root, tmp_path / "nowhere", out, pinpp=pinpp)
    with pytest.raises(UserError, match="give --pinpp"):
        call(shapes_root, run, out)
    with pytest.raises(UserError, match=r"no image of .*val_parts has a row"):
        call(shapes_root, run, out, truth=shapes_root / "val_parts")
    other = write_run(tmp_path / "other", rows, replace(vocabulary, inclusions=((3, 1),)))
    with pytest.raises(UserError, match="other has another part vocabulary"):
        call(shapes_root, run, out, pinpp=pinpp, unfiltered=other)
    shard = run / "labels/00001.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=r"00001.parquet is damaged"):
        call(shapes_root, run, out, pinpp=pinpp)
    assert not (out / "index.html").exists()
    (tmp_path / "bare/labels").mkdir(parents=True)
    vocabulary.save(tmp_path / "bare/vocabulary.json")
    with pytest.raises(UserError, match="holds no pseudo labels"):
        call(shapes_root, tmp_path / "bare", out, pinpp=pinpp)
    doubled = write_run(tmp_path / "doubled", [*rows, *rows], vocabulary)
    with pytest.raises(
        UserError, match=r"has a row in .* and one in .*: delete the file that is the copy"
    ):
        call(shapes_root, doubled, out, pinpp=pinpp)
