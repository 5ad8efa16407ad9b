from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from modules.generalisation_evaluator import GeneralisationEvaluator, score_groups
from tests.modules.tiny_classifier import export_tiny_classifier

GROUPS = [2, -1, 0, 0, 1, -1, 2, 2]


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max())
    return raised / raised.sum()


def test_groups_are_scored_as_defined() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 8))
    members = [[i for i, group in enumerate(GROUPS) if group == g] for g in range(3)]
    kept = [i for i, group in enumerate(GROUPS) if group >= 0]
    given = torch.tensor(logits), torch.tensor(GROUPS)
    scores, shares = score_groups(*given, "mask")
    means, rescaled = score_groups(*given, "mean")
    for row in range(len(logits)):
        largest = [max(logits[row, group]) for group in members]
        np.testing.assert_allclose(scores[row], largest)
        masked = np.full(8, -np.inf)
        masked[kept] = logits[row, kept]
        assert GROUPS[int(masked.argmax())] == int(scores[row].argmax())
        np.testing.assert_allclose(shares[row], [softmax(masked)[g].sum() for g in members])
        wanted = [softmax(logits[row])[group].mean() for group in members]
        np.testing.assert_allclose(means[row], wanted)
        np.testing.assert_allclose(rescaled[row], wanted / np.sum(wanted))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_classifier(tmp_path_factory.mktemp("model"), num_classes=8)


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_predictions_are_those_of_the_network(model: Path, groups: list[int] | None) -> None:
    evaluator = GeneralisationEvaluator(model).eval()
    evaluator._show = lambda accuracy, size: None  # type: ignore[method-assign]
    image = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    network = timm.create_model(f"local-dir:{model / 'export'}", pretrained=True).eval()
    with torch.no_grad():
        logits = network((image.float() / 255 - 0.5) / 0.25).numpy()
    wanted = logits.argmax(1)
    if groups is not None:
        kept = np.where(np.array(groups) >= 0, logits, -np.inf)
        wanted = np.array(groups)[kept.argmax(1)]
    label = torch.tensor(wanted) * torch.tensor([1, 1, 1, 0, 0, 0])
    batch = {
        "image": image,
        "label": label,
        "set": "some",
        "groups": None if groups is None else torch.tensor(groups),
        "aggregate": "mask",
    }
    with torch.no_grad():
        outcome = evaluator.test_step(batch, 0)
    np.testing.assert_array_equal(outcome["prediction"], wanted)
    np.testing.assert_array_equal(outcome["correct"], wanted == label.numpy())
    assert ((outcome["confidence"] > 1 / 8) & (outcome["confidence"] <= 1)).all()


def test_a_model_of_other_classes_is_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="has 8 classes, the data has 3 object categories"):
        GeneralisationEvaluator(model, torch.ones(3, 5, dtype=torch.bool))
