from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from modules.attacks.threats import PGD, Clean
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights.classifier_folder import load_classifier
from tests.modules.tiny_classifier import export_tiny_classifier


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_classifier(tmp_path_factory.mktemp("run"), num_classes=4)


class Collect(Callback):
    def __init__(self) -> None:
        self.outcomes: list[dict[str, torch.Tensor]] = []

    def on_test_batch_end(self, trainer, module, outputs, *rest) -> None:  # noqa: ANN001, ANN002
        self.outcomes.append(outputs)


def test_outcomes_are_those_of_the_network(run: Path) -> None:
    classifier = load_classifier(run)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    threats = {"clean": Clean(), "pgd": PGD(0.05, 5, 0.02)}
    evaluator = RobustnessEvaluator(run, threats)
    with torch.no_grad():
        clean = classifier(images / 255).argmax(1)
    labels = clean.clone()
    labels[0] = (labels[0] + 1) % 4
    batches = [
        {"image": images, "label": labels, "threat": name, "attack_seed": 3} for name in threats
    ]
    collect = Collect()
    trainer = Trainer(
        inference_mode=False,
        accelerator="cpu",
        logger=False,
        callbacks=[collect],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.test(evaluator, torch.utils.data.DataLoader(batches, batch_size=None), verbose=False)
    plain, attacked = collect.outcomes
    assert torch.equal(plain["clean_prediction"], clean)
    assert plain["robust"].tolist() == [False] + 5 * [True]
    assert plain["linf"].max() == 0
    wanted = threats["pgd"](classifier, images / 255, labels, 3)
    torch.testing.assert_close(attacked["adversarial"], wanted, atol=0.02, rtol=0)
    predictions = classifier(attacked["adversarial"]).argmax(1)
    assert torch.equal(attacked["adversarial_prediction"], predictions)
    assert torch.equal(attacked["robust"], (clean == labels) & (predictions == labels))
    difference = (attacked["adversarial"] - images / 255).flatten(1)
    torch.testing.assert_close(attacked["linf"], difference.abs().max(1).values)
    torch.testing.assert_close(attacked["l2"], difference.square().sum(1).sqrt())


def test_number_of_classes_must_be_that_of_the_data(run: Path) -> None:
    with pytest.raises(ValueError, match=r"has 4 classes, the data has 7"):
        RobustnessEvaluator(run, {"clean": Clean()}, torch.ones(7, 9, dtype=torch.bool))
    RobustnessEvaluator(run, {"clean": Clean()}, torch.ones(4, 9, dtype=torch.bool))
