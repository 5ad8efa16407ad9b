from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.adaptive import PartPGD
from modules.attacks.gradient_paths import gradient_path
from modules.attacks.threats import APGD, PGD, Threat
from modules.networks.judgment_block import JudgmentNetwork
from modules.networks.part_network import PartNetwork
from modules.networks.structures import build_network

EPS = 8 / 255
REGIONS = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 1, 1], [1, 0, 1, 0, 1]]).bool()
MODEL_ARGS = {"channels": [8, 8, 16, 16]}


def make_network(structure: str) -> PartNetwork:
    torch.manual_seed(1)
    network = build_network(structure, "resnet10t", REGIONS, model_args=MODEL_ARGS)  # type: ignore[arg-type]
    with torch.no_grad():  # let parts of all kinds be seen
        for name, weight in network.named_parameters():
            if name.endswith("pointwise.weight"):
                weight.mul_(20)
    return network.eval().requires_grad_(False)


def make_chunk(network: nn.Module) -> tuple[Tensor, Tensor]:
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return images, network(images).argmax(1)


def part_loss(network: PartNetwork, images: Tensor, points: Tensor) -> float:
    clean, moved = (network.forward_with_parts(x)[1] for x in (images, points))
    losses = [
        F.cross_entropy(after.logits(), before.logits().argmax(1))
        for before, after in zip(clean, moved, strict=True)
    ]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("structure", ["bypass", "downsampled", "judgment"])
@pytest.mark.parametrize(("norm", "eps", "order"), [("linf", EPS, torch.inf), ("l1", 20.0, 1)])
def test_part_attack_moves_the_part_maps(
    structure: str, norm: str, eps: float, order: float
) -> None:
    network = make_network(structure)
    images, labels = make_chunk(network)
    step = 4 * eps / 10
    alone = PartPGD(eps, 10, step, norm, class_weight=0)(network, images, labels, 3)  # type: ignore[arg-type]
    classes = PartPGD(eps, 10, step, norm, part_weight=0)(network, images, labels, 3)  # type: ignore[arg-type]
    for points in (alone, classes):
        assert points.min() >= 0
        assert points.max() <= 1
        distance = torch.linalg.vector_norm((points - images).flatten(1), order, dim=1)
        assert distance.max() <= eps * (1 + 1e-4)
    before = part_loss(network, images, images)
    assert part_loss(network, images, alone) > max(
        1.2 * before, part_loss(network, images, classes)
    )
    again = PartPGD(eps, 10, step, norm, class_weight=0)(network, images, labels, 3)  # type: ignore[arg-type]
    assert torch.equal(alone, again)


@pytest.mark.parametrize("threat", [PartPGD(EPS, 10, EPS / 4), PGD(EPS, 10, EPS / 4)])
def test_attacks_on_the_evidence_fool_the_true_forward(threat: Threat) -> None:
    network = make_network("judgment")
    images, labels = make_chunk(network)
    assert (network(threat(network, images, labels, 3)).argmax(1) == labels).sum() <= 2


@pytest.mark.parametrize("path", ["surrogate", "straight_through"])
def test_attacks_through_another_path_leave_the_network_in_eval_mode(path: str) -> None:
    """Else all images after the first attack are judged with the statistics of their batch."""
    network = make_network("judgment")
    images, labels = make_chunk(network)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for threat in (PGD(EPS, 1, EPS, through=path), APGD(EPS, steps=2, through=path)):  # type: ignore[arg-type]
        threat(network, images, labels, 3)
        assert not any(module.training for module in network.modules())
        network(images)
        assert all(value.equal(state[name]) for name, value in network.state_dict().items())


def test_an_attack_that_leaves_another_mode_is_refused() -> None:
    class Careless(PGD):
        def perturb(self, network: nn.Module, images: Tensor, *rest: Any) -> Tensor:
            network.train()
            return images

    network = make_network("bypass")
    with pytest.raises(UserError, match="attack Careless leaves BypassNetwork in another mode"):
        Careless(EPS, 1, EPS)(network, *make_chunk(network), 3)


def test_networks_without_parts_are_refused() -> None:
    network = build_network("bypass", "resnet10t", REGIONS[:, :0], model_args=MODEL_ARGS).eval()
    images, labels = make_chunk(network)
    with pytest.raises(ValueError, match="predicts no parts"):
        PartPGD(EPS, 2, EPS)(network, images, labels, 0)
    with pytest.raises(ValueError, match="needs a step and a weight"):
        PartPGD(EPS, 2, EPS, class_weight=0, part_weight=0)


@pytest.mark.parametrize("path", ["surrogate", "straight_through"])
def test_gradient_paths_leave_the_values_and_give_a_gradient(path: str) -> None:
    network = make_network("judgment")
    assert isinstance(network, JudgmentNetwork)
    images, labels = make_chunk(network)
    scores = network(images)
    with gradient_path(network, path) as seen:  # type: ignore[arg-type]
        points = images.clone().requires_grad_()
        values = seen(points)
        (gradient,) = torch.autograd.grad(F.cross_entropy(values, labels), points)
        with torch.no_grad():
            assert torch.equal(seen(images), scores)
    assert torch.equal(values, scores)
    assert gradient.abs().sum() > 0
    assert not network.judgment.straight_through
    if path == "surrogate":
        with gradient_path(network, "surrogate") as seen:
            assert torch.equal(seen(points), scores)
        soft = network.surrogate(points).requires_grad_()
        leaf = scores.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(F.cross_entropy(leaf, labels), leaf)
        torch.testing.assert_close(gradient, torch.autograd.grad(soft, points, wanted)[0])


def test_paths_that_a_network_lacks_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images, labels = torch.rand(2, 3, 2, 2), torch.zeros(2, dtype=torch.long)
    for path, message in (("surrogate", "no `surrogate`"), ("straight_through", "no judgment")):
        with pytest.raises(ValueError, match=message):
            APGD(EPS, steps=2, through=path)(network, images, labels, 0)  # type: ignore[arg-type]
