"""A runs folder with a bit of everything that the report shows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.corruptions import CORRUPTIONS
from datamodules.evaluation.human_stimuli import EXPERIMENTS
from datamodules.files.json_files import write_json
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts
from pipeline.evaluation.generalisation_records import mean_rows
from pipeline.evaluation.summaries import (
    AlignmentRow,
    AttackedImages,
    BoxPrecision,
    DetectionResults,
    GeneralisationSummary,
    HumanAlignment,
    PartsUnderAttack,
    RobustnessSummary,
    SetRow,
    ThreatRow,
)
from pipeline.few_shot.summary import (
    EpisodeFacts,
    FewShotComparison,
    FewShotRow,
    FewShotSummary,
)
from pipeline.labelling.quality import LabelQuality
from pipeline.runs.manifest import Manifest
from pipeline.runs.metrics import Metrics


def write_manifest(run: Path, state: Literal["running", "complete"] = "complete") -> None:
    config = {
        "trainer": {"max_epochs": 3},
        "data": {"class_path": "Data", "init_args": {"seed": 0, "batch_size": 8}},
        "model": {
            "note": "<script>alert(1)</script>",
            "eps": 4 / 255,
            "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.001, "eps": 1e-8}},
        },
    }
    Manifest(
        run.name,
        state,
        config,
        inputs={"vocabulary": "abc123"},
        outputs={"checkpoints/best.ckpt": "f00dfeed"},
        versions={"torch": "2.11.0"},
        git="deadbeef",
    ).write(run)


def write_events(run: Path, tags: list[str], first: int = 0) -> None:
    with SummaryWriter(str(run)) as writer:
        for step in range(first, first + 20):
            for place, tag in enumerate(tags):
                writer.add_scalar(tag, 1 / (1 + step) + place, step)


def write_labels(run: Path, root: Path, vocabulary: PartVocabulary) -> None:
    known = read_annotations(root / "pinpp", vocabulary, root / "imagenet" / "train")
    truth = read_annotations(root / "truth", vocabulary, root / "imagenet" / "train")
    rows = {parts.key: parts for parts in (*known, *truth)}
    keys = list_images(root / "imagenet" / "train")
    full = [rows.get(key, ImageParts(key, label, 64, 64)) for key, label in keys]
    full[0] = ImageParts(full[0].key, full[0].label, 0, 0, error="cannot be decoded")
    full[1] = replace(full[1], instances=())
    (run / "labels").mkdir(parents=True)
    half = len(full) // 2
    pq.write_table(to_table(full[:half]), run / "labels" / "00000.parquet")
    pq.write_table(to_table(full[half:]), run / "labels" / "00001.parquet")


def summary_of(
    model: str,
    threats: Sequence[ThreatRow],
    warnings: Sequence[str] = (),
    no_parts: str = "not measured",
) -> RobustnessSummary:
    images = AttackedImages("subset.txt", "0" * 64, 100, (10, 10))
    parts = PartsUnderAttack(no_parts)
    return RobustnessSummary(model, list(threats), images, list(warnings), parts)


def write_evaluation(folder: Path, clean: float, robust: float, vocabulary: PartVocabulary) -> None:
    def threat(
        name: str, norm: str | None, eps: float, accuracy: float, n: int, **more: Any
    ) -> ThreatRow:
        interval = max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)
        return ThreatRow(name, norm, eps, accuracy, interval, n, **more)

    broken_by = {"": 8, "clean": 4, "apgd-ce": 3, "square": 1}
    threats = [
        threat("clean", None, 0.0, clean, 100),
        threat("pgd20", "linf", 4 / 255, robust + 0.05, 100),
        threat("autoattack", "linf", 4 / 255, robust, 16, broken_by=broken_by),
    ]
    for radius, left in ((2 / 255, 0.2), (8 / 255, -0.2)):
        threats.append(threat(f"aa_{radius}", "linf", radius, max(0.0, robust + left), 16))
    no_parts = "no part annotations of val images: give PINPP_VAL="
    summary_of(f"runs/{folder.name}", threats, ["WARNING: masked"], no_parts).write(folder)
    rng = np.random.default_rng(0)
    images = rng.integers(8, 240, (3, 32, 32, 3), dtype=np.uint8)
    noise = rng.integers(-4, 5, images.shape)
    np.savez(
        folder / "examples.npz",
        clean=images,
        adversarial=(images + noise).astype(np.uint8),
        label=np.array([0, 1, 2]),
        clean_prediction=np.array([1, 1, 2]),
        adversarial_prediction=np.array([1, 1, 0]),
        key=np.array(["a/1.jpg", "b/2.jpg", "c/3.jpg"]),
        threat=np.array(["autoattack"] * 3),
        objects=np.array(vocabulary.objects),
    )


def category_content() -> dict[str, object]:
    """Twenty parts of ten objects, part 13 without ground truth."""

    def row(number: int, name: str, **values: object) -> dict[str, object]:
        keys = ("AP", "AP50", "AP_filtered", "AP50_filtered", "IoU_filtered")
        figures = dict.fromkeys(keys, None if number == 13 else number / 40)
        return {"object": name, "images": number, "masks": 2 * number} | values | figures

    parts = [row(i, f"object{i // 2}", part=f"part{i}") for i in range(20)]
    objects = [row(i, f"object{i}", object_AP_filtered=i / 20) for i in range(10)]
    return {"score_threshold": 0.0, "objects": objects, "parts": parts}


def write_generalisation(folder: Path) -> list[SetRow]:
    """All 75 corruptions, of the shifts one, of the 17 experiments two; the others are missing."""
    rng = np.random.default_rng(3)

    def row(name: str, table: str, missing: str = "") -> SetRow:
        right = int(rng.integers(20, 90)) / 100
        if missing:
            return SetRow(name, table, missing=missing)
        return SetRow(name, table, right, (right - 0.05, right + 0.05), 100)

    rows = [
        row(f"{name}/{severity}", "corruptions") for name in CORRUPTIONS for severity in range(1, 6)
    ]
    rows += [row("sketch", "ood"), row("imagenet_a_plus", "ood", "folder X does not exist")]
    rows += [row("stylized", "ood", "no folder given"), row("imagenet_r", "ood", "no folder given")]
    rows += [
        row(f"din/{name}", "ood", "" if place < 2 else f"folder {name} does not exist")
        for place, name in enumerate(EXPERIMENTS)
    ]
    rows += [row("pin125", "subsets", "printed nowhere"), row("pin11", "subsets")]
    rows += [row("background/original", "background"), row("background/swapped", "background")]
    rows.append(replace(row("cue_conflict", "texture"), figures={"shape_bias": 0.4321}))
    run = folder / "generalisation"
    GeneralisationSummary("runs/any", rows, mean_rows(rows, run)).write(run)
    return rows


def write_alignment(folder: Path) -> None:
    mean = {"accuracy_difference": 0.0711, "observed_consistency": 0.5432}
    mean |= {"error_consistency": 0.1987, "ood_accuracy": 0.5}
    rows = [AlignmentRow(name, {}, 3, {}, mean) for name in ("humans", "stage3_mpm")]
    HumanAlignment([], [], rows).write(folder)


def write_few_shot(folder: Path) -> None:
    """Two models, the second without boxes, and their difference."""
    rows = [
        FewShotRow("image", 1, "nearest_mean", 0.6125, [0.6, 0.625], 600),
        FewShotRow("box", 5, "linear_probe", 0.7375, [0.725, 0.75], 600),
    ]
    for name, known, kept in (("stage3_mpm", 3, rows), ("stage3_vanilla", None, rows[:1])):
        facts = EpisodeFacts(5, 15, 600, 0, "f" * 64, 20, 1000, known)
        FewShotSummary(f"runs/{name}", "its own", True, facts, kept).write(folder / name)
    difference = FewShotRow("image", 1, "nearest_mean", -0.0312, [-0.05, -0.0125], 600)
    comparison = FewShotComparison("stage3_mpm", "stage3_vanilla", [difference])
    comparison.write(folder / "stage3_mpm" / "against" / "stage3_vanilla")


def write_runs(folder: Path, shapes_root: Path) -> Path:
    """Runs of all stages, two evaluated models and one detector; returns the folder."""
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    segmenter, labels = folder / "stage1_segmenter", folder / "stage2_pseudolabels"
    write_manifest(segmenter)
    vocabulary.save(segmenter / "vocabulary.json")
    write_events(segmenter, ["train/loss", "val/segm_AP", "val/segm_AP_filtered"])
    values = {"segm_AP": 0.371, "segm_AP50": 0.642, "segm_AP_filtered": 0.463}
    values |= {"segm_AP75_filtered": 0.412, "segm_APl": -1.0, "object_AP_filtered": 0.537}
    Metrics(values | {"segm_AP50_filtered": 0.794}, epoch=3).write(segmenter)
    write_json(segmenter / "per_category.json", category_content())
    write_manifest(labels)
    write_labels(labels, shapes_root, vocabulary)
    LabelQuality(0.7125).write(labels)
    write_manifest(folder / "stage3_mpm", "running")
    write_events(folder / "stage3_mpm", ["train/loss", "val/loss", "val/robust_acc"])
    write_evaluation(folder / "evaluate" / "stage3_mpm", 0.77, 0.54, vocabulary)
    write_evaluation(folder / "evaluate" / "stage3_vanilla", 0.75, 0.5, vocabulary)
    write_generalisation(folder / "evaluate" / "stage3_mpm")
    write_alignment(folder / "human_alignment")
    figures, unmeasured = BoxPrecision(0.1234, 0.25), BoxPrecision(-1.0, -1.0)
    precisions = {"clean": figures, "A_cls": figures, "A_reg": unmeasured}
    DetectionResults(precisions, 8).write(folder / "downstream_detection" / "test")
    write_few_shot(folder / "few_shot")
    return folder
