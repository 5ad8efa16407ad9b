"""A stand-in for the network of stage 2, and data that takes no room, to run stage 2 at scale."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from datamodules.imagenet_shards import ImageNetShardsDataModule
from modules.networks.detector_settings import MaskDetectorSettings
from modules.part_segmenter import PartSegmenter
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.labelling.shard_callback import PseudoLabelShards

SOURCES = 16  # distinct pictures; a file takes about 65,000 hard links
PER_OBJECT = 1000
PARTS = 3  # of every object


class StubNetwork(LightningModule):
    """Stands for the segmenter: the bright pixels of each colour are a part."""

    def predict(self, images: list[Tensor], labels: Tensor | None) -> list[dict[str, Tensor]]:
        """Detections as `PartSegmenter.predict` gives them."""
        assert labels is not None
        return [self._detect(*pair) for pair in zip(images, labels.tolist(), strict=True)]

    def _detect(self, image: Tensor, label: int) -> dict[str, Tensor]:
        values = image.float()
        means = values.mean((1, 2))
        order = means.argsort(descending=True, stable=True)
        boxes = torch.tensor([[0.0, 0.0, image.shape[2], image.shape[1]]]).expand(PARTS, 4)
        return {
            "boxes": boxes,
            "labels": 1 + PARTS * label + order,
            "scores": means[order] / 255,
            "masks": values[order] > means[order, None, None],
        }


def make_data(root: Path, images: int) -> None:
    """ImageNet's layout of `images` names for a few tiny pictures, and a segmenter's file."""
    rng = np.random.default_rng(0)
    sources = []
    for index in range(SOURCES):
        height, width = rng.integers(20, 40, 2)
        blocks = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        path = root / "sources" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks).resize((int(width), int(height))).save(path)
        sources.append(path)
    (root / "pinpp/json").mkdir(parents=True)
    categories = [{"id": i, "name": f"part {i}"} for i in range(PARTS)]
    content = json.dumps({"images": [], "annotations": [], "categories": categories})
    for label in range(-(-images // PER_OBJECT)):
        name = f"n{label:08d}"
        (root / f"pinpp/json/{name}.json").write_text(content)
        folder = root / "imagenet/train" / name
        folder.mkdir(parents=True)
        for index in range(label * PER_OBJECT, min(images, (label + 1) * PER_OBJECT)):
            os.link(sources[index * 7 % SOURCES], folder / f"{name}_{index}.JPEG")
    broken = root / "imagenet/train/n00000000/n00000000_3.JPEG"
    broken.unlink()
    broken.write_bytes(sources[0].read_bytes()[:100])
    torch.manual_seed(0)
    data = ImageNetShardsDataModule(root / "imagenet", root / "pinpp")
    segmenter = PartSegmenter(
        data.object_parts, "test_resnet", detector=MaskDetectorSettings(fpn_channels=8)
    )
    checkpoint = {"state_dict": segmenter.state_dict(), "hyper_parameters": dict(segmenter.hparams)}
    torch.save(checkpoint, root / "segmenter.ckpt")


def label(root: Path, run: Path, devices: int, workers: int, shard_size: int) -> None:
    """Stage 2 with the stub; Lightning starts further processes by running this file again."""
    torch.set_num_threads(1)
    data = ImageNetShardsDataModule(
        root / "imagenet",
        root / "pinpp",
        batch_size=32,
        num_workers=workers,
        shard_size=shard_size,
    )
    model = PseudoLabelWriter(root / "segmenter.ckpt", data.object_parts)
    model.network = StubNetwork()  # type: ignore[assignment]
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp" if devices > 1 else "auto",
        devices=devices,
        default_root_dir=run,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[PseudoLabelShards()],
    )
    trainer.predict(model, datamodule=data, return_predictions=False)
