from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from torch import nn

from datamodules.files.errors import MissingInputError, UserError
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.normalisation import Normalise
from modules.networks.preprocessing import ImageFormat
from modules.part_segmenter import PartSegmenter
from modules.state_dicts.weight_files import read_state
from modules.weights.classifier_folder import fingerprint, load_classifier
from modules.weights.frozen_features import FrozenFeatures, open_features
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.modules.weights.test_classifier_sources import make_run

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_classifier_of_features_gives_the_logits(tmp_path: Path) -> None:
    model = export_tiny_classifier(tmp_path / "run", 5)
    opened = open_features(model)
    features = opened.network(IMAGES)
    assert features.shape == (2, 16)
    state = read_state(model / "export" / "model.safetensors")
    logits = features @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(logits, load_classifier(model)(IMAGES))
    assert opened.images == ImageFormat(16)
    assert opened.fingerprint == fingerprint(model)
    assert not opened.network.training
    assert not features.requires_grad


@pytest.mark.parametrize("given", ["run", "run/checkpoints/best.ckpt"])
def test_of_a_network_of_stage_3_it_is_the_deployed_one(given: str, tmp_path: Path) -> None:
    trained = make_run(tmp_path / "run")
    recogniser = trained.network.deployed()
    assert recogniser is not None
    features = open_features(tmp_path / given).network(IMAGES)
    with torch.no_grad():
        logits = recogniser(IMAGES)
    head = recogniser.network.get_classifier()
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)


@pytest.mark.parametrize("structure", ["downsampled", "judgment"])
def test_of_a_network_that_keeps_its_parts_it_is_the_backbone(
    structure: str, tmp_path: Path
) -> None:
    trained = make_run(tmp_path, structure)  # type: ignore[arg-type]
    opened = open_features(tmp_path)
    network = trained.network
    with torch.no_grad():
        maps = network.segmenter.body.forward_features(network.normalise(IMAGES))
    torch.testing.assert_close(opened.network(IMAGES), maps.mean((2, 3)))
    assert opened.what == "the backbone's, pooled"


@pytest.mark.parametrize(
    ("given", "backbone", "arguments"),
    [
        ("", "resnet10t", None),
        ("checkpoints/best.ckpt", "resnet10t", None),
        ("", "tf_efficientnet_lite0", {"pad_type": ""}),
    ],
)
def test_of_a_segmenter_it_is_the_last_stage(
    given: str, backbone: str, arguments: dict[str, Any] | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    parts = torch.tensor([[1, 1, 0], [1, 0, 1]]).bool()
    settings = MaskDetectorSettings(fpn_channels=8, box_head_dim=8, mask_channels=(8,))
    segmenter = PartSegmenter(parts, backbone, detector=settings, backbone_args=arguments).eval()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(segmenter)
    trainer.save_checkpoint(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    opened = open_features(tmp_path / given)
    pyramid = segmenter.network.backbone
    with torch.no_grad():
        maps = pyramid.body(pyramid.normalisation(IMAGES))[-1]
    torch.testing.assert_close(opened.network(IMAGES), maps.mean((2, 3)))
    assert opened.what == "the segmenter's last stage, pooled"


def test_a_run_without_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(MissingInputError, match="is a run that has no export/"):
        open_features(tmp_path / "run")
    with pytest.raises(MissingInputError, match="model gone does not exist"):
        open_features(Path("gone"))


class Broken(nn.Module):
    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images * torch.inf

    def forward_head(self, features: torch.Tensor, pre_logits: bool) -> torch.Tensor:
        assert pre_logits
        return features


def test_features_must_be_finite() -> None:
    network = FrozenFeatures(Normalise((0.5,) * 3, (0.5,) * 3), Broken())
    with pytest.raises(UserError, match="features that are not finite"):
        network(IMAGES)


def test_a_network_of_one_size_takes_no_other() -> None:
    transformer = timm.create_model("test_vit", num_classes=3)
    network = FrozenFeatures(Normalise((0.5,) * 3, (0.5,) * 3), transformer.eval())
    size = transformer.default_cfg["input_size"][1]
    network.require_size(size)
    with pytest.raises(UserError, match=r"takes no images of 30 pixels .*--image_size"):
        network.require_size(30)
