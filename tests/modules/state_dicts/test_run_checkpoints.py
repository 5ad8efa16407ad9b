"""A run without a best checkpoint: one line that says what to do, whoever asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modules.networks.part_network import PartNetwork
from modules.networks.structures import NetworkSettings
from modules.pseudo_label_writer import find_checkpoint
from modules.state_dicts.run_checkpoints import best_checkpoint
from modules.weights.classifier_folder import load_classifier
from modules.weights.classifier_sources import open_classifier, with_parts
from modules.weights.detector_sources import checkpoint_of
from modules.weights.initial_weights import load_initial_weights
from tests.modules.tiny_classifier import MODEL_ARGS, export_tiny_classifier

ASKING: dict[str, Callable[[Path], object]] = {
    "stage 2": find_checkpoint,
    "stage 3, initial weights": lambda run: load_initial_weights(network(), run),
    "detector": checkpoint_of,
}


def network() -> PartNetwork:
    return NetworkSettings("bypass", "resnet10t", MODEL_ARGS).build(torch.ones(3, 4).bool())


@pytest.mark.parametrize("who", ASKING)
def test_whoever_asks_is_told_about_the_last_checkpoint(who: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"best\.ckpt does not exist: run make [\w-]+ first"
    ):
        ASKING[who](run)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    with pytest.raises(
        FileNotFoundError, match=r"no validation.*or give .*run/checkpoints/last\.ckpt itself$"
    ):
        ASKING[who](run)


def test_the_best_checkpoint_is_found(tmp_path: Path) -> None:
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.write_bytes(b"weights")
    assert best_checkpoint(tmp_path, "make x") == find_checkpoint(tmp_path) == best


def test_a_run_that_is_under_way_has_no_model_yet(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for ask in (load_classifier, open_classifier):
        with pytest.raises(
            FileNotFoundError, match=r"is a run that has no export/.*make stage3-mpm"
        ):
            ask(tmp_path)


def test_parts_are_not_sought_in_a_run_without_its_best_checkpoint(tmp_path: Path) -> None:
    run = export_tiny_classifier(tmp_path / "run", num_classes=3)
    (run / "checkpoints").mkdir(exist_ok=True)
    classifier, _, _ = open_classifier(run)
    (run / "checkpoints" / "best.ckpt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt does not exist: run make stage3-mpm"):
        with_parts(run, classifier)
