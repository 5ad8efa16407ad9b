import numpy as np
import pytest
import torch

from modules.networks.judgment_block import JudgmentBlock, JudgmentNetwork
from modules.networks.two_stage import TwoStage, soft_boxes

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8, "act_layer": "gelu"}
OBJECT_PARTS = torch.tensor(
    [[1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]], dtype=torch.bool
)


def test_the_papers_two_stage_network_has_its_number_of_parameters() -> None:
    network = TwoStage("resnet50", 1000, 3309, "downsampled", model_args={"act_layer": "gelu"})
    assert sum(p.numel() for p in network.parameters()) == 60_519_976


def test_soft_boxes_are_moments_of_the_maps() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 6, 8))
    got = soft_boxes(torch.from_numpy(maps)).numpy()
    x, y = np.meshgrid((np.arange(8) + 0.5) / 4 - 1, (np.arange(6) + 0.5) / 3 - 1)
    for image in range(2):
        for part in range(3):
            weight = maps[image, part] / maps[image, part].sum()
            mean = [(weight * x).sum(), (weight * y).sum()]
            spread = [
                np.sqrt((weight * (c - m) ** 2).sum()) for c, m in zip((x, y), mean, strict=True)
            ]
            expected = [maps[image, part].mean(), *mean, *spread]
            np.testing.assert_allclose(got[image, part], expected, atol=1e-5)


def test_a_box_follows_its_part() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 6:, :2] = 1  # bottom left
    score, x, y, *_ = soft_boxes(maps)[0, 0].tolist()
    assert score == pytest.approx(4 / 64)
    assert (x, y) == pytest.approx((-0.75, 0.75))


@pytest.mark.parametrize("classifier", ["downsampled", "bounding_box"])
def test_the_classifier_sees_nothing_but_the_part_maps(classifier: str) -> None:
    torch.manual_seed(0)
    network = TwoStage("resnet18", 3, 6, classifier, model_args=TINY).eval()
    images = torch.rand(2, 3, 64, 64)
    logits, (level,) = network.forward_with_parts(images)
    assert level.logits().shape == (2, 6, 2, 2)
    torch.testing.assert_close(network.classifier(level.logits().softmax(1)), logits)
    torch.testing.assert_close(network(images), logits)


def test_deeplab_has_part_maps_at_stride_four() -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="an optional package")
    network = TwoStage("resnet18", 3, 6, "downsampled", "deeplabv3plus").eval()
    logits, (level,) = network.forward_with_parts(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 3)
    assert level.logits().shape == (1, 6, 16, 16)


def test_judgment_counts_the_pixels_and_the_parts_of_an_object() -> None:
    votes = torch.zeros(1, 6, 2, 4)
    # six pixels of parts 1, 1, 1, 3, 4, 4; two of background
    for place, part in enumerate([1, 1, 1, 3, 4, 4, 0, 0]):
        votes[0, part, place // 4, place % 4] = 1
    scores = JudgmentBlock(OBJECT_PARTS)(votes)
    # half of the foreground, one of two parts; half, both parts; none
    torch.testing.assert_close(scores, torch.tensor([[0.25, 0.5, 0.0]]))


def test_judgment_has_no_gradient_but_its_straight_through_form_has() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 6, 4, 4).softmax(1).requires_grad_()
    hard, soft = JudgmentBlock(OBJECT_PARTS), JudgmentBlock(OBJECT_PARTS, straight_through=True)
    assert not hard(maps).requires_grad
    torch.testing.assert_close(hard(maps), soft(maps))
    (gradient,) = torch.autograd.grad(soft(maps)[:, 0].sum(), maps)
    assert gradient.abs().sum() > 0


def test_judgment_network_is_attacked_through_its_evidence() -> None:
    torch.manual_seed(0)
    network = JudgmentNetwork("resnet18", OBJECT_PARTS, TINY).eval()
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network.surrogate(images)[:, 0].sum(), images)
    assert gradient.abs().sum() > 0
    assert not network(images).requires_grad
