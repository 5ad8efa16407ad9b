"""A training step against float64 on the CPU, plain and through `torch.compile`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.adversarial_step import CLEAN, batch, model
from benchmarks.gpu_check.exact import deviation, gradients
from benchmarks.gpu_check.results import Check
from benchmarks.gpu_check.scale import Setting
from modules.mpm import MPM

BATCH = 8
AGAINST = "plain, float64, CPU"
# bfloat16 autocast: 8 bits in every layer, and batch norms of few values a channel
BF16 = (2e-2, 0.2)


def plain(setting: Setting) -> list[Check]:
    """The step as it is, in float32 and under bfloat16 autocast."""
    rounded = torch.autocast(setting.device, torch.bfloat16)
    return [
        *_compared(setting, "step", (1e-5, 5e-4)),
        *_compared(setting, "step, bfloat16", BF16, rounded),
    ]


def compiled(setting: Setting) -> list[Check]:
    """The step of `compile_network`, and what its attack ascends, in float32."""
    return [
        *_compared(setting, "compiled step", (1e-5, 2e-3), compile_network=True),
        _attacked(setting),
    ]


def _attacked(setting: Setting) -> Check:
    """Gradient by the images of the compiled network in eval mode."""
    shape = setting.scale.checked
    mpm, exact = model(shape, compile_network=True).eval(), model(shape).double().eval()
    given = batch(BATCH, "cpu", shape)
    mpm.to(device=setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mpm.on_fit_start()
    images = given["image"].double() / 255
    pairs = ((mpm, images.float().to(setting.device)), (exact, images))
    found, wanted = (_gradient(one, points, given["label"]) for one, points in pairs)
    return Check("compiled step: attack's gradient", deviation([found], [wanted]), 1e-3, AGAINST)


def _gradient(mpm: MPM, images: Tensor, labels: Tensor) -> Tensor:
    images.requires_grad_()
    loss = F.cross_entropy(mpm.network.surrogate(images), labels.to(images.device))
    return torch.autograd.grad(loss, images)[0]


def _compared(
    setting: Setting,
    name: str,
    tolerances: tuple[float, float],
    rounded: torch.autocast | None = None,
    **settings: Any,
) -> list[Check]:
    """Loss and gradients on clean images, as the noise of an attack differs between devices."""
    shape = setting.scale.checked
    mpm, exact = model(shape, attack=CLEAN, **settings), model(shape, attack=CLEAN).double()
    given = batch(BATCH, "cpu", shape)
    wanted = exact.training_step(given | {"image": given["image"].double() / 255}, 0)
    wanted.backward()
    mpm.to(device=setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mpm.on_fit_start()
    moved = {key: value.to(setting.device) for key, value in given.items()}
    loss = _loss(mpm, moved, rounded)
    loss.backward()
    of_loss, of_gradients = tolerances
    return [
        Check(name, deviation([loss], [wanted]), of_loss, AGAINST),
        Check(
            f"{name}: gradients",
            deviation(gradients(mpm), gradients(exact)),
            of_gradients,
            AGAINST,
        ),
    ]


def _loss(mpm: MPM, given: dict[str, Any], rounded: torch.autocast | None) -> Tensor:
    if rounded is None:
        return mpm.training_step(given, 0)
    with rounded:
        return mpm.training_step(given, 0)
