from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.attacks.balls import Norm
from modules.attacks.pgd import PGD


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


def test_stays_in_ball_and_range_and_raises_the_loss(network: nn.Module) -> None:
    images = torch.rand(16, 3, 8, 8)
    images[0], images[1] = 0, 1
    labels = torch.arange(16) % 4
    network(images)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network(x), labels, reduction="none")

    attack = PGD(eps=4 / 255, steps=5)
    adversarial = attack(images, loss, torch.Generator().manual_seed(0))
    assert (adversarial - images).abs().max() <= 4 / 255 + 1e-7
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (loss(adversarial) > loss(images)).all()


def test_leaves_no_parameter_gradients(network: nn.Module) -> None:
    images = torch.rand(2, 3, 8, 8)
    network(images)
    adversarial = PGD()(images, lambda x: network(x).sum(1))
    assert not adversarial.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_same_generator_same_attack(network: nn.Module) -> None:
    images = torch.rand(2, 3, 8, 8)
    network(images)
    first, second = (
        PGD()(images, lambda x: network(x).sum(1), torch.Generator().manual_seed(3)) for _ in "ab"
    )
    assert torch.equal(first, second)


def test_finds_the_corner_of_a_linear_loss() -> None:
    images = torch.full((1, 3, 2, 2), 0.5)
    direction = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    adversarial = PGD(eps=0.1, steps=4)(images, lambda x: (x * direction).flatten(1).sum(1))
    torch.testing.assert_close(adversarial, images + 0.1 * direction.sign())


def test_bad_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=0"):
        PGD(steps=0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.5), ("l1", 4.0)])
def test_every_ball_holds_and_more_work_is_never_worse(
    network: nn.Module, norm: Norm, eps: float
) -> None:
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 4
    network(images)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network(x), labels, reduction="none")

    def attack(**kwargs: Any) -> torch.Tensor:
        found = PGD(eps, 5, norm=norm, **kwargs)(images, loss, torch.Generator().manual_seed(0))
        delta = (found - images).flatten(1)
        order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
        assert (delta.norm(order, dim=1) <= eps * (1 + 1e-4)).all()
        assert found.min() >= 0
        assert found.max() <= 1
        return loss(found)

    plain, best, restarted = attack(), attack(keep_best=True), attack(restarts=3)
    assert (plain > loss(images)).all()
    assert (best >= plain - 1e-6).all()
    assert (restarted >= plain - 1e-6).all()
    assert restarted.sum() > plain.sum()


def test_warm_up_shrinks_the_ball_and_the_step(network: nn.Module) -> None:
    images = torch.full((2, 3, 8, 8), 0.5)
    network(images)
    attack = PGD(0.1, 1)

    def moved(eps_factor: float, step_factor: float) -> float:
        found = attack(images, lambda x: network(x).sum(1), None, eps_factor, step_factor)
        return float((found - images).abs().max())

    assert moved(0.5, 1.0) <= 0.05 + 1e-6
    start = attack(images, lambda x: network(x).sum(1), torch.Generator().manual_seed(0), 1.0, 0.0)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(start, images + 0.1 * (2 * noise - 1))
