"""AutoAttack through the evaluation against direct calls of pyautoattack, on two robust CIFAR nets.

Chunk by chunk the same images, seed and network: outcomes must be equal image by image, and the
evaluation (reading images, Lightning, records, summary) may cost 5 % more than the calls. Both are
timed side by side in one process, as CPU time, so that other load on the machine cancels out.

    python benchmarks/autoattack_overhead.py                        # 200 images, both networks
    python benchmarks/autoattack_overhead.py --models adv --images 40 --chunk 10
    python benchmarks/autoattack_overhead.py --models example --eps 8 --images 4 --chunk 2

`example` is the checkpoint that pyautoattack brings. The images and CNN-A are those of
../shared/data/cifar_check, whose README has the PGD figures.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyautoattack
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from datamodules.robustness import RobustnessDataModule
from modules.attacks.threats import PYAUTOATTACK_NORMS, AutoAttack
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.robustness_records import RobustnessRecords
from pipeline.evaluation.summaries import RobustnessSummary

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "cifar_check"
EXAMPLE = Path(pyautoattack.__path__[0]) / "examples" / "model_test.pt"
MEAN, STD = [0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616]
PGD_REFERENCE = {"adv": 0.515, "adv4": 0.5}  # PGD-40 x 3 on a margin loss, l_inf 2/255
THREAT = "autoattack"


def cnn_a() -> nn.Sequential:
    """CNN-A of the verification literature, for normalised images `(B, 3, 32, 32)`."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def source(model: str) -> dict[str, Any]:
    """The model as a configuration names it."""
    if model == "example":
        return {"class_path": "pyautoattack.examples.resnet.ResNet18", "weights": str(EXAMPLE)}
    weights = str(DATA / f"cifar_cnn_a_{model}.model")
    sys.path.insert(0, str(Path(__file__).parent))
    path = "autoattack_overhead.cnn_a"
    return {"class_path": path, "weights": weights, "mean": MEAN, "std": STD}


def write_images(folder: Path) -> None:
    """The images of `cifar_check` as PNG files in an ImageNet layout."""
    images, labels = np.load(DATA / "X_sdp.npy"), np.load(DATA / "y_sdp.npy")
    for label in range(10):
        (folder / "train" / str(label)).mkdir(parents=True)
        (folder / "val" / str(label)).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        pixels = np.rint(image * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "val" / str(label) / f"{number:03d}.png")


class DirectCalls(Callback):
    """Calls pyautoattack on the batches that the evaluation attacks, before or after in turn.

    Args:
        network: the network, of pixels in [0, 1].
        attack: makes the attack of a seed.
    """

    def __init__(
        self, network: nn.Module, attack: Callable[[nn.Module, int], pyautoattack.AutoAttack]
    ) -> None:
        self.network = network
        self.attack = attack
        self.seconds = self.seconds_aside = 0.0
        self.predictions: dict[str, int] = {}
        self.distances: dict[str, float] = {}

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Every other batch is attacked here first."""
        if batch_idx % 2:
            self._call(batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The others are attacked here last."""
        if batch_idx % 2 == 0:
            self._call(batch)

    def _call(self, batch: dict[str, Any]) -> None:
        whole = time.process_time()
        images: Tensor = batch["image"].float() / 255
        start = time.process_time()
        attack = self.attack(self.network, batch["attack_seed"])
        with torch.enable_grad():
            adversarial, predictions = attack.run_standard_evaluation(
                images, batch["label"], batch_size=len(images)
            )
        self.seconds += time.process_time() - start
        distances = (adversarial - images).flatten(1).norm(torch.inf, dim=1)
        for key, prediction, distance in zip(
            batch["key"], predictions.tolist(), distances.tolist(), strict=True
        ):
            self.predictions[key], self.distances[key] = prediction, distance
        self.seconds_aside += time.process_time() - whole


def measure(model: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs the evaluation and the direct calls of one model."""
    custom = {"version": "custom", "attacks": options.attacks} if options.attacks else {}
    threat = AutoAttack(options.eps / 255, **custom)

    def direct(network: nn.Module, seed: int) -> pyautoattack.AutoAttack:
        norm: Any = PYAUTOATTACK_NORMS["linf"]
        attack = pyautoattack.AutoAttack(network, norm=norm, eps=threat.eps, seed=seed)
        if options.attacks:
            attack.attacks_to_run = options.attacks
        return attack

    sets = RobustnessDataModule(data, None, {THREAT: options.images}, options.chunk, 32, 32)
    evaluator = RobustnessEvaluator(source(model), {THREAT: threat}, sets.object_parts)
    other = RobustnessEvaluator(source(model), {}).network
    calls = DirectCalls(other, direct)
    run = data.parent / f"evaluate_{model}"
    trainer = Trainer(
        default_root_dir=run,
        inference_mode=False,
        accelerator="cpu",
        callbacks=[RobustnessRecords(), calls],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    start = time.process_time()
    trainer.test(evaluator, datamodule=sets, verbose=False)
    seconds = time.process_time() - start - calls.seconds_aside
    rows = [row for unit in sets.units for row in pq.read_table(unit.record(run)).to_pylist()]
    equal = all(
        row["adversarial_prediction"] == calls.predictions[row["key"]]
        and abs(row["linf"] - calls.distances[row["key"]]) < 1e-7
        and row["robust"] == (calls.predictions[row["key"]] == row["label"])
        for row in rows
    )
    return {
        "images": len(rows),
        "clean": sum(row["clean_prediction"] == row["label"] for row in rows) / len(rows),
        "robust": sum(row["robust"] for row in rows) / len(rows),
        "equal": equal and len(rows) == len(calls.predictions),
        "direct": calls.seconds,
        "evaluation": seconds,
        "broken_by": RobustnessSummary.read(run).threats[0].broken_by,
    }


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["adv", "adv4"])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=50)
    parser.add_argument("--eps", type=float, default=2.0, help="radius, in 1/255")
    parser.add_argument("--attacks", nargs="+", default=[], help="instead of standard's")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "cifar")
        for model in options.models:
            found[model] = measure(model, Path(folder) / "cifar", options)
    print(
        f"{'model':8} {'images':>6} {'clean':>7} {'robust':>7} {'equal':>6} "
        f"{'direct s/image':>14} {'evaluation':>10} {'ratio':>6}  broken by"
    )
    for model, row in found.items():
        each = [row[name] / row["images"] for name in ("direct", "evaluation")]
        print(
            f"{model:8} {row['images']:6} {row['clean']:7.1%} {row['robust']:7.1%} "
            f"{row['equal']!s:>6} {each[0]:14.3f} {each[1]:10.3f} {each[1] / each[0]:6.3f}  "
            f"{row['broken_by']}"
        )
    direct, evaluation = (
        sum(row[name] for row in found.values()) for name in ("direct", "evaluation")
    )
    print(
        json.dumps(
            {
                "outcomes_equal": all(row["equal"] for row in found.values()),
                "time_ratio": evaluation / direct,
                "robust_accuracy": {model: row["robust"] for model, row in found.items()},
                "pgd_reference": {
                    model: PGD_REFERENCE[model] for model in found if model in PGD_REFERENCE
                },
            }
        )
    )


if __name__ == "__main__":
    main()
