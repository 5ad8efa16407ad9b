import pyautoattack
import pytest
import torch
import torchattacks
from torch import nn

from modules.attacks.threats import APGD, PGD, AutoAttack, Clean, Square, Threat
from modules.attacks.torch_attack import TorchAttack

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


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.3), ("l1", 4.0)])
def test_every_attack_of_autoattack_breaks_what_it_breaks_directly(norm: str, eps: float) -> None:
    network = make_network(10)
    images, labels = make_chunk(network, size=8)
    attacks = ["apgd-ce", "apgd-t", "fab-t"]
    outcome = AutoAttack(eps, norm, "custom", attacks).outcome(network, images, labels, 5)  # type: ignore[arg-type]
    standing = (network(images).argmax(1) == labels).tolist()
    wanted = ["" if stands else "clean" for stands in standing]
    for number in range(1, 4):  # each prefix of the attacks tells what the last of it broke
        direct = pyautoattack.AutoAttack(
            network, eps=eps, norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm], seed=5
        )
        direct.attacks_to_run = attacks[:number]
        adversarial, predictions = direct.run_standard_evaluation(images, labels, batch_size=8)
        for index, fooled in enumerate((predictions != labels).tolist()):
            if fooled and not wanted[index]:
                wanted[index] = attacks[number - 1]
    assert outcome.broken_by == wanted
    assert len(set(wanted)) > 2
    assert torch.equal(outcome.images, adversarial)
    assert torch.equal(outcome.predictions, predictions)


def test_square_is_that_of_autoattack_alone() -> None:
    network = make_network(5)
    images, labels = make_chunk(network, size=3)
    outcome = Square(0.2).outcome(network, images, labels, 5)
    torch.manual_seed(5)
    direct = pyautoattack.AutoAttack(network, eps=0.2, seed=5)
    direct.fab.n_target_classes = direct.apgd_targeted.n_target_classes = 4
    direct.attacks_to_run = ["square"]
    wanted, _ = direct.run_standard_evaluation(images, labels, batch_size=3)
    assert torch.equal(outcome.images, wanted)
    assert outcome.broken_by == ["square", "square", "clean"]
    assert Square(0.2).black_box
    assert not AutoAttack(0.2).black_box


@pytest.mark.parametrize("class_path", ["torchattacks.VMIFGSM", "torchattacks.APGD", "FGSM"])
def test_torchattacks_by_class_path(class_path: str) -> None:
    network = make_network(10)
    images, labels = make_chunk(network)
    threat = TorchAttack(class_path, "linf", EPS)
    adversarial = threat(network, images, labels, 5)
    attack = getattr(torchattacks, class_path.rpartition(".")[2])(network, eps=EPS)
    if hasattr(attack, "seed"):
        attack.seed = 5
    torch.manual_seed(5)
    assert torch.equal(adversarial, attack(images, labels))
    assert threat.settings["attack"] == class_path.rpartition(".")[2]
    assert threat.settings["init_args"]["eps"] == EPS


def test_minimal_perturbations_beyond_the_ball_do_not_count() -> None:
    network = make_network(10)
    images, labels = make_chunk(network)
    found = torchattacks.DeepFool(network)(images, labels)
    distance = (found - images).flatten(1).norm(dim=1)
    eps = float(distance[:3].sort().values[1])
    adversarial = TorchAttack("torchattacks.DeepFool", "l2", eps)(network, images, labels, 5)
    for index in range(4):
        wanted = found if distance[index] <= eps * (1 + 1e-4) else images
        assert torch.equal(adversarial[index], wanted[index])
    assert torch.equal(adversarial, images) is False


def test_unknown_attacks_and_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no attack torchattacks.None"):
        TorchAttack("torchattacks.None", "linf", EPS)
    with pytest.raises(ValueError, match=r"torch.nn.Linear is no subclass"):
        TorchAttack("torch.nn.Linear", "linf", EPS)
    with pytest.raises(ValueError, match=r"takes no stepz; its arguments are eps, alpha"):
        TorchAttack("torchattacks.PGD", "linf", EPS, {"stepz": 3})
    with pytest.raises(ValueError, match=r"eps=1 and eps=0.5: give one"):
        TorchAttack("torchattacks.PGD", "linf", 0.5, {"eps": 1})
    with pytest.raises(ValueError, match="`custom` needs a list"):
        AutoAttack(EPS, version="custom")
    with pytest.raises(ValueError, match="the other versions none"):
        AutoAttack(EPS, attacks=["square"])


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_autoattack_with_few_classes_runs_all_attacks(num_classes: int) -> None:
    network = make_network(num_classes)
    images, _ = make_chunk(network, size=2)
    labels = network(images).argmax(1)
    assert torch.equal(AutoAttack(1e-6)(network, images, labels, seed=5), images)
    adversarial = AutoAttack(0.2)(network, images, labels, seed=5)
    assert (network(adversarial).argmax(1) != labels).all()
    plus = AutoAttack(0.2, version="plus").outcome(network, images, labels, seed=5)
    assert plus.broken_by == ["apgd-ce", "apgd-ce"]


def test_unknown_norm_and_negative_radius_are_refused() -> None:
    with pytest.raises(ValueError, match=r"-1.* is no distance"):
        PGD(-1, 1, 1)
    with pytest.raises(ValueError, match="norm=l7"):
        AutoAttack(1, norm="l7")  # type: ignore[arg-type]
