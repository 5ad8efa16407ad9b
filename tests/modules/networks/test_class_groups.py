from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from modules.attacks.adaptive import PartPGD
from modules.attacks.gradient_paths import gradient_path
from modules.attacks.threats import APGD, PGD, AutoAttack, Clean, Threat
from modules.generalisation_evaluator import score_groups
from modules.mpm import MPM
from modules.networks.class_groups import ClassGroups, largest_logits
from modules.networks.judgment_block import JudgmentNetwork
from modules.networks.structures import NetworkSettings
from modules.robustness_evaluator import RobustnessEvaluator

GROUPS = torch.tensor([2, -1, 0, 2, 1, -1, 0])


class Linear(nn.Module):
    def __init__(self, num_classes: int = len(GROUPS)) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 8 * 8, num_classes, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight


def images(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, 3, 8, 8), dtype=torch.uint8, generator=generator)


def judge() -> JudgmentNetwork:
    torch.manual_seed(0)
    object_parts = torch.ones(len(GROUPS), 3, dtype=torch.bool).tril(1)
    return JudgmentNetwork("resnet10t", object_parts, {"channels": [8, 8, 16, 16]}).eval()


def attack(model: nn.Module | Path, threat: Threat, groups: Tensor | None, labels: Tensor) -> dict:
    evaluator = RobustnessEvaluator(model, {"it": threat}, groups=groups)
    evaluator._show = lambda name, robust: None  # type: ignore[method-assign]
    batch = {"image": images(len(labels)), "label": labels, "threat": "it", "attack_seed": 3}
    return evaluator.test_step(batch, 0)


def test_values_and_gradients_are_those_of_the_best_class_of_each_group() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, len(GROUPS), requires_grad=True)
    weights = torch.randn(5, 3)
    found = largest_logits(logits, GROUPS)
    assert torch.equal(found, score_groups(logits, GROUPS, "mask")[0])
    gradient = torch.zeros_like(logits)
    for row in range(5):
        for group in range(3):
            members = [c for c in range(len(GROUPS)) if GROUPS[c] == group]
            best = max(members, key=lambda c: logits[row, c].item())
            assert found[row, group] == logits[row, best]
            gradient[row, best] += weights[row, group]
    (found * weights).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, gradient)


@pytest.mark.parametrize(
    "threat",
    [Clean(), PGD(0.1, 5, 0.03), APGD(0.05, steps=5), AutoAttack(0.05)],
    ids=lambda threat: type(threat).__name__,
)
def test_attacks_act_on_the_groups(threat: Threat) -> None:
    network, pixels = Linear(), images(8) / 255
    labels = largest_logits(network(pixels), GROUPS).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    outcome = attack(network, threat, GROUPS, labels)
    predictions = largest_logits(network(outcome["adversarial"]), GROUPS).argmax(1)
    assert torch.equal(outcome["adversarial_prediction"], predictions)
    robust = predictions == labels
    robust[0] = False
    assert torch.equal(outcome["robust"], robust)
    assert int(robust.sum()) == 7 if threat.norm is None else int(robust.sum()) < 7


def test_one_group_for_each_class_changes_nothing() -> None:
    network = Linear()
    labels = network(images(4) / 255).argmax(1)
    for threat in (PGD(0.02, 5, 0.01), AutoAttack(0.01, version="custom", attacks=["apgd-ce"])):
        plain = attack(network, threat, None, labels)
        grouped = attack(network, threat, torch.arange(len(GROUPS)), labels)
        assert plain.keys() == grouped.keys()
        for name, value in plain.items():
            same = (
                value.equal(grouped[name]) if isinstance(value, Tensor) else value == grouped[name]
            )
            assert same, name


def test_parts_and_gradient_paths_reach_through_the_groups() -> None:
    network = judge()
    grouped = ClassGroups(network, GROUPS)
    pixels = torch.rand(2, 3, 32, 32, requires_grad=True)
    logits, levels = grouped.forward_with_parts(pixels)
    wanted, parts = network.forward_with_parts(pixels)
    assert torch.equal(logits, largest_logits(wanted, GROUPS))
    assert torch.equal(levels[0].logits(), parts[0].logits())
    for path in ("surrogate", "straight_through"):
        with gradient_path(grouped, path) as attacked:  # type: ignore[arg-type]
            found = attacked(pixels)
        assert torch.equal(found, grouped(pixels))
        (gradient,) = torch.autograd.grad(found[:, 0].sum(), pixels)
        assert gradient.any()


def test_the_part_branch_is_attacked_within_the_groups() -> None:
    outcome = attack(judge(), PartPGD(0.1, 2, 0.05), GROUPS, torch.zeros(3, dtype=torch.int64))
    assert set(outcome["adversarial_prediction"].tolist()) <= {0, 1, 2}
    assert (outcome["linf"] > 0).all()


def test_the_bypass_of_a_run_is_attacked_within_the_groups(tmp_path: Path) -> None:
    torch.manual_seed(0)
    object_parts = torch.ones(len(GROUPS), 3, dtype=torch.bool)
    mpm = MPM(
        object_parts,
        NetworkSettings(architecture="resnet10t", model_args={"channels": [8, 8, 16, 16]}),
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(mpm)
    trainer.save_checkpoint(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    mpm.export(tmp_path / "export")
    labels = torch.zeros(3, dtype=torch.int64)
    outcome = attack(tmp_path, PartPGD(0.1, 2, 0.05), GROUPS, labels)
    adversarial = mpm.eval().network(outcome["adversarial"])
    wanted = largest_logits(adversarial, GROUPS).argmax(1)
    assert torch.equal(outcome["adversarial_prediction"], wanted)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has 4 classes, the data has 7"):
        ClassGroups(Linear(4), GROUPS)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="Linear has no `surrogate`"):
        ClassGroups(Linear(), GROUPS).surrogate(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="no part branch that is known"):
        RobustnessEvaluator(Linear(), {"parts": PartPGD(0.1, 2, 0.05)}, groups=GROUPS)
