"""The training attack on the device against its definition in float64 on the CPU."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.adversarial_step import batch, model
from benchmarks.gpu_check.exact import used_statistics
from benchmarks.gpu_check.results import Check
from benchmarks.gpu_check.scale import Setting
from modules.attacks.balls import random_start
from modules.attacks.folding import folded
from modules.attacks.pgd import PGD

EPS, STEPS, BATCH = 4 / 255, 2, 8


def check(setting: Setting) -> list[Check]:
    """The same start on both sides; a step is a sign, so gradients near 0 may differ by one."""
    network = model(setting.scale.checked).network.eval()
    used_statistics(network)
    reference = copy.deepcopy(network).double()
    network.to(setting.device)
    given = batch(BATCH, setting.device, setting.scale.checked)
    images, labels = given["image"].float() / 255, given["label"]

    def loss(points: Tensor) -> Tensor:
        return F.cross_entropy(network(points), labels, reduction="none")

    seeded = torch.Generator(setting.device)
    start = random_start(images, EPS, "linf", seeded.manual_seed(3))
    with folded(network):
        found = PGD(EPS, STEPS)(images, loss, seeded.manual_seed(3)).cpu().double()
    clean = images.cpu().double()
    wanted = _ascended(reference, clean, start.cpu().double(), labels.cpu())
    apart = ((found - wanted).abs() > 1e-5).double().mean().item()
    outside = max((found - clean).abs().max().item() - EPS, -found.min().item(), found.max() - 1)
    against = "its definition, float64, CPU"
    return [
        Check("attack: share of pixels that differ", apart, 2e-3, against),
        Check("attack: distance outside of the ball", max(0.0, float(outside)), 1e-6, "eps"),
    ]


def _ascended(network: nn.Module, images: Tensor, start: Tensor, labels: Tensor) -> Tensor:
    """PGD (Madry et al. 2018) in l_inf with steps of 2 eps / t, without any of our code."""
    points = start
    for _ in range(STEPS):
        points = points.detach().requires_grad_()
        F.cross_entropy(network(points), labels).backward()
        assert points.grad is not None
        moved = points.detach() + 2 * EPS / STEPS * points.grad.sign()
        points = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
    return points
