"""A tiny world to label in stage 2, and how the tests label it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image

from datamodules.imagenet_shards import ImageNetShardsDataModule
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.labelling.progress import LabelProgressBar
from pipeline.labelling.shard_callback import PseudoLabelShards
from tests.modules.tiny_segmenter import save_tiny_segmenter
from tests.pipeline.commands import PROJECT, start_python

KEYS = [f"{name}/{name}_{index}.jpg" for name in ("ant", "bee") for index in range(7)]
CORRUPT = "ant/ant_4.jpg"

OBJECT_PARTS = torch.tensor([[True, True, True, False, False], [True, False, False, True, True]])

# DDP starts further processes by running this file again, so it has to be one.
SCRIPT = """
import resource
import signal
import sys
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from datamodules.imagenet_shards import ImageNetShardsDataModule
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.labelling.shard_callback import PseudoLabelShards


class Slow(Callback):
    def on_predict_batch_end(self, *args, **kwargs):
        time.sleep(float(sys.argv[4]))


signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore interrupts
torch.set_num_threads(1)
root, run, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
data = ImageNetShardsDataModule(
    root / "imagenet", root / "pinpp", batch_size=2, shard_size=3, num_workers=devices - 1
)
if len(sys.argv) > 5:  # no file may grow beyond so many bytes, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]), int(sys.argv[5])))
trainer = Trainer(
    accelerator="cpu",
    strategy="ddp" if devices > 1 else "auto",
    devices=devices,
    default_root_dir=run,
    logger=False,
    enable_progress_bar=False,
    use_distributed_sampler=False,
    callbacks=[PseudoLabelShards(), Slow()],
)
model = PseudoLabelWriter(root / "stage1", data.object_parts)
trainer.predict(model, datamodule=data, return_predictions=False)
"""


def make_label_root(root: Path) -> None:
    """Fourteen images of two objects, one of them corrupt, and an untrained segmenter."""
    (root / "predict.py").write_text(SCRIPT)
    rng = np.random.default_rng(0)
    for key in KEYS:
        file = root / "imagenet/train" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    file = root / "imagenet/train" / CORRUPT
    file.write_bytes(file.read_bytes()[:200])
    (root / "pinpp/json").mkdir(parents=True)
    for name in ("ant", "bee"):
        categories = [{"id": 0, "name": "body"}, {"id": 1, "name": "head"}]
        content = {"images": [], "annotations": [], "categories": categories}
        (root / f"pinpp/json/{name}.json").write_text(json.dumps(content))
    save_segmenter(root / "stage1", seed=0)


def save_segmenter(run: Path, seed: int) -> None:
    """Stage 1's run folder, with another network a seed."""
    save_tiny_segmenter(run, OBJECT_PARTS, seed=seed, rpn_proposals=10)


def predict(
    root: Path,
    run: Path,
    segmenter: str = "stage1",
    labels: dict[str, object] | None = None,
    **settings: Any,
) -> None:
    """Labels in this process; `labels` are settings of the writer, `settings` of the trainer."""
    data = ImageNetShardsDataModule(root / "imagenet", root / "pinpp", batch_size=2, shard_size=3)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=run,
        logger=False,
        callbacks=[PseudoLabelShards(), LabelProgressBar()],
        **settings,
    )
    model = PseudoLabelWriter(root / segmenter, data.object_parts, **(labels or {}))
    trainer.predict(model, datamodule=data, return_predictions=False)


def start_labelling(
    root: Path, run: Path, devices: int, pause: float = 0.0, *args: str
) -> subprocess.Popen[str]:
    """Labels in processes of its own, with a pause in seconds after every batch."""
    script = str(root / "predict.py")
    given = [script, str(root), str(run), str(devices), str(pause), *args]
    return start_python(given, PYTHONPATH=str(PROJECT))


def files_of(run: Path) -> dict[str, bytes]:
    """Contents of the label files of a run folder by name."""
    return {path.name: path.read_bytes() for path in sorted((run / "labels").iterdir())}
