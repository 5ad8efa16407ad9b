"""The part loss of MPM against the dense formulation of the paper authors' released code.

Both take the features of three levels (28, 14 and 7 cells a side) and the pointwise weights of
their heads, and give the loss and all gradients. The dense way is written afresh here: a one-hot
map of all part classes at the finest level, smoothed, resized bilinearly to the coarser levels,
and a soft-max focal loss on full logit maps.

    python benchmarks/part_loss.py

Peak memory is the growth of a process of its own (of the CUDA allocator on a GPU); times alternate
in one process, on one CPU thread.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.losses.part_focal import PartFocalLoss, mixture_targets

LEVELS = ((128, 28), (256, 14), (512, 7))  # channels and cells a side of ResNet-50's bypass
SMOOTHING, GAMMA = 0.1, 2.0

Inputs = tuple[list[Tensor], list[Tensor], Tensor, Tensor]


def inputs(batch: int, classes: int, dtype: torch.dtype, device: str) -> Inputs:
    """Features, weights, part labels `(B, 28, 28)` and image weights, seeded."""
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.randn(batch, c, s, s, generator=generator).to(device, dtype).requires_grad_()
        for c, s in LEVELS
    ]
    weights = [
        (0.05 * torch.randn(classes, c, generator=generator)).to(device, dtype).requires_grad_()
        for c, _ in LEVELS
    ]
    patches = torch.randint(0, classes, (batch, 7, 7), generator=generator)
    labels = patches.repeat_interleave(4, 1).repeat_interleave(4, 2).roll((1, 1), (1, 2))
    return features, weights, labels.to(device), torch.ones(batch, device=device)


def fused(
    features: list[Tensor],
    weights: list[Tensor],
    labels: Tensor,
    image: Tensor,
    compiled: bool = False,
) -> Tensor:
    """This project's loss."""
    loss = PartFocalLoss(GAMMA, SMOOTHING, compiled)
    losses = [
        loss(f, w, mixture_targets(labels, f.shape[-2:]), image)
        for f, w in zip(features, weights, strict=True)
    ]
    return torch.stack(losses).mean()


def dense(features: list[Tensor], weights: list[Tensor], labels: Tensor, image: Tensor) -> Tensor:
    """The same value with every tensor of (B, K + 1, h, w) written out."""
    classes = weights[0].shape[0]
    target = F.one_hot(labels, classes).permute(0, 3, 1, 2).float()
    target = target * (1 - SMOOTHING) + SMOOTHING / classes
    losses = []
    for f, w in zip(features, weights, strict=True):
        logits = F.conv2d(f, w[..., None, None]).float()
        size = logits.shape[-2:]
        soft = F.interpolate(target, size, mode="bilinear", align_corners=False)
        entropy = -(soft * F.log_softmax(logits, 1)).sum(1)
        focal = (1 - torch.exp(-entropy)) ** GAMMA * entropy
        losses.append((focal * image[:, None, None]).mean())
    return torch.stack(losses).mean()


WAYS: dict[str, Callable[..., Tensor]] = {
    "dense": dense,
    "fused": fused,
    "compiled": partial(fused, compiled=True),
}


def peak(way: str, batch: int, classes: int, dtype: torch.dtype, device: str) -> float:
    """Growth of memory over forward and backward, MB; to be called in a fresh process."""
    torch.set_num_threads(1)
    given = inputs(batch, classes, dtype, device)
    small = inputs(1, 8, dtype, device)
    WAYS[way](*small).backward()  # libraries load what they need
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        WAYS[way](*given).backward()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WAYS[way](*given).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def peak_alone(*arguments: object) -> float:
    """`peak` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, arguments)


def seconds(way: str, given: Inputs) -> float:
    """Time of one forward and backward."""
    if given[0][0].is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    WAYS[way](*given).backward()
    if given[0][0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def errors(classes: int, device: str) -> tuple[float, float]:
    """Largest relative errors of value and gradients of the fused loss, in float32."""
    results = {}
    for way in ("dense", "fused"):
        features, weights, labels, image = inputs(2, classes, torch.float32, device)
        loss = WAYS[way](features, weights, labels, image)
        loss.backward()
        results[way] = (loss.detach(), [t.grad for t in (*features, *weights)])
    value = abs(results["fused"][0] / results["dense"][0] - 1).item()
    gradient = max(
        ((ours - theirs).norm() / theirs.norm()).item()
        for ours, theirs in zip(results["fused"][1], results["dense"][1], strict=True)
    )
    return value, gradient


def main() -> None:
    """Prints the table and, last, the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=3311, help="K + 1")
    parser.add_argument("--batch", type=int, default=64, help="images, for the memory")
    parser.add_argument("--timed-batch", type=int, help="images, for the time (4; 64 on a GPU)")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compiled", action="store_true", help="also with compiled chunks (always on a GPU)"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways = [way for way in WAYS if way != "compiled" or given.compiled or given.device == "cuda"]
    timed = given.timed_batch or (4 if given.device == "cpu" else 64)
    memory = {
        (way, dtype): peak_alone(way, given.batch, given.classes, dtype, given.device)
        for way in ways
        for dtype in (torch.float32, torch.bfloat16)
    }
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    batch = inputs(timed, given.classes, dtype, given.device)
    for way in ways:
        seconds(way, batch)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(given.repetitions):
        for way in ways:
            times[way].append(seconds(way, batch))
    value_error, gradient_error = errors(given.classes, given.device)
    print(f"{given.classes} classes on {given.device}; levels (channels, side): {LEVELS}")
    print(
        f"{'':8}{'MB fp32':>10}{'MB bf16':>10}{'ms':>10}   memory at batch {given.batch}, ", end=""
    )
    print(f"median time at batch {timed} {str(dtype).removeprefix('torch.')}")
    for way in ways:
        fp32, bf16 = (memory[way, d] for d in (torch.float32, torch.bfloat16))
        print(f"{way:8}{fp32:10.0f}{bf16:10.0f}{1000 * statistics.median(times[way]):10.1f}")
    ratios = {
        "memory_ratio_b64": memory["dense", torch.float32] / memory["fused", torch.float32],
        "memory_ratio_b64_bf16": memory["dense", torch.bfloat16] / memory["fused", torch.bfloat16],
        "time_ratio": statistics.median(times["dense"]) / statistics.median(times["fused"]),
        "value_rel_err": value_error,
        "grad_rel_err": gradient_error,
    }
    if "compiled" in ways:
        ratios["time_ratio_compiled"] = statistics.median(times["dense"]) / statistics.median(
            times["compiled"]
        )
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
