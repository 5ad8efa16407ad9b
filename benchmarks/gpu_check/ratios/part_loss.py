"""Memory and time of the part loss."""

import torch

from benchmarks.gpu_check.results import Ratio, Result, memory_ratio
from benchmarks.gpu_check.scale import Setting
from benchmarks.part_loss import WAYS, inputs
from benchmarks.side_by_side import median_seconds, peak_growth


def measure(setting: Setting) -> list[Result]:
    """Forward and backward of dense maps, and of the fused loss; on a GPU of compiled chunks."""
    cuda = setting.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    given = inputs(
        setting.scale.loss_batch, setting.scale.shape.part_classes, dtype, setting.device
    )

    def run(way: str) -> None:
        for tensor in (*given[0], *given[1]):
            tensor.grad = None
        WAYS[way](*given).backward()

    ways = {way: lambda way=way: run(way) for way in WAYS if cuda or way != "compiled"}
    seconds = median_seconds(ways, setting.scale.repetitions, setting.device)
    fastest = min(value for way, value in seconds.items() if way != "dense")
    memory = {way: peak_growth(ways[way], setting.device) for way in ("dense", "fused")}
    name = f"part loss, batch {setting.scale.loss_batch}"
    return [
        Ratio(f"{name}: time", 1e3 * seconds["dense"], 1e3 * fastest, "ms", aim=4.0),
        memory_ratio(f"{name}: peak memory", memory["dense"], memory["fused"], setting.device),
    ]
