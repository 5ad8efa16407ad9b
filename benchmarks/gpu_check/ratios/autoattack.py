"""AutoAttack through the evaluation's threat against pyautoattack's own loop."""

from typing import Any

import pyautoattack
import torch

from benchmarks.adversarial_step import batch, model
from benchmarks.gpu_check.exact import used_statistics
from benchmarks.gpu_check.results import Check, Ratio, Result
from benchmarks.gpu_check.scale import Setting
from benchmarks.side_by_side import median_seconds
from modules.attacks.threats import AutoAttack

EPS, SEED = 0.25 / 255, 7  # a network of random weights falls to more at once
ATTACKS: list[Any] = ["apgd-ce"]  # a hundred steps; all of AutoAttack would take the whole budget
# Not slower, which two equal ways are within a few per cent of each other.
AIM = 0.97


def measure(setting: Setting) -> list[Result]:
    """The same images, seed and attack; the same images must stand."""
    shape, device = setting.scale.shape, setting.device
    network = model(shape, part_loss_weight=0.0).network.eval()
    used_statistics(network)
    network.to(device)
    images = batch(setting.scale.attacked, device, shape)["image"].float() / 255
    with torch.no_grad():
        labels = network(images).argmax(1)
    ours = AutoAttack(EPS, version="custom", attacks=ATTACKS)  # type: ignore[arg-type]
    outcomes = {}

    def threat() -> None:
        outcomes["ours"] = ours.outcome(network, images, labels, SEED).predictions

    def loop() -> None:
        attack = pyautoattack.AutoAttack(
            network, norm="Linf", eps=EPS, seed=SEED, device=images.device
        )
        attack.attacks_to_run = list(ATTACKS)
        outcomes["theirs"] = attack.run_standard_evaluation(images, labels, batch_size=len(images))[
            1
        ]

    repetitions = min(2, setting.scale.repetitions)
    found = median_seconds({"theirs": loop, "ours": threat}, repetitions, device)
    standing = [outcomes[way] == labels for way in ("ours", "theirs")]
    other = (standing[0] != standing[1]).double().mean().item()
    rates = (len(images) / found["theirs"], len(images) / found["ours"])
    # sums of a GPU have no order, so that a step may go the other way there and end elsewhere
    tolerance = 0.05 if device == "cuda" else 0.0
    return [
        Check("AutoAttack: share of other outcomes", other, tolerance, "pyautoattack's loop"),
        Ratio("AutoAttack (APGD)", *rates, "images/s", "pyautoattack's own loop", AIM),
    ]
