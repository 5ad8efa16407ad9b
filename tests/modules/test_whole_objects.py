"""A segmenter with whole objects among its classes: its AP, its checkpoints, its part labels."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.images.transforms import boxes_of
from modules.networks.detector_categories import united
from modules.part_segmenter import SUFFIXES, PartSegmenter
from modules.pseudo_label_writer import PseudoLabelWriter
from tests.modules.tiny_segmenter import save_tiny_segmenter, tiny_segmenter

OBJECT_PARTS = torch.tensor([[True, True, True, False], [True, False, False, True]])
SIDE = 64
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def rectangle(x: int, y: int, width: int, height: int) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def target(*parts: tuple[int, Tensor]) -> dict[str, Tensor]:
    masks = torch.stack([mask for _, mask in parts])
    return {
        "boxes": boxes_of(masks),
        "labels": torch.tensor([label for label, _ in parts]),
        "masks": masks,
    }


def found(*instances: tuple[int, float, Tensor]) -> dict[str, Tensor]:
    masks = torch.stack([mask for _, _, mask in instances])
    return {
        "labels": torch.tensor([label for label, _, _ in instances]),
        "scores": torch.tensor([score for _, score, _ in instances]),
        "boxes": boxes_of(masks),
        "masks": masks.bool(),
    }


# Classes: parts 1, 2 of object 0, part 3 of object 1; the objects are 4 and 5.
TARGETS = [
    target((1, rectangle(4, 4, 20, 20)), (2, rectangle(20, 10, 30, 12))),
    target((3, rectangle(8, 8, 40, 40))),
    target((1, rectangle(30, 30, 10, 10))),
]
LABELS = [0, 1, 0]
FOUND = [
    found(
        (4, 0.9, rectangle(4, 4, 46, 18)),
        (1, 0.8, rectangle(5, 4, 20, 20)),
        (5, 0.7, rectangle(4, 4, 46, 18)),
        (2, 0.3, rectangle(20, 10, 28, 12)),
    ),
    found((5, 0.6, rectangle(8, 8, 40, 34)), (3, 0.5, rectangle(8, 8, 40, 39))),
    found((1, 0.95, rectangle(0, 0, 12, 12)), (4, 0.4, rectangle(30, 30, 10, 9))),
]


def by_pycocotools(truth: list[dict[str, Tensor]], guesses: list[dict[str, Tensor]]) -> np.ndarray:
    """COCO's own evaluation, from annotations as a file would have them."""
    content: tuple[list[Any], list[Any]] = ([], [])
    for image, sides in enumerate(zip(truth, guesses, strict=True)):
        for entries, side in zip(content, sides, strict=True):
            for i, label in enumerate(side["labels"].tolist()):
                dense = np.asfortranarray(side["masks"][i].numpy().astype(np.uint8))
                rle = coco_mask.encode(dense)
                entry = {"id": len(entries) + 1, "image_id": image, "category_id": label}
                entry |= {"segmentation": rle, "area": int(dense.sum()), "iscrowd": 0}
                entry |= {"score": float(side["scores"][i])} if "scores" in side else {}
                entries.append(entry | {"bbox": coco_mask.toBbox(rle).tolist()})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(truth))],
        "categories": [{"id": i} for i in range(6)],
        "annotations": content[0],
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(content[1]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:6]


class HandMade(torch.nn.Module):
    """Detects what was written down; the filter takes other objects' classes away."""

    def detect(
        self, images: list[Tensor], filters: list[Tensor | None]
    ) -> list[list[dict[str, Tensor]]]:
        places = [int(image[0, 0, 0] * 255) for image in images]
        results = []
        for allowed in filters:
            rows = [FOUND[place] for place in places]
            if allowed is not None:
                kept = [keep[row["labels"]] for keep, row in zip(allowed, rows, strict=True)]
                rows = [
                    {name: values[keep] for name, values in row.items()}
                    for keep, row in zip(kept, rows, strict=True)
                ]
            results.append(rows)
        return results


def validated(whole_objects: str) -> PartSegmenter:
    model = tiny_segmenter(OBJECT_PARTS, whole_objects=whole_objects)
    model.network = HandMade()
    batch = {
        "image": [torch.full((3, SIDE, SIDE), place, dtype=torch.uint8) for place in range(3)],
        "target": TARGETS,
        "label": torch.tensor(LABELS),
        "key": ["a/0", "b/0", "a/1"],
    }
    model.logged = {}
    model.log_dict = model.logged.update
    model.on_validation_epoch_start()
    model.validation_step(batch, 0)
    model.on_validation_epoch_end()
    return model


