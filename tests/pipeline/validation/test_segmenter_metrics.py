import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.masks.part_labels import ImageParts, PartInstance, encode_mask
from modules.metrics.coco_ap import CocoAP
from pipeline.cli import main
from pipeline.labelling.quality import pseudo_label_miou
from pipeline.validation.category_tables import object_rows, part_rows
from pipeline.validation.segmenter_metrics import SegmenterMetrics
from tests.pipeline.commands import run, stage_args

VOCABULARY = PartVocabulary(
    ("bird", "cat", "rock"), ("bird:head", "bird:wing", "cat:head", "cat:nose"), ((4, 3),)
)
SUFFIXES = ("", "_filtered")
SIDE = 48
Masks = dict[str, Tensor]


def parts(rng: np.random.Generator, choice: list[int], count: int, scored: bool) -> Masks:
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
    for mask in masks:
        x, y = rng.integers(0, 30, 2)
        width, height = rng.integers(6, 40, 2)
        mask[y : y + height, x : x + width] = 1
    found = {"labels": torch.from_numpy(rng.choice(choice, count)).long(), "masks": masks}
    if scored:
        found |= {"scores": torch.from_numpy(rng.random(count)).float(), "masks": masks.bool()}
    return found


def batches() -> list[tuple[dict, dict]]:
    """(batch, detections by suffix): twelve images of birds and cats; one without parts."""
    rng = np.random.default_rng(3)
    own = ([1, 2], [3, 4])
    made = []
    for start in range(0, 12, 3):
        labels = rng.integers(0, 2, 3)
        batch = {
            "key": [f"image{start + i}" for i in range(3)],
            "label": torch.from_numpy(labels),
            "target": [
                parts(rng, own[label], 0 if start + i == 4 else int(rng.integers(1, 4)), False)
                for i, label in enumerate(labels)
            ],
        }
        found = {
            "": [parts(rng, [1, 2, 3, 4], int(rng.integers(0, 7)), True) for _ in labels],
            "_filtered": [parts(rng, own[label], 4, True) for label in labels],
        }
        for suffix in SUFFIXES:  # most detections are near the truth
            for target, detections in zip(batch["target"], found[suffix], strict=True):
                near = min(len(target["labels"]), len(detections["labels"]))
                detections["masks"][:near] = target["masks"][:near].roll(1, 2).bool()
                detections["labels"][:near] = target["labels"][:near]
        made.append((batch, found))
    return made


class Logged(SimpleNamespace):
    """A module as the callback sees it."""

    def __init__(self) -> None:
        super().__init__(mask_metrics={}, logged={})

    def log_dict(self, values: dict[str, float]) -> None:
        self.logged |= values


def measure(callback: SegmenterMetrics) -> dict[str, float]:
    module, trainer = Logged(), SimpleNamespace(datamodule=SimpleNamespace(vocabulary=VOCABULARY))
    callback.setup(trainer, module, "validate")
    callback.on_validation_epoch_start(trainer, module)
    for index, (batch, found) in enumerate(batches()):
        callback.on_validation_batch_end(trainer, module, found, batch, index)
    callback.on_validation_epoch_end(trainer, module)
    return module.logged


def dense_object_ap(suffix: str, threshold: float) -> float:
    """Object AP in plain loops: every image holds at most one instance of an object."""
    truth: dict[int, int] = {0: 0, 1: 0}
    found: dict[int, list[tuple[float, float]]] = {0: [], 1: []}  # (score, IoU)
    for batch, detections in batches():
        for label, target, one in zip(
            batch["label"].tolist(), batch["target"], detections[suffix], strict=True
        ):
            region = target["masks"].numpy().any(axis=0)
            truth[label] += len(target["labels"]) > 0
            for other in (0, 1):
                member = (one["labels"].numpy() > 2) == (other == 1)
                member &= one["scores"].numpy() >= threshold
                if not member.any():
                    continue
                union = one["masks"].numpy()[member].any(axis=0)
                iou = (union & region).sum() / (union | region).sum() if other == label else 0.0
                found[other].append((float(one["scores"].numpy()[member].max()), float(iou)))
    values = []
    for label, positives in truth.items():
        ranked = sorted(found[label], reverse=True)
        for iou_threshold in np.linspace(0.5, 0.95, 10):
            hits = np.cumsum([iou >= iou_threshold for _, iou in ranked])
            precision = hits / np.arange(1, len(hits) + 1)
            recall = hits / positives
            points = [
                max((p for p, r in zip(precision, recall, strict=True) if r >= level), default=0.0)
                for level in np.linspace(0, 1, 101)
            ]
            values.append(np.mean(points))
    return float(np.mean(values))


