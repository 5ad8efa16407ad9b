"""The estimate of a training's cost, on a tiny run."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modules.mpm import MPM
from modules.networks.structures import NetworkSettings
from pipeline.estimate.gpu_peaks import peak_tflops
from pipeline.estimate.measure import estimate
from tests.pipeline.commands import stage_args

TINY = {"act_layer": "gelu", "channels": [8, 8, 16, 16], "stem_width": 8}


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_estimate_times_both_kinds_of_steps_and_writes_nothing(
    finished_runs: Path, shapes_root: Path
) -> None:
    before = files_below(finished_runs) | files_below(shapes_root)
    args = stage_args("stage3_mpm", shapes_root, finished_runs, name="never_made")
    found = estimate(args, devices=2, steps=2)
    assert files_below(finished_runs) | files_below(shapes_root) == before

    # 36 images in batches of 4 for 3 epochs, shared by 2 devices; 1 epoch of 3 is clean
    assert found.images == 36 * 3 / 2
    shares = {phase.name: phase.share for phase in found.phases}
    assert shares == pytest.approx({"clean": 1 / 3, "adversarial": 2 / 3})
    seconds = sum(
        phase.share * max(phase.step_seconds / 4, 1 / found.loader_speed) for phase in found.phases
    )
    assert found.hours == pytest.approx(found.images * seconds / 3600)
    assert (found.peak, found.memory) == (None, 0)

    clean, adversarial = found.phases
    network = MPM(torch.ones(3, 5).bool(), NetworkSettings("bypass", "resnet18", TINY))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    forward = counter.get_total_flops()
    # PGD-2 adds two passes forward and two back to the input
    assert (adversarial.flops - clean.flops) / forward == pytest.approx(4, rel=0.15)


def test_a_run_of_a_number_of_steps_takes_as_long_on_any_number_of_devices(
    finished_runs: Path, shapes_root: Path
) -> None:
    args = stage_args("stage1_segmenter", shapes_root, finished_runs, name="never_made")
    found = estimate(args, devices=8, steps=1)
    assert [phase.name for phase in found.phases] == ["training"]
    assert found.images == 4 * 4  # 4 steps of 4 images on each device


def test_estimate_refuses_what_is_no_training(finished_runs: Path, shapes_root: Path) -> None:
    args = stage_args("evaluate", shapes_root, finished_runs)
    with pytest.raises(ValueError, match="stage3_mpm fit"):
        estimate(args)


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989.4),
        ("NVIDIA H100 PCIe", "16-mixed", 756.0),
        ("NVIDIA A100-SXM4-80GB", "32-true", 156.0),
        ("NVIDIA A10G", "bf16-mixed", 70.0),
        ("NVIDIA L40S", "bf16-mixed", 362.0),
        ("NVIDIA GeForce GT 710", "32-true", None),
    ],
)
def test_peak_of_a_gpu(device: str, precision: str, peak: float | None) -> None:
    assert peak_tflops(device, precision) == peak
