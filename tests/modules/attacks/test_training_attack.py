import pytest
import torch
from torch import Tensor

from modules.attacks.pixel_units import PixelDistance
from modules.attacks.training_attack import TrainingAttack


def test_one_step_ends_after_its_share_of_the_epochs() -> None:
    attack = TrainingAttack(one_step_until=0.7)
    assert [attack.is_one_step(epoch, 6) for epoch in range(6)] == [True] * 4 + [False] * 2
    assert sum(attack.is_one_step(epoch, 10) for epoch in range(10)) == 7
    assert not any(TrainingAttack().is_one_step(epoch, None) for epoch in range(3))


def test_clean_epochs_are_not_one_step() -> None:
    attack = TrainingAttack(clean_epochs=2, one_step_until=0.5)
    assert [attack.is_one_step(epoch, 8) for epoch in range(5)] == [False, False, True, True, False]


def test_a_share_of_unknown_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one_step_until .* set trainer\.max_epochs"):
        TrainingAttack(one_step_until=0.5).is_one_step(0, -1)
    with pytest.raises(ValueError, match=r"one_step_until=1\.5 is not between 0 and 1"):
        TrainingAttack(one_step_until=1.5)


def test_the_one_step_is_that_of_fast_at() -> None:
    """Uniform start in the ball, 1.25 radii along the sign, back into the ball (Wong et al.)."""
    eps = 8 / 255
    attack = TrainingAttack(eps=PixelDistance(eps), steps=2).of_training(one_step=True)
    images = torch.full((2, 3, 16, 16), 0.5)
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    calls: list[Tensor] = []

    def loss(x: Tensor) -> Tensor:
        calls.append(x.detach().clone())
        return (x * weight).sum((1, 2, 3))

    found = attack(images, loss, torch.Generator().manual_seed(1))
    (start,) = calls
    assert (start - images).abs().max() <= eps
    assert (start - images).std() == pytest.approx(2 * eps / 12**0.5, rel=0.1)
    expected = (start - images + 1.25 * eps * weight.sign()).clamp(-eps, eps)
    torch.testing.assert_close(found - images, expected)
