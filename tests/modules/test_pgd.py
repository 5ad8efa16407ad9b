import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
        return F.cross_entropy(network(x), labels)

    attack = PGD(eps=4 / 255, steps=5)
    adversarial = attack(images, loss, torch.Generator().manual_seed(0))
    assert (adversarial - images).abs().max() <= 4 / 255 + 1e-7
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert loss(adversarial) > loss(images)


def test_leaves_no_parameter_gradients(network: nn.Module) -> None:
    images = torch.rand(2, 3, 8, 8)
    network(images)
    adversarial = PGD()(images, lambda x: network(x).sum())
    assert not adversarial.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_same_generator_same_attack(network: nn.Module) -> None:
    images = torch.rand(2, 3, 8, 8)
    network(images)
    first, second = (
        PGD()(images, lambda x: network(x).sum(), torch.Generator().manual_seed(3)) for _ in "ab"
    )
    assert torch.equal(first, second)


def test_finds_the_corner_of_a_linear_loss() -> None:
    images = torch.full((1, 3, 2, 2), 0.5)
    direction = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    adversarial = PGD(eps=0.1, steps=4)(images, lambda x: (x * direction).sum())
    torch.testing.assert_close(adversarial, images + 0.1 * direction.sign())


def test_bad_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=0"):
        PGD(steps=0)
