"""Random numbers of a training step, the same however a training is cut."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def step_randomness(epoch: int, batch: int, rank: int, device: torch.device) -> Iterator[None]:
    """Draws from torch's generators as a function of seed, epoch, batch and process alone.

    Checkpoints keep no state of these generators, from which detectors sample anchors and regions
    and backbones drop paths. They are put back afterwards.

    Args:
        epoch: from 0.
        batch: place in the epoch, from 0.
        rank: this process among all.
        device: where the step draws, besides the CPU.
    """
    seed = np.random.SeedSequence((torch.initial_seed(), epoch, batch, rank))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield
