"""Noise of the training attack, the same however a training is cut."""

import numpy as np
import torch
import torch.distributed as dist


def image_generators(
    count: int, step: int, rank: int, device: torch.device, turn: int = 0
) -> list[torch.Generator]:
    """Generators of each image: they depend on seed, step and its place in the global batch.

    A resumed run repeats them, and so does one with other processes or accumulated batches:
    `EpochSampler` deals the images of a step out in turn.

    Args:
        count: images of this process.
        step: optimiser step, from 0.
        rank: this process among all.
        device: where the generators draw.
        turn: this batch among those whose gradients the step accumulates, from 0.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    entropy = np.random.SeedSequence((torch.initial_seed(), step))
    global_batch = entropy.generate_state((turn + 1) * count * world, np.uint64)
    seeds = global_batch[turn * count * world + rank :: world]
    return [torch.Generator(device).manual_seed(int(s >> np.uint64(1))) for s in seeds]
