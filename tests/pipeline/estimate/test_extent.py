import pytest
import torch

from datamodules.images.progressive_resolution import ProgressiveResolution
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.training_attack import TrainingAttack
from pipeline.estimate.extent import StepKind, at_side, course


def test_kinds_of_steps_of_a_fast_recipe() -> None:
    attack = TrainingAttack(clean_epochs=1, one_step_until=0.7)
    found = course(attack, ProgressiveResolution(0.5, 0.6), 96, 8)
    assert found == {
        StepKind("clean", 32): 1 / 8,
        StepKind("one-step", 32): 1 / 8,
        StepKind("one-step", 64): 3 / 8,
        StepKind("one-step", 96): 1 / 8,
        StepKind("adversarial", 96): 2 / 8,
    }
    assert [str(kind) for kind in found][:2] == ["clean at 32 px", "one-step at 32 px"]


@pytest.mark.parametrize("epochs", [None, -1])
def test_a_run_of_steps_is_of_one_kind(epochs: int | None) -> None:
    assert course(TrainingAttack(), None, 96, epochs) == {StepKind("adversarial"): 1.0}
    clean = TrainingAttack(eps=PixelDistance(0))
    assert course(clean, None, 96, epochs) == {StepKind("clean"): 1.0}
    assert course(clean, None, 96, 3) == {StepKind("clean"): 1.0}


def test_a_batch_at_another_size_keeps_its_cells() -> None:
    image = torch.arange(64).view(1, 1, 64, 1).expand(2, 3, 64, 64)
    batch = {"image": image, "part_labels": image[:, 0, ::8, ::8], "label": torch.zeros(2)}
    small = at_side(batch, 32)
    assert small["image"].shape == (2, 3, 32, 32)
    assert small["image"][0, 0, :, 0].tolist() == list(range(0, 64, 2))
    assert small["part_labels"][0, :, 0].tolist() == [0, 16, 32, 48]
    assert small["label"] is batch["label"]
    assert at_side(batch, 64) is at_side(batch, None) is batch
