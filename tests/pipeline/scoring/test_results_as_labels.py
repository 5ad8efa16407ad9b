"""Pseudo labels scored as results, and results that become pseudo labels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.label_set import read_labels
from datamodules.masks.part_labels import ImageParts
from pipeline.label_report.matching import PartMatches
from pipeline.labelling.export_labels import export_labels
from pipeline.labelling.import_labels import import_labels
from pipeline.labelling.quality import label_quality
from pipeline.labelling.shard_writer import write_shard
from pipeline.runs.manifest import Manifest, mark_complete
from pipeline.scoring.score_segmenter import score_segmenter


@pytest.fixture(scope="module")
def run(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage 2 run folder: the parts of people in another order, some on the wrong image."""
    folder = tmp_path_factory.mktemp("runs") / "stage2_pseudolabels"
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    vocabulary.save(folder / "vocabulary.json")
    rng = np.random.default_rng(0)
    found = {
        row.key: row
        for name in ("pinpp", "truth")
        for row in read_annotations(shapes_root / name, vocabulary)
    }
    rows, last = [], ()
    for key, label in list_images(shapes_root / "imagenet/train"):
        strange = tuple(one for one in last if one.part in vocabulary.parts_of(label))[:2]
        last = found[key].instances
        parts = tuple(
            replace(one, score=float(np.float32(rng.random()))) for one in (*last[1:], *strange)
        )
        rows.append(replace(found[key], label=label, instances=parts))
    write_shard(folder / "labels" / "00000.parquet", rows)
    Manifest(folder.name, inputs={"vocabulary": vocabulary.content_hash}).write(folder)
    mark_complete(folder)
    return folder


@pytest.fixture(scope="module")
def coco(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("coco") / "labels"
    export_labels(run, out, "coco")
    return out


def entries(run: Path) -> list[dict[str, Any]]:
    """The labels of a run as a list of results with names."""
    vocabulary = PartVocabulary.load(run / "vocabulary.json")
    return [
        {
            "image_id": row.key,
            "category_name": vocabulary.parts[one.part - 1],
            "segmentation": {"size": [row.height, row.width], "counts": one.rle.decode()},
            "score": one.score,
        }
        for row in read_labels(run)
        for one in row.instances
    ]


def test_exported_labels_score_as_the_label_report_says(
    run: Path, coco: Path, shapes_root: Path, tmp_path: Path
) -> None:
    pinpp, imagenet = shapes_root / "pinpp", shapes_root / "imagenet"
    scores = score_segmenter(coco, imagenet, tmp_path / "scores", truth=pinpp)
    quality = label_quality(run, pinpp)
    assert scores.values["semantic_mIoU"] == pytest.approx(quality["miou"], abs=1e-12)
    matches, labels = PartMatches(), {row.key: row for row in read_labels(run)}
    truth = read_annotations(pinpp, PartVocabulary.load(run / "vocabulary.json"))
    for image in truth:
        matches.add(image, labels[image.key])
    found = np.array(list(matches.average_precision().values())).mean(axis=0)
    assert scores.values["segm_AP"] == pytest.approx(found[0], abs=1e-9)
    assert scores.values["segm_AP50"] == pytest.approx(found[1], abs=1e-9)
    assert 0.1 < found[0] < 1
    assert scores.values["images"] == len(truth) < len(labels)
    # labels were made with the filter: nothing is left to rule out
    assert scores.values["segm_AP_filtered"] == scores.values["segm_AP"]


def test_a_list_of_results_becomes_labels(run: Path, shapes_root: Path, tmp_path: Path) -> None:
    source, new = tmp_path / "sam.json", tmp_path / "imported"
    source.write_text(json.dumps(entries(run)))
    args = (source, new, "coco", shapes_root / "imagenet", shapes_root / "pinpp")
    assert import_labels(*args, shard_size=10) == len(read_labels(run))
    for old, made in zip(read_labels(run), read_labels(new), strict=True):
        assert _content(made) == _content(old)
    (new / "labels" / "00001.parquet").unlink()
    assert import_labels(*args, shard_size=10) == 10


def _content(row: ImageParts) -> tuple[Any, ...]:
    parts = [(one.part, one.rle, one.score) for one in row.instances]
    return row.key, row.label, row.height, row.width, parts


def test_results_numbered_elsewhere_become_labels(
    run: Path, coco: Path, shapes_root: Path, tmp_path: Path
) -> None:
    folder, new = tmp_path / "results", tmp_path / "imported"
    folder.mkdir()
    for file in (coco / "json").iterdir():
        annotations = json.loads(file.read_text())["annotations"]
        (folder / file.name).write_text(json.dumps(annotations))
    args = (folder, new, "coco", shapes_root / "imagenet", shapes_root / "pinpp")
    import_labels(*args, images=coco)
    for old, made in zip(read_labels(run), read_labels(new), strict=True):
        assert _content(made) == _content(old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_name": None}, "names no categories: pseudo labels need a part"),
        ({"score": 1.2}, r"entry 0: .*score 1.2 is not within 0 and 1"),
        ({"image_id": 1}, "image_id 1: numbers mean nothing"),
    ],
)
def test_results_that_cannot_be_labels_are_refused(
    change: dict[str, Any], message: str, run: Path, shapes_root: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "sam.json", tmp_path / "out"
    source.write_text(json.dumps([one | change for one in entries(run)]))
    with pytest.raises(ValueError, match=message) as error:
        import_labels(source, out, "coco", shapes_root / "imagenet", shapes_root / "pinpp")
    assert "sam.json" in str(error.value)
    assert not out.exists()
