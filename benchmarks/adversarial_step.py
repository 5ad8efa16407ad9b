"""One adversarial training step of MPM against the way of the paper authors' released code.

Their way, written afresh here: the attack calls `loss.backward()` with parameters that require
gradients, the bypass' laterals are computed under attack too, a third forward pass picks the best
iterate, and the part loss holds dense maps of all part classes. Ours is `MPM.training_step`.
Both are ResNet-50-GELU at 224 px with 3,311 part classes, PGD-2.

    python benchmarks/adversarial_step.py                # FLOPs and times
    python benchmarks/adversarial_step.py --flops-only

FLOPs come from torch's counter on the CPU; it counts convolutions and matrix products.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from part_loss import dense
from side_by_side import median_seconds

from modules.attacks.pixel_units import PixelDistance
from modules.attacks.training_attack import TrainingAttack
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings

EPS, STEPS, SMOOTHING = 4 / 255, 2, 0.1
OBJECTS, PART_CLASSES = 1000, 3311

CLEAN = TrainingAttack(eps=PixelDistance(0))

Batch = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What is trained; the recipe's own where nothing else is said.

    Attributes:
        network: the recogniser; its image size is that of the batch.
        objects: object classes.
        part_classes: K + 1.
    """

    network: NetworkSettings = NetworkSettings(
        architecture="resnet50", model_args={"act_layer": "gelu"}
    )
    objects: int = OBJECTS
    part_classes: int = PART_CLASSES


FULL = Shape()


def model(shape: Shape = FULL, **settings: Any) -> MPM:
    """MPM with seeded random weights."""
    torch.manual_seed(0)
    object_parts = torch.ones(shape.objects, shape.part_classes, dtype=torch.bool)
    return MPM(object_parts, shape.network, **settings).train()


def batch(size: int, device: str, shape: Shape = FULL) -> Batch:
    """A seeded batch as the loader hands it over."""
    generator = torch.Generator().manual_seed(0)
    side = shape.network.image_size
    images, cells = (size, 3, side, side), (size, side // 8, side // 8)
    given = {
        "image": torch.randint(0, 256, images, dtype=torch.uint8, generator=generator),
        "label": torch.randint(0, shape.objects, (size,), generator=generator),
        "part_labels": torch.randint(0, shape.part_classes, cells, generator=generator),
        "part_weight": torch.ones(size),
    }
    return {name: value.to(device) for name, value in given.items()}


def their_step(mpm: MPM, given: Batch) -> Tensor:
    """Attack and loss as the authors' code computes them, on the same network."""
    images, labels = given["image"].float() / 255, given["label"]
    recogniser, bypass = mpm.network.recogniser, mpm.network.bypass

    def class_loss(x: Tensor, under_attack: bool) -> tuple[Tensor, list[Tensor]]:
        logits, features = recogniser.forward_with_features(x, 3)
        if under_attack:
            for lateral, feature in zip(bypass.laterals, features, strict=True):
                lateral(feature)
        return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING), features

    mpm.network.eval()
    point = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    best, highest = point, torch.full((), -torch.inf, device=images.device)
    for _ in range(STEPS):
        point = point.detach().requires_grad_()
        loss, _ = class_loss(point, under_attack=True)
        loss.backward()
        if loss.detach() > highest:
            best, highest = point.detach(), loss.detach()
        moved = point.detach() + 2 * EPS / STEPS * point.grad.sign()
        point = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
    loss, _ = class_loss(point, under_attack=True)
    best = point.detach() if loss.detach() > highest else best
    mpm.zero_grad()
    mpm.network.train()
    loss, features = class_loss(best, under_attack=False)
    levels = bypass(features)
    part_loss = dense(
        [level.features for level in levels],
        [level.weight for level in levels],
        given["part_labels"],
        given["part_weight"],
    )
    return loss + part_loss


def run(step: Callable[[], Tensor], parameters: nn.Module) -> None:
    """One step: loss and gradients of all parameters."""
    parameters.zero_grad()
    step().backward()


class NoModules(contextlib.nullcontext[None]):
    """Stands in for the counter's module tracker, whose hooks do not bear `autograd.grad`."""

    parents = frozenset({"Global"})


def flops(step: Callable[[], Tensor], parameters: nn.Module) -> int:
    """Floating point operations of one step."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()  # type: ignore[assignment]
    with counter:
        run(step, parameters)
    return counter.get_total_flops()


def flop_ratio(size: int = 1) -> tuple[float, float, float]:
    """GFLOP an image: ours, theirs, and a clean step of ours."""
    given, ours, clean = batch(size, "cpu"), model(), model(attack=CLEAN)
    theirs = model()
    counts = (
        flops(lambda: ours.training_step(given, 0), ours),
        flops(lambda: their_step(theirs, given), theirs),
        flops(lambda: clean.training_step(given, 0), clean),
    )
    mine, others, plain = (count / size / 1e9 for count in counts)
    return mine, others, plain


def trained_step(mpm: MPM, given: Batch, theirs: bool = False) -> Callable[[], None]:
    """A step as it is timed: under bfloat16 autocast on a GPU, theirs not in channels-last."""
    device = given["image"].device.type
    layout = torch.contiguous_format if theirs else torch.channels_last
    mpm.to(device=device, memory_format=layout)  # type: ignore[call-overload]

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = their_step(mpm, given) if theirs else mpm.training_step(given, 0)
        loss.backward()
        mpm.zero_grad()

    return step


def timings(size: int, repetitions: int, device: str, compiled: bool) -> dict[str, float]:
    """Seconds a step of every variant."""
    given = batch(size, device)
    variants = {
        "theirs": model(),
        "ours": model(),
        "ours, clean": model(attack=CLEAN),
        "ours, vanilla": model(part_loss_weight=0.0),
    }
    if compiled:
        variants["ours, compiled"] = model(compile_network=True)
        variants["ours, compiled"].on_fit_start()
    steps = {name: trained_step(mpm, given, name == "theirs") for name, mpm in variants.items()}
    return median_seconds(steps, repetitions, device)


def main() -> None:
    """Prints the table and, last, the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, help="images a step (2; 128 on a GPU)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (torch's own number)")
    parser.add_argument("--flops-only", action="store_true")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    ours, theirs, clean = flop_ratio()
    print(f"GFLOP an image: theirs {theirs:.1f}, ours {ours:.1f}, a clean step {clean:.1f}")
    ratios = {"flop_ratio": ours / theirs}
    if not given.flops_only:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        size = given.batch or (128 if device == "cuda" else 2)
        times = timings(size, given.repetitions, device, given.compile)
        print(f"{device}, {size} images a step, median of {given.repetitions}, they alternate")
        for name, value in times.items():
            print(f"  {name:16}{1000 * value:10.1f} ms{size / value:10.1f} images/s")
        best = min(times["ours"], times.get("ours, compiled", times["ours"]))
        ratios |= {
            "time_ratio": times["theirs"] / best,
            "adversarial_over_clean": times["ours"] / times["ours, clean"],
            "mpm_over_vanilla": times["ours"] / times["ours, vanilla"],
        }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
