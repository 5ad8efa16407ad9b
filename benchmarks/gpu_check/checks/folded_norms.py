"""Batch norms folded into convolutions against the network as it is, in float64 on the CPU."""

import copy

import torch
from torch import Tensor

from benchmarks.adversarial_step import batch, model
from benchmarks.gpu_check.exact import deviation, used_statistics
from benchmarks.gpu_check.results import Check
from benchmarks.gpu_check.scale import Setting
from modules.attacks.folding import foldable, folded
from modules.networks.part_network import PartNetwork

BATCH = 2
AGAINST = "the network as it is, float64, CPU"
# Of logits, their gradient and logits in bfloat16; ResNet-50 on a CPU has 6e-7, 3e-5 and 5e-3.
TOLERANCES = (1e-4, 1e-3, 3e-2)


def check(setting: Setting) -> list[Check]:
    """Logits and their gradient by the images in float32; logits under bfloat16 autocast.

    Raises:
        RuntimeError: if the network has nothing to fold.
    """
    shape = setting.scale.shape
    network = model(shape).network.eval()
    used_statistics(network)
    if not foldable(network):
        raise RuntimeError(f"no batch norm of {shape.network.architecture} can be folded")
    reference = copy.deepcopy(network).double()
    network.to(device=setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = batch(BATCH, "cpu", shape)["image"].double() / 255
    with folded(network):
        logits, gradient = _through(network, images.float().to(setting.device))
        with torch.autocast(setting.device, torch.bfloat16), torch.no_grad():
            rounded = network(images.float().to(setting.device))
    wanted, wanted_gradient = _through(reference, images)
    found = {
        "folded norms: logits": deviation([logits], [wanted]),
        "folded norms: gradient": deviation([gradient], [wanted_gradient]),
        "folded norms, bfloat16: logits": deviation([rounded], [wanted]),
    }
    return [
        Check(name, value, tolerance, AGAINST)
        for (name, value), tolerance in zip(found.items(), TOLERANCES, strict=True)
    ]


def _through(network: PartNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.detach().clone().requires_grad_()
    logits = network.surrogate(images)
    weights = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    return logits, gradient