def test_joint_ap_is_that_of_pycocotools() -> None:
    logged = validated("beside_parts").logged
    wholes = []
    for one, label in zip(TARGETS, LABELS, strict=True):
        union = np.maximum.reduce(one["masks"].numpy())
        wholes.append({"labels": torch.tensor([4 + label]), "masks": torch.from_numpy(union)[None]})
    for suffix in SUFFIXES:
        guesses = FOUND
        if suffix:  # the class of the image's object and those of its parts, by hand
            own = [torch.tensor(ids) for ids in ([1, 2, 4], [3, 5], [1, 2, 4])]
            keep = [torch.isin(one["labels"], ids) for one, ids in zip(FOUND, own, strict=True)]
            guesses = [
                {name: values[row] for name, values in one.items()}
                for one, row in zip(FOUND, keep, strict=True)
            ]
        for prefix, truth in (("segm", TARGETS), ("detected_object", wholes)):
            measured = [float(logged[f"val/{prefix}_{name}{suffix}"]) for name in FIGURES]
            assert measured == pytest.approx(by_pycocotools(truth, guesses).tolist(), abs=1e-9)
    assert 0 < logged["val/detected_object_AP"] < logged["val/detected_object_AP50"]
    # the filter takes the false alarm of the other object away
    assert logged["val/detected_object_AP_filtered"] > logged["val/detected_object_AP"]


def test_objects_alone_have_no_part_ap(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [found((1, 0.9, rectangle(4, 4, 46, 18))), found((2, 0.5, rectangle(8, 8, 40, 40)))]
    only.append(found((1, 0.2, rectangle(30, 30, 10, 10))))
    monkeypatch.setattr("tests.modules.test_whole_objects.FOUND", only)
    model = validated("alone")
    assert not [name for name in model.logged if "segm" in name]
    assert model.mask_metrics == {}
    metrics = model.object_metrics[""]
    assert metrics.masks == {0: 2, 1: 1}
    truth = [
        united(one, torch.tensor(1 + label)) for one, label in zip(TARGETS, LABELS, strict=True)
    ]
    measured = [float(model.logged[f"val/detected_object_{name}"]) for name in FIGURES]
    assert measured == pytest.approx(by_pycocotools(truth, only).tolist(), abs=1e-9)


@pytest.fixture(scope="module")
def joint_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an untrained joint segmenter, which detects a bit of everything."""
    folder = tmp_path_factory.mktemp("joint")
    settings = {"rpn_proposals": 20, "detections_per_image": 40, "score_threshold": 0.01}
    save_tiny_segmenter(folder, OBJECT_PARTS, whole_objects="beside_parts", **settings)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("category_filter", [True, False])
@pytest.mark.parametrize("flip_tta", [True, False])
def test_objects_are_no_parts_of_pseudo_labels(
    joint_run: Path, category_filter: bool, flip_tta: bool
) -> None:
    settings: dict[str, Any] = {"category_filter": category_filter, "flip_tta": flip_tta}
    writer = PseudoLabelWriter(joint_run, OBJECT_PARTS, score_threshold=0.0, **settings).eval()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(256, (3, 40, 56), generator=generator).byte() for _ in range(2)]
    batch = {"image": images, "label": torch.tensor([0, 1]), "key": ["a/0", "b/0"]}
    records = writer.predict_step(batch | {"error": ["", ""]}, 0)
    labels = [set(record["detections"]["labels"].tolist()) for record in records]
    assert labels[0] | labels[1] == {1, 2, 3}
    if category_filter:
        assert labels == [{1, 2}, {3}]
    everything = writer.network.network.detect([image / 255 for image in images])[0]
    assert max(int(one["labels"].max()) for one in everything) > 3  # it does find objects


def test_objects_alone_are_refused_as_labels(tmp_path: Path) -> None:
    save_tiny_segmenter(tmp_path, OBJECT_PARTS, whole_objects="alone")
    with pytest.raises(ValueError, match=r"best\.ckpt was trained with whole_objects=alone"):
        PseudoLabelWriter(tmp_path, OBJECT_PARTS)
    with pytest.raises(ValueError, match="finds no parts"):
        tiny_segmenter(OBJECT_PARTS, whole_objects="alone").predict([], None)


def test_federated_loss_knows_how_often_objects_are_shown() -> None:
    model = tiny_segmenter(OBJECT_PARTS, whole_objects="beside_parts", class_loss="federated")
    counts = {"image_counts": torch.tensor([0, 5, 6, 7]), "object_counts": torch.tensor([8, 7])}
    model._trainer = SimpleNamespace(datamodule=SimpleNamespace(**counts))
    model.setup("fit")
    assert model.network.roi_heads.class_counts.tolist() == [0, 5, 6, 7, 8, 7]
    del model.trainer.datamodule.object_counts
    with pytest.raises(ValueError, match="`object_counts` where objects are classes"):
        model.setup("fit")


class Data(LightningDataModule):
    def val_dataloader(self) -> DataLoader:
        return DataLoader([])


@pytest.mark.parametrize(("trained", "own"), [(None, "alone"), ("beside_parts", None)])
def test_a_checkpoint_of_other_classes_is_refused(
    trained: str | None, own: str | None, tmp_path: Path
) -> None:
    save_tiny_segmenter(tmp_path, OBJECT_PARTS, whole_objects=trained)
    file = tmp_path / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    assert content["hyper_parameters"]["whole_objects"] == trained
    torch.save(content | {"pytorch-lightning_version": "2.6.0"}, file)
    model = tiny_segmenter(OBJECT_PARTS, whole_objects=own)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    words = f"whole_objects={trained or 'null'}, this segmenter has {own or 'null'}"
    with pytest.raises(ValueError, match=words):
        trainer.validate(model, datamodule=Data(), ckpt_path=file, weights_only=True)
