"""AutoAttack over more images than a batch: the package's own loop, which can be cut anywhere."""

from pathlib import Path
from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.threats import AutoAttack
from modules.attacks.traced_autoattack import Outcome
from tests.modules.attacks.test_threats import make_network

NORMS = {"linf": ("Linf", 4 / 255), "l1": ("L1", 4.0)}
ATTACKS = {"linf": ["apgd-ce", "apgd-dlr", "fab-t"], "l1": ["apgd-ce", "apgd-dlr"]}
IMAGES, BATCH, SMALL = 7, 3, 1 / 255


class Counting(nn.Module):
    """Counts the images that go through a network, and stops after so many."""

    def __init__(self, network: nn.Module, most: float = float("inf")) -> None:
        super().__init__()
        self.network, self.most, self.seen = network, most, 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        if self.seen > self.most:
            raise KeyboardInterrupt
        return self.network(images)


def make_images(network: nn.Module) -> tuple[Tensor, Tensor]:
    images = torch.rand(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = network(images).argmax(1)
    labels[2] = (labels[2] + 1) % 3
    return images, labels


def same(one: Outcome, other: Outcome) -> bool:
    assert one.predictions is not None
    assert other.predictions is not None
    equal = torch.equal(one.images, other.images) and torch.equal(
        one.predictions, other.predictions
    )
    return equal and one.broken_by == other.broken_by


def attack(norm: Any, eps: float | None = None) -> AutoAttack:
    attacks: Any = ATTACKS["l1" if eps else norm]
    return AutoAttack(eps or NORMS[norm][1], norm, "custom", attacks, batch_size=BATCH)


@pytest.mark.parametrize("norm", NORMS)
def test_outcomes_are_those_of_one_call_of_the_package(norm: str) -> None:
    network = make_network(10)
    images, labels = make_images(network)
    (name, eps), attacks = NORMS[norm], ATTACKS[norm]
    found = attack(norm).outcome(network, images, labels, seed=7)
    direct: Any = pyautoattack.AutoAttack(network, eps=eps, norm=name, seed=7)
    wanted = ["" if right else "clean" for right in (network(images).argmax(1) == labels).tolist()]
    for number in range(1, len(attacks) + 1):  # what each prefix breaks, its last attack broke
        direct.attacks_to_run = attacks[:number]
        torch.manual_seed(7)
        adversarial, predictions = direct.run_standard_evaluation(images, labels, batch_size=BATCH)
        for index in (predictions != labels).nonzero().flatten().tolist():
            wanted[index] = wanted[index] or attacks[number - 1]
    assert torch.equal(found.images, adversarial)
    assert found.predictions is not None
    assert torch.equal(found.predictions, predictions)
    assert found.broken_by == wanted
    assert len(set(wanted)) > 2


def test_a_cut_unit_goes_on_and_ends_alike(tmp_path: Path) -> None:
    network = make_network(10)
    images, labels = make_images(network)
    whole = Counting(network)
    wanted = attack("linf", SMALL).outcome(whole, images, labels, 7)
    cuts = 0
    for share in (0.2, 0.4):
        part = Counting(network, share * whole.seen)
        with pytest.raises(KeyboardInterrupt):
            attack("linf", SMALL).outcome(part, images, labels, 7, tmp_path / "kept")
        cuts += len(list((tmp_path / "kept").glob("*.pt")))
    assert cuts
    rest = Counting(network)
    assert same(attack("linf", SMALL).outcome(rest, images, labels, 7, tmp_path / "kept"), wanted)
    assert rest.seen < 0.9 * whole.seen
    again = Counting(network)
    assert same(attack("linf", SMALL).outcome(again, images, labels, 7, tmp_path / "kept"), wanted)
    assert again.seen < 0.05 * whole.seen


def test_calls_on_other_images_and_damaged_files_are_made_again(tmp_path: Path) -> None:
    network = make_network(10)
    images, labels = make_images(network)
    wanted = attack("linf", SMALL).outcome(network, images, labels, 7)
    attack("linf", SMALL).outcome(network, images.flip(0), labels.flip(0), 7, tmp_path)
    first, second, *_ = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    assert same(attack("linf", SMALL).outcome(network, images, labels, 7, tmp_path), wanted)


def test_batch_size_is_checked_and_said() -> None:
    with pytest.raises(UserError, match="batch_size=0 must be 1 or more"):
        AutoAttack(0.1, batch_size=0)
    assert AutoAttack(0.1, batch_size=4).settings["batch_size"] == 4
    assert "batch_size" not in AutoAttack(0.1).settings
