"""Milliseconds of several networks, measured side by side."""

import platform
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.stats import quantile_test
from torch import nn

from datamodules.files.errors import UserError
from pipeline.evaluation.set_gaps import Gap

LEAST_ROUNDS = 10  # below, a median has no useful interval


def measure_latency(
    networks: Mapping[str, tuple[nn.Module, int]],
    device: torch.device,
    batch_size: int = 1,
    rounds: int = 100,
    warm_up: int = 5,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Times forward passes in rounds, each network once a round, in an order drawn anew.

    So whatever else the machine does falls on all networks alike, and the times of one round can be
    paired.

    Args:
        networks: by name, classifiers of pixels in [0, 1] in eval mode and the side of their
            images; they end up on the device.
        device: where they run, in float32.
        batch_size: images in a forward pass.
        rounds: timed rounds.
        warm_up: rounds before them that are not timed.
        seed: of images and orders.

    Returns:
        By name, milliseconds of a batch, float64 `(rounds,)`.

    Raises:
        UserError: if a number is out of range.
    """
    check_rounds(batch_size, rounds)
    generator = torch.Generator().manual_seed(seed)
    images = {
        size: torch.rand(batch_size, 3, size, size, generator=generator).to(device)
        for size in sorted({size for _, size in networks.values()})
    }
    for network, _ in networks.values():
        network.to(device)
    names = list(networks)
    order = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for number in range(warm_up + rounds):
            for place in order.permutation(len(names)):
                network, size = networks[names[place]]
                spent = _seconds(network, images[size])
                if number >= warm_up:
                    times[names[place]].append(1000 * spent)
    return {name: np.array(found) for name, found in times.items()}


def check_rounds(batch_size: int, rounds: int) -> None:
    """Refuses what gives no figure.

    Raises:
        UserError: if the batch is empty, or the rounds are too few for an interval.
    """
    if batch_size < 1 or rounds < LEAST_ROUNDS:
        raise UserError(
            f"batch_size={batch_size} must be 1 or more and rounds={rounds} {LEAST_ROUNDS} or more"
        )


def median_gap(first: np.ndarray, second: np.ndarray | float = 0.0) -> Gap:
    """Median of paired differences with its 95 % interval, of order statistics.

    Args:
        first: times `(rounds,)`.
        second: times of the same rounds; 0 for the median of the first alone.
    """
    apart = first - second
    middle = float(np.median(apart))
    interval = quantile_test(apart, q=middle, p=0.5).confidence_interval(0.95)
    return Gap(middle, float(interval.low), float(interval.high))


def device_name(device: torch.device) -> str:
    """What the device is, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")
    lines = about.read_text(errors="replace").splitlines() if about.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    _wait(images.device)
    start = time.perf_counter()
    network(images)
    _wait(images.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
