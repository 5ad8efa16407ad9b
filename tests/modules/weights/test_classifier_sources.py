from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from modules.attacks.adaptive import PartPGD
from modules.attacks.threats import PGD
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings, Structure
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights.classifier_folder import load_classifier
from modules.weights.classifier_sources import open_classifier, with_parts

OBJECT_PARTS = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]]).bool()
MODEL_ARGS = {"channels": [8, 8, 16, 16]}
NETWORK = NetworkSettings("bypass", "resnet10t", MODEL_ARGS)


def make_run(folder: Path, structure: Structure = "bypass", **settings: Any) -> MPM:
    torch.manual_seed(0)
    mpm = MPM(OBJECT_PARTS, replace(NETWORK, structure=structure), **settings)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(mpm)
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    mpm.export(folder / "export")
    return mpm.eval()


def test_network_by_class_path(tmp_path: Path) -> None:
    source = nn.Linear(5, 3)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    given = {
        "class_path": "torch.nn.Linear",
        "init_args": {"in_features": 5, "out_features": 3},
        "weights": tmp_path / "net.pth",
    }
    network, mark, name = open_classifier(given)
    x = torch.rand(2, 5)
    assert torch.equal(network(x), source(x))
    assert not network.training
    assert name == "torch.nn.Linear"
    normalised, other, _ = open_classifier(given | {"mean": [0.5], "std": [0.25]})
    torch.testing.assert_close(normalised(x[None]), source((x[None] - 0.5) / 0.25))
    assert other != mark
    assert open_classifier(given)[1] == mark
    module, _, name = open_classifier(source.train())
    assert module is source
    assert not source.training
    assert name == "Linear"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_path": "torch.nn.Nothing"}, r"no network can be made of torch.nn.Nothing"),
        ({"class_path": "torch.rand", "init_args": {"size": [1]}}, "makes a Tensor, not"),
        ({"init_args": {"wide": 3}}, "no network can be made of torch.nn.Linear"),
        ({"mean": [0.5]}, "give both mean and std"),
        ({"weight": "x.pth"}, "a model by its class has class_path"),
    ],
)
def test_wrong_descriptions_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_classifier({"class_path": "torch.nn.Linear"} | changes)


def test_weights_must_fit(tmp_path: Path) -> None:
    torch.save(nn.Linear(5, 4).state_dict(), tmp_path / "net.pth")
    options = {"in_features": 5, "out_features": 3}
    source = {"class_path": "torch.nn.Linear", "init_args": options}
    with pytest.raises(ValueError, match="does not fit Linear; wrong shape"):
        open_classifier(source | {"weights": tmp_path / "net.pth"})
    with pytest.raises(FileNotFoundError, match=r"none.pth"):
        open_classifier(source | {"weights": tmp_path / "none.pth"})


@pytest.mark.parametrize("structure", ["bypass", "downsampled", "judgment"])
def test_parts_of_a_run(tmp_path: Path, structure: str) -> None:
    mpm = make_run(tmp_path, structure=structure)
    classifier = load_classifier(tmp_path)
    network = with_parts(tmp_path, classifier)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted, found = mpm.network.forward_with_parts(images), network.forward_with_parts(images)
        torch.testing.assert_close(network(images), classifier(images))
    torch.testing.assert_close(found[0], wanted[0])
    for level, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(level.logits(), other.logits())
    evaluator = RobustnessEvaluator(tmp_path, {})
    assert type(evaluator.part_network()) is type(network)
    blind = {"pgd": PGD(0.1, 1, 0.1, through="forward"), "parts": PartPGD(0.1, 1, 0.1)}
    if structure == "judgment":
        with pytest.raises(ValueError, match=r"passes no gradient: set through: .* for pgd, or"):
            RobustnessEvaluator(tmp_path, blind)


def test_models_without_parts_say_why(tmp_path: Path) -> None:
    make_run(tmp_path / "vanilla", part_loss_weight=0.0)
    make_run(tmp_path / "mpm")
    for source, message in (
        (tmp_path / "vanilla", "trained without part supervision"),
        (tmp_path / "mpm" / "export", "keeps no bypass"),
        ({"class_path": "torch.nn.Identity"}, "no part branch"),
    ):
        with pytest.raises(ValueError, match=message):
            with_parts(source, open_classifier(source)[0])
    torch.manual_seed(9)
    other = MPM(OBJECT_PARTS, NETWORK)
    nn.init.ones_(other.network.backbone().conv1[0].weight)
    other.export(tmp_path / "mpm" / "export")
    with pytest.raises(ValueError, match="holds other weights than the export"):
        with_parts(tmp_path / "mpm", load_classifier(tmp_path / "mpm"))
