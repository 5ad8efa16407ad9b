"""Scores against pycocotools set up by itself, and against loops over pixels."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.labels.coco_results import ResultReader
from datamodules.masks.part_labels import ImageParts
from pipeline.__main__ import main as command
from pipeline.labelling.quality import pseudo_label_miou
from pipeline.runs.metrics import Metrics
from pipeline.scoring.figures import SegmenterScores
from pipeline.scoring.score_segmenter import score_segmenter
from tests.pipeline.scoring.scored_set import NAMES, dense, entries, make_set, polygon

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    (folder / "results.json").write_text(json.dumps(make_set(folder)))
    return folder


@pytest.fixture(scope="module")
def results(root: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((root / "results.json").read_text())
    return content


def score(root: Path, tmp_path: Path, found: Any, **options: Any) -> SegmenterScores:
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found))
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    return score_segmenter(file, root / "imagenet", out, truth=root / "truth", **options)


def coco_truth(root: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The annotations of all objects in one COCO file, ids from 1; image ids by key."""
    ids: dict[str, int] = {}
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    for file in sorted((root / "truth/json").iterdir()):
        own = json.loads(file.read_text())
        names = {c["id"]: f"{file.stem}:{c['name']}" for c in own["categories"]}
        keys = {image["id"]: image["file_name"] for image in own["images"]}
        for image in own["images"]:
            ids[image["file_name"]] = len(ids) + 1
            content["images"].append(image | {"id": len(ids)})
        for one in own["annotations"]:
            number = len(content["annotations"]) + 1
            category = NAMES.index(names[one["category_id"]]) + 1
            moved = {"id": number, "image_id": ids[keys[one["image_id"]]], "category_id": category}
            content["annotations"].append(one | moved)
    return content, ids


def by_pycocotools(root: Path, results: list[dict[str, Any]], kind: str, cats: int) -> list[float]:
    content, ids = coco_truth(root)
    found = []
    for one, entry in zip(results, entries(results), strict=True):
        own = {"image_id": ids[one["key"]], "category_id": NAMES.index(one["name"]) + 1}
        keys = ("segmentation",) if kind == "segm" else ("bbox",)
        found.append(own | {"score": one["score"]} | {key: entry[key] for key in keys})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), kind)
        evaluation.params.useCats = cats
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


def figures(scores: SegmenterScores, prefix: str, suffix: str = "") -> list[float]:
    return [scores.values[f"{prefix}_{name}{suffix}"] for name in FIGURES]


