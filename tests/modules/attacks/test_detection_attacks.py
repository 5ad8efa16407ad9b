import pytest
import torch

from modules.attacks.detection_attacks import LOSSES, DetectionPGD, giving_losses
from tests.modules.tiny_detector import tiny_batch, tiny_detector

EPS = 4 / 255


@pytest.mark.parametrize("proposals", [False, True])
@pytest.mark.parametrize("losses", ["classification", "regression"])
def test_attack_raises_its_loss_inside_the_ball(losses: str, proposals: bool) -> None:
    detector = tiny_detector().network.eval()
    # a trained detector is confident: sharper outputs than those of random weights
    with torch.no_grad():
        for parameter in detector.roi_heads.box_predictor.parameters():
            parameter.mul_(10)
    batch = tiny_batch()
    attack = DetectionPGD(losses, EPS, 4, 1.5 / 255, proposals, random_start=True)  # type: ignore[arg-type]

    def loss(images: list[torch.Tensor]) -> float:
        torch.manual_seed(3)  # of the sampled anchors and proposals
        with torch.no_grad(), giving_losses(detector):
            values = detector(images, batch["target"])
        return sum(float(values[name]) for name in LOSSES[losses][: 1 + proposals])

    state = {name: value.clone() for name, value in detector.state_dict().items()}
    attacked = attack(detector, batch["image"], batch["target"])
    assert loss(attacked) > loss(batch["image"])
    for image, moved in zip(batch["image"], attacked, strict=True):
        assert moved.shape == image.shape
        assert not moved.requires_grad
        assert (moved - image).abs().max() <= EPS + 1e-6
        assert moved.min() >= 0
        assert moved.max() <= 1
    assert (attacked[0] - batch["image"][0]).abs().max() > 1 / 255
    # a measurement leaves no trace on the detector
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert not any(module.training for module in detector.modules())


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="none of"):
        DetectionPGD("mask")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps=0"):
        DetectionPGD("regression", steps=0)
