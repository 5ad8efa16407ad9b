import pyautoattack
import pytest
import torch
import torchattacks
from torch import nn

from modules.attacks.threats import APGD, PGD, AutoAttack, Clean, Threat

EPS = 4 / 255


def make_network(num_classes: int) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Conv2d(8, 16, 3, stride=2), nn.GELU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, num_classes))
    return network.eval().requires_grad_(False)


def make_chunk(network: nn.Module, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(size, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = network(images).argmax(1)
    labels[-1] = (labels[-1] + 1) % 3
    return images, labels


@pytest.mark.parametrize(
    ("threat", "dims"),
    [
        (PGD(EPS, 5, 1 / 255), torch.inf),
        (PGD(0.5, 5, 0.2, norm="l2"), 2),
        (APGD(EPS, steps=10), torch.inf),
        (APGD(0.5, norm="l2", steps=10), 2),
        (APGD(12.0, norm="l1", steps=10), 1),
    ],
)
def test_perturbation_stays_in_the_ball_and_raises_the_loss(threat: Threat, dims: float) -> None:
    network = make_network(10)
    images, labels = make_chunk(network)
    state = torch.get_rng_state()
    with torch.no_grad():
        adversarial = threat(network, images, labels, seed=5)
        again = threat(network, images, labels, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(adversarial, again)
    assert not torch.equal(adversarial, images)
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    distance = torch.linalg.vector_norm((adversarial - images).flatten(1), dims, dim=1)
    assert distance.max() <= threat.eps * (1 + 1e-4)
    loss = nn.CrossEntropyLoss()
    assert loss(network(adversarial), labels) > loss(network(images), labels)


def test_clean_returns_the_images() -> None:
    images, labels = make_chunk(make_network(10))
    assert torch.equal(Clean()(make_network(10), images, labels, 0), images)


def test_pgd_is_torchattacks() -> None:
    network = make_network(10)
    images, labels = make_chunk(network)
    torch.manual_seed(5)
    wanted = torchattacks.PGD(network, EPS, 1 / 255, 4)(images, labels)
    assert torch.equal(PGD(EPS, 4, 1 / 255)(network, images, labels, 5), wanted)


def test_autoattack_is_pyautoattack_image_for_image() -> None:
    network = make_network(10)
    images, labels = make_chunk(network)
    direct = pyautoattack.AutoAttack(network, eps=EPS, norm="Linf", seed=5)
    torch.manual_seed(5)
    wanted, predictions = direct.run_standard_evaluation(images, labels, batch_size=4)
    with torch.no_grad():
        adversarial = AutoAttack(EPS)(network, images, labels, seed=5)
    assert torch.equal(adversarial, wanted)
    assert torch.equal(network(adversarial).argmax(1), predictions)
    assert (adversarial - images).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_autoattack_with_few_classes_runs_all_attacks(num_classes: int) -> None:
    network = make_network(num_classes)
    images, _ = make_chunk(network, size=2)
    labels = network(images).argmax(1)
    assert torch.equal(AutoAttack(1e-6)(network, images, labels, seed=5), images)
    adversarial = AutoAttack(0.2)(network, images, labels, seed=5)
    assert (network(adversarial).argmax(1) != labels).all()


def test_unknown_norm_and_negative_radius_are_refused() -> None:
    with pytest.raises(ValueError, match="norm=linf, eps=-1"):
        PGD(-1, 1, 1)
    with pytest.raises(ValueError, match="norm=l7"):
        AutoAttack(1, norm="l7")  # type: ignore[arg-type]