def dense_miou(suffix: str, threshold: float) -> float:
    """Painted pixel by pixel in the order of scores; a nose never before a head."""

    def painted(one: Masks) -> np.ndarray:
        image = np.zeros((SIDE, SIDE), int)
        scores = one.get("scores", torch.ones(len(one["labels"])))
        kept = [i for i in range(len(scores)) if scores[i] >= threshold]
        heads = [float(scores[i]) for i in kept if one["labels"][i] == 3]

        def order(i: int) -> tuple[float, bool]:
            nose = bool(one["labels"][i] == 4)
            return max([float(scores[i])] + (heads if nose else [])), nose

        for i in sorted(kept, key=order):
            image[one["masks"][i].numpy() != 0] = int(one["labels"][i])
        return image

    pairs = [
        (painted(target), painted(one))
        for batch, found in batches()
        for target, one in zip(batch["target"], found[suffix], strict=True)
    ]
    true, guess = (np.stack(maps) for maps in zip(*pairs, strict=True))
    return float(
        np.mean(
            [
                ((true == k) & (guess == k)).sum() / ((true == k) | (guess == k)).sum()
                for k in range(1, 5)
                if (true == k).any()
            ]
        )
    )


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_objects_and_composites_equal_dense_references(threshold: float) -> None:
    logged = measure(SegmenterMetrics(score_threshold=threshold))
    for suffix in SUFFIXES:
        expected = dense_object_ap(suffix, threshold)
        assert 0.02 < expected < 0.98
        assert logged[f"val/object_AP{suffix}"] == pytest.approx(expected, abs=1e-9)
        expected = dense_miou(suffix, threshold)
        assert logged[f"val/semantic_mIoU{suffix}"] == pytest.approx(expected, abs=1e-12)


def test_miou_is_that_of_the_pseudo_labels() -> None:
    def record(key: str, one: Masks) -> ImageParts:
        scores = one.get("scores", torch.ones(len(one["labels"]))).tolist()
        rows = zip(one["labels"].tolist(), one["masks"].numpy(), scores, strict=True)
        instances = tuple(PartInstance(k, encode_mask(m != 0), (0, 0, 0, 0), s) for k, m, s in rows)
        return ImageParts(key, 0, SIDE, SIDE, instances)

    truth, labels = [], []
    for batch, found in batches():
        truth += [record(*pair) for pair in zip(batch["key"], batch["target"], strict=True)]
        labels += [record(*pair) for pair in zip(batch["key"], found[""], strict=True)]
    expected = pseudo_label_miou(labels, truth, VOCABULARY.inclusions)
    assert measure(SegmenterMetrics())["val/semantic_mIoU"] == pytest.approx(expected, abs=1e-12)


def test_rows_of_parts_and_objects() -> None:
    metric, whole = CocoAP(SUFFIXES), SegmenterMetrics()
    for batch, found in batches():
        for i, key in enumerate(batch["key"]):
            metric.update(key, batch["target"][i], {s: found[s][i] for s in SUFFIXES})
    measure(whole)
    metrics = metric.compute()
    rows = part_rows(VOCABULARY, metrics, whole.part_iou)
    assert [(row["object"], row["part"]) for row in rows] == [
        ("bird", "head"),
        ("bird", "wing"),
        ("cat", "head"),
        ("cat", "nose"),
    ]
    targets = [target for batch, _ in batches() for target in batch["target"]]
    for part, row in enumerate(rows, start=1):
        counts = [int((target["labels"] == part).sum()) for target in targets]
        assert (row["masks"], row["images"]) == (sum(counts), sum(c > 0 for c in counts))
        if sum(counts):
            assert row["AP50_filtered"] == metrics["_filtered"].categories[part].AP50
        assert row["APl"] is None
    objects = object_rows(VOCABULARY, rows, whole.object_metrics)
    assert [row["object"] for row in objects] == ["bird", "cat"]
    assert objects[0]["AP"] == pytest.approx((rows[0]["AP"] + rows[1]["AP"]) / 2)
    own = np.mean([row["object_AP_filtered"] for row in objects])
    assert own == pytest.approx(whole.object_metrics["_filtered"].summary().AP)


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="measures PartSegmenter, not SimpleNamespace"):
        SegmenterMetrics().setup(Trainer(logger=False), SimpleNamespace(), "fit")


def test_two_processes_measure_what_one_does_and_validate_refreshes(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = stage_args("stage1_segmenter", shapes_root, tmp_path)
    main(args)
    assert "Parts of least AP" in capsys.readouterr().out
    folder = tmp_path / "stage1_segmenter"
    table, metrics = folder / "per_category.json", folder / "metrics.json"
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    expected = {f"segm_{name}{suffix}" for name in names for suffix in SUFFIXES}
    expected |= {f"{name}{s}" for name in ("object_AP", "semantic_mIoU") for s in SUFFIXES}
    first = json.loads(metrics.read_text())
    assert expected <= first.keys()
    before = {path: path.read_text() for path in (table, folder / "manifest.json")}
    rows = json.loads(before[table])["parts"]
    vocabulary = PartVocabulary.load(folder / "vocabulary.json")
    assert [f"{row['object']}:{row['part']}" for row in rows] == list(vocabulary.parts)
    assert table.name in json.loads(before[folder / "manifest.json"])["outputs"]

    table.unlink()
    metrics.unlink()
    again = ["stage1_segmenter", "validate", *args[2:]]
    code, output = run([*again, "--trainer.devices=2", "--trainer.strategy=ddp"])
    assert code == 0, output
    assert "Parts of least AP" in output
    assert json.loads(metrics.read_text()).items() >= {k: first[k] for k in expected}.items()
    assert table.read_text() == before[table]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    assert manifest["config"] == json.loads(before[folder / "manifest.json"])["config"]
    with pytest.raises(ValueError, match=r"other settings.*fpn_channels"):
        main([*again, "--model.init_args.detector.fpn_channels=8"])
