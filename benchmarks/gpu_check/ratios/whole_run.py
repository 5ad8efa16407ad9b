"""What the recipe of stage 3 takes, from the step and the loader that were timed."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from rich.console import Console

from benchmarks.adversarial_step import batch, flops, model
from benchmarks.gpu_check.results import Figure
from benchmarks.gpu_check.scale import Setting
from pipeline.estimate.extent import course, images_a_device
from pipeline.estimate.gpu_peaks import peak_tflops
from pipeline.estimate.measure import Estimate, Phase, hours
from pipeline.estimate.program import show

RECIPE = Path(__file__).parents[3] / "configs" / "stage3_mpm" / "resnet50_gelu_at.yaml"
IMAGENET = 1_281_167  # training images of ILSVRC 2012


def measure(setting: Setting) -> list[Figure]:
    """Hours of the whole recipe on its own number of GPUs.

    Raises:
        RuntimeError: if step or loader were not timed.
    """
    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    size = setting.batches[0]  # the recipe's on a GPU
    if size not in setting.step_seconds or setting.loader_speed is None:
        raise RuntimeError("needs the entries `step` and `data_path`")
    trainer = SimpleNamespace(max_steps=None, **recipe["trainer"])
    workers = min(recipe["data"]["init_args"]["num_workers"], os.cpu_count() or 1)
    mpm = model(setting.scale.shape)
    counted = batch(1, "cpu", setting.scale.shape)
    of_image = flops(lambda: mpm.eval().training_step(counted, 0), mpm)
    phases = tuple(
        Phase(str(kind), share, setting.step_seconds[size], of_image)
        for kind, share in course(mpm.training_attack, None, 0, trainer.max_epochs).items()
    )
    estimate = _estimate(setting, trainer, phases, workers)
    show(estimate, Console(width=110))
    return [
        Figure(
            f"whole run, {trainer.max_epochs} epochs, {trainer.devices} GPUs", estimate.hours, "h"
        ),
        Figure("share of the card's peak", _share(estimate), "%"),
    ]


def _estimate(
    setting: Setting, trainer: SimpleNamespace, phases: Sequence[Phase], workers: int
) -> Estimate:
    cuda = setting.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else "CPU"
    size, precision = setting.batches[0], trainer.precision if cuda else "32-true"
    images = images_a_device(trainer, IMAGENET, size, trainer.devices)
    speed = workers * (setting.loader_speed or 0.0)
    return Estimate(
        device=device,
        precision=precision,
        batch_size=size,
        workers=workers,
        loader_speed=speed,
        phases=tuple(phases),
        memory=round(setting.step_megabytes[size] * 2**20),
        peak=peak_tflops(device, precision) if cuda else None,
        devices=trainer.devices,
        images=images,
        hours=hours(phases, size, speed, images),
    )


def _share(estimate: Estimate) -> float | None:
    if estimate.peak is None:
        return None
    (phase,) = estimate.phases
    return 100 * phase.flops * estimate.batch_size / phase.step_seconds / 1e12 / estimate.peak