def own(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in results if one["name"].split(":")[0] == one["key"].split("/")[0]]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_ap_is_that_of_pycocotools(
    kind: str, root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    scores = score(root, tmp_path, entries(results))
    plain, filtered = (by_pycocotools(root, found, kind, 1) for found in (results, own(results)))
    assert figures(scores, kind) == pytest.approx(plain, abs=1e-6)
    assert figures(scores, kind, "_filtered") == pytest.approx(filtered, abs=1e-6)
    assert filtered[0] > plain[0] > 0.1
    agnostic = by_pycocotools(root, results, kind, 0)
    assert figures(scores, f"agnostic_{kind}") == pytest.approx(agnostic, abs=1e-6)
    assert agnostic[0] != pytest.approx(plain[0], abs=1e-3)


def true_masks(root: Path) -> list[tuple[str, str, np.ndarray]]:
    """Key, name and dense mask of every annotation."""
    content, ids = coco_truth(root)
    keys = {number: key for key, number in ids.items()}
    found = []
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        mask = dense((x, y, x + width, y + height))
        found.append((keys[one["image_id"]], NAMES[one["category_id"] - 1], mask))
    return found


def test_best_overlap_is_that_of_a_loop(
    root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    scores = score(root, tmp_path, entries(results, category_name=None))
    by_part: dict[str, list[float]] = {name: [] for name in NAMES}
    for key, name, mask in true_masks(root):
        best = 0.0
        for one in results:
            if one["key"] == key:
                guess = dense(one["box"])
                best = max(best, float((mask & guess).sum() / (mask | guess).sum()))
        by_part[name].append(best)
    every = [one for each in by_part.values() for one in each]
    assert scores.values["best_overlap_mIoU"] == pytest.approx(np.mean(every), abs=1e-9)
    means = [float(np.mean(by_part[name])) for name in NAMES]
    mean = scores.values["best_overlap_mIoU_by_category"]
    assert mean == pytest.approx(np.mean(means), abs=1e-9)
    assert [row["best_overlap"] for row in scores.parts] == pytest.approx(means)
    assert [row["masks"] for row in scores.parts] == [len(by_part[name]) for name in NAMES]
    assert 0 in every
    agnostic = by_pycocotools(root, results, "segm", 0)
    assert figures(scores, "agnostic_segm") == pytest.approx(agnostic, abs=1e-6)
    assert "segm_AP" not in scores.values
    assert "semantic_mIoU" not in scores.values


@pytest.mark.parametrize("min_score", [0.0, 0.5])
def test_composite_miou_is_that_of_counted_pixels(
    min_score: float, root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    scores = score(root, tmp_path, entries(results), min_score=min_score)
    _, ids = coco_truth(root)
    for suffix, found in (("", results), ("_filtered", own(results))):
        both, either = np.zeros(4), np.zeros(4)
        for key in ids:
            target, guess = np.zeros_like(dense((0, 0, 1, 1))), np.zeros_like(dense((0, 0, 1, 1)))
            for own_key, name, mask in true_masks(root):
                if own_key == key:
                    target[mask > 0] = NAMES.index(name) + 1
            for one in sorted(found, key=lambda one: one["score"]):
                if one["key"] == key and one["score"] >= min_score:
                    guess[dense(one["box"]) > 0] = NAMES.index(one["name"]) + 1
            for part in range(4):
                both[part] += ((target == part + 1) & (guess == part + 1)).sum()
                either[part] += ((target == part + 1) | (guess == part + 1)).sum()
        expected = float(np.mean(both / either))
        assert scores.values[f"semantic_mIoU{suffix}"] == pytest.approx(expected, abs=1e-9)


def test_spellings_of_the_same_results_score_the_same(
    root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    expected = score(root, tmp_path, entries(results)).values
    polygons = [
        entry | {"segmentation": polygon(one["box"])}
        for one, entry in zip(results, entries(results), strict=True)
    ]
    assert score(root, tmp_path, polygons).values == expected
    unboxed = score(root, tmp_path, entries(results, bbox=None)).values
    differ = {name for name, value in unboxed.items() if value != expected[name]}
    assert {"bbox_AP", "agnostic_bbox_AP"} <= differ
    assert all("bbox" in name for name in differ)
    assert unboxed["bbox_AP"] == unboxed["segm_AP"]  # masks are rectangles
    short = [e | {"image_id": e["image_id"].split("/")[1]} for e in entries(results)]
    assert score(root, tmp_path, short).values == expected
    content, ids = coco_truth(root)
    images = tmp_path / "images.json"
    images.write_text(json.dumps(content))
    numbered = [
        {"image_id": ids[one["key"]], "category_id": NAMES.index(one["name"]) + 1, **entry}
        for one, entry in zip(
            results, entries(results, image_id=None, category_name=None), strict=True
        )
    ]
    assert score(root, tmp_path, numbered, images=images).values == expected
    whole = content | {"annotations": numbered}
    assert score(root, tmp_path, whole).values == expected


def test_a_folder_is_numbered_by_the_annotations(
    root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    expected = score(root, tmp_path, entries(own(results))).values
    folder = tmp_path / "by_object"
    folder.mkdir()
    for file in (root / "truth/json").iterdir():
        content = json.loads(file.read_text())
        numbers = {image["file_name"]: image["id"] for image in content["images"]}
        parts = {f"{file.stem}:{c['name']}": c["id"] for c in content["categories"]}
        mine = [one for one in own(results) if one["key"] in numbers]
        found = [
            entry | {"image_id": numbers[one["key"]], "category_id": parts[one["name"]]}
            for one, entry in zip(mine, entries(mine, category_name=None), strict=True)
        ]
        (folder / file.name).write_text(json.dumps(found))
    args = (folder, root / "imagenet", tmp_path / "scores")
    again = score_segmenter(*args, truth=root / "truth", images=root / "truth")
    assert again.values == expected


def test_composites_are_measured_as_pseudo_labels_are(
    root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    vocabulary = PartVocabulary.from_pinpp(root / "truth", root / "imagenet")
    truth = read_annotations(root / "truth", vocabulary)
    labels = {row.key: row.label for row in truth}
    file = tmp_path / "found.json"
    file.write_text(json.dumps(entries(results)))
    found = ResultReader(vocabulary, labels, lambda key: (60, 72)).read(file).instances
    rows = [ImageParts(row.key, row.label, 60, 72, found.get(row.key, ())) for row in truth]
    expected = pseudo_label_miou(rows, truth, vocabulary.inclusions)
    scores = score(root, tmp_path, entries(results))
    assert scores.values["semantic_mIoU"] == pytest.approx(expected, abs=1e-12)


def test_the_command_prints_and_keeps_what_is_there(
    root: Path,
    results: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = tmp_path / "sam.json", tmp_path / "scores"
    file.write_text(json.dumps(entries(results)))
    args = ["score_segmenter", f"--results={file}", f"--imagenet={root / 'imagenet'}"]
    args += [f"--truth={root / 'truth'}", f"--out={out}"]
    assert command(args) == 0
    printed = capsys.readouterr().out
    metrics = Metrics.find(out)
    assert metrics is not None
    assert f"{100 * metrics.values['segm_AP_filtered']:.1f}" in printed
    assert f"{100 * metrics.values['best_overlap_mIoU']:.1f}" in printed
    assert "2 of the images have no result" in printed
    table = json.loads((out / "per_category.json").read_text())
    assert [f"{row['object']}:{row['part']}" for row in table["parts"]] == NAMES
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert command(args) == 1
    assert "holds scores already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "ant/none.png"}, "unknown image_id 'ant/none.png'"),
        ({"image_id": 3}, "image_id 3: numbers mean nothing by themselves"),
        ({"image_id": None}, "unknown image_id None"),
        ({"category_name": "ant:horn"}, "unknown category 'ant:horn'.*ant:head"),
        ({"category_name": "sting"}, "unknown category 'sting'"),
        ({"category": "bee:wing", "category_name": "ant:leg"}, "are different parts"),
        ({"category_name": None, "category_id": 2}, "category_id 2: numbers mean nothing"),
        ({"segmentation": {"size": [72, 60], "counts": "P1"}}, "mask is 72x60, its image 60x72"),
        ({"segmentation": [[0, 0, 500, 0, 500, 9]]}, "leaves its image"),
        ({"segmentation": None}, "has no segmentation"),
        ({"score": float("nan")}, "score nan"),
        ({"score": -1.0}, "score -1.0"),
        ({"score": "0.5"}, "score is '0.5'"),
        ({"score": None}, "score is None"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox"),
        ({"category_name": None}, "entry 4 has no category"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Any],
    message: str,
    root: Path,
    results: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    found = entries(results)
    found[4] |= change
    with pytest.raises(ValueError, match=message) as error:
        score(root, tmp_path, found)
    assert "found.json: entry 4" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("out*"))


def test_ambiguous_or_foreign_images_are_refused_by_name(
    root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    content, _ = coco_truth(root)
    images, found = tmp_path / "images.json", entries(results)

    def refused(message: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            score(root, tmp_path, found, **options)

    content["images"][1]["id"] = content["images"][0]["id"]
    images.write_text(json.dumps(content))
    refused(r"images\.json: two entries have the image id 1", images=images)
    content["images"][1] |= {"id": 2, "height": 61}
    images.write_text(json.dumps(content))
    found[0]["image_id"] = 2
    refused(r"entry 0: ant/ant_1\.png is 61x72 in .*images\.json, but is 60x72", images=images)
    found[0]["image_id"] = 99
    refused(r"image_id 99: not listed in .*images\.json", images=images)
    content["images"].append({"id": 99, "file_name": "ant/more.png"})
    images.write_text(json.dumps(content))
    scores = score(root, tmp_path, found, images=images)
    assert scores.values["results"] == len(found) - 1
    found[:] = found[:1]
    refused("none of its images is annotated", images=images)
