"""Weights are normalised as they were trained, and it is said where that was read."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from modules.mpm import MPM
from modules.networks.preprocessing import ImageFormat, other_tags, preprocessing_of
from modules.networks.structures import NetworkSettings
from modules.weights.classifier_folder import image_format, load_classifier
from modules.weights.classifier_sources import with_parts
from modules.weights.detector_sources import open_backbone
from modules.weights.initial_weights import load_initial_weights
from modules.weights.part_network_folder import find_normalisation
from pipeline.export.import_checkpoint import ForeignModel, import_model

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALF = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
NONE = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
# small networks of timm, their normalisation, and the side of their images
NETWORKS = {
    "test_resnet": (HALF, 160),
    "test_mambaout": (IMAGENET, 160),
    "tf_efficientnet_lite0": (HALF, 224),
    "mobilevit_xxs": (NONE, 256),
    "resnet10t": (IMAGENET, 176),
}
OBJECT_PARTS = torch.tensor([[1, 1, 0], [1, 0, 1]], dtype=torch.bool)


def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def trained(architecture: str, num_classes: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(architecture, num_classes=num_classes).eval()


def mpm(settings: NetworkSettings, **kwargs: Any) -> MPM:
    torch.manual_seed(2)
    return MPM(OBJECT_PARTS, settings, **kwargs)


@pytest.mark.parametrize("architecture", NETWORKS)
@torch.no_grad()
def test_import_takes_the_normalisation_of_that_very_network(
    architecture: str, tmp_path: Path
) -> None:
    network, (values, size) = trained(architecture), NETWORKS[architecture]
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    folder = tmp_path / "imported"
    notes = import_model(
        tmp_path / "weights.pth", folder, ForeignModel(architecture, num_classes=4)
    )
    data = resolve_model_data_config(network)
    assert (list(data["mean"]), list(data["std"])) == values
    classifier = load_classifier(folder)
    wanted = network(normalize(images(), *values))
    torch.testing.assert_close(classifier(images()), wanted)
    written = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (written["mean"], written["std"]) == values
    for name in ("crop_pct", "interpolation"):
        assert written[name] == data[name]
    assert written["input_size"] == written["test_input_size"] == [3, size, size]
    assert image_format(classifier) == ImageFormat(size, data["crop_pct"], data["interpolation"])
    said = f"images are normalised by mean {values[0]} and std {values[1]}: timm's configuration of"
    assert any(note.startswith(f"{said} {architecture}") for note in notes)
    # timm itself preprocesses for this folder as for the network it came from
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    timms = resolve_model_data_config(again)
    for name, value in data.items():
        assert timms[name] == (list(value) if name in ("mean", "std") else value), name


def test_a_tag_may_be_normalised_otherwise() -> None:
    plain, tagged = "tf_efficientnet_b0", "tf_efficientnet_b0.in1k"
    assert preprocessing_of(timm.create_model(plain)).mean == tuple(IMAGENET[0])
    clause = other_tags("vit_tiny_patch16_224", *HALF)
    assert clause == ""
    clause = other_tags(plain, *HALF)
    assert tagged in clause
    assert "name the architecture with its tag" in clause
    assert other_tags(tagged, *HALF) == ""


def test_what_is_given_wins(tmp_path: Path) -> None:
    torch.save(trained("test_resnet").state_dict(), tmp_path / "weights.pth")
    given = ForeignModel(
        "test_resnet", num_classes=4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), image_size=96
    )
    import_model(tmp_path / "weights.pth", tmp_path / "folder", given)
    classifier = load_classifier(tmp_path / "folder")
    assert classifier.normalise.values == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert image_format(classifier) == ImageFormat(96, 0.95, "bilinear")
    # also over a folder's, in stage 3
    settings = NetworkSettings(architecture="test_resnet", mean=(0.3,) * 3, std=(0.2,) * 3)
    network = mpm(settings, weights=tmp_path / "folder", train_only_new=True).network
    assert find_normalisation(network).values == ([0.3] * 3, [0.2] * 3)
    with pytest.raises(ValueError, match="mean and std of the normalisation go together"):
        mpm(NetworkSettings(architecture="test_resnet", mean=(0.5,) * 3))


@pytest.mark.parametrize("structure", ["bypass", "downsampled", "bounding_box", "judgment"])
def test_stage_3_fresh_and_from_weights(
    structure: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = NetworkSettings(structure, "test_resnet")
    fresh = mpm(settings)
    assert find_normalisation(fresh.network).values == HALF
    assert "timm's configuration of test_resnet.r160_in1k" in caplog.text
    # a run goes on as it began, and others that start from it take its normalisation
    own = NetworkSettings(structure, "test_resnet", mean=(0.3,) * 3, std=(0.2,) * 3)
    first, checkpoint = mpm(own), tmp_path / "first.ckpt"
    content: dict[str, Any] = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(content)
    torch.save(content, checkpoint)
    second = mpm(settings, weights=checkpoint)
    assert find_normalisation(second.network).values == ([0.3] * 3, [0.2] * 3)
    first.on_load_checkpoint(content)
    with pytest.raises(ValueError, match=r"0\.3.*but this run's by.*0\.5.*--model.init_args.weigh"):
        fresh.on_load_checkpoint(content)


def test_older_checkpoints_were_normalised_as_imagenet(tmp_path: Path) -> None:
    old = mpm(NetworkSettings(architecture="test_resnet"))
    torch.save({"state_dict": old.state_dict()}, tmp_path / "old.ckpt")
    new = mpm(NetworkSettings(architecture="test_resnet"), weights=tmp_path / "old.ckpt")
    assert find_normalisation(new.network).values == IMAGENET
    new.on_load_checkpoint({})
    with pytest.raises(ValueError, match="begin another run folder"):
        old.on_load_checkpoint({})
    torch.save({"state_dict": old.state_dict(), "normalisation": [1]}, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"old\.ckpt: the entry normalisation is damaged"):
        load_initial_weights(new.network, tmp_path / "old.ckpt")


@torch.no_grad()
def test_export_of_stage_3_says_how_it_was_validated(tmp_path: Path) -> None:
    module = mpm(NetworkSettings(architecture="test_resnet", image_size=64)).eval()
    module.export(tmp_path / "run" / "export", crop_pct=64 / 72)
    classifier = load_classifier(tmp_path / "run")
    torch.testing.assert_close(classifier(images()), module(images()))
    assert image_format(classifier) == ImageFormat(64, 64 / 72, "bicubic")
    assert str(image_format(classifier)) == "64 of 72 pixels, bicubic"
    written = json.loads((tmp_path / "run" / "export" / "config.json").read_text())
    assert "tag" not in written["pretrained_cfg"], "the weights are not those of timm's tag"
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    settings = {"network": {"architecture": "test_resnet"}}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": settings}, checkpoint)
    branch = with_parts(tmp_path / "run", classifier)
    torch.testing.assert_close(branch(images()), module(images()))


def test_folders_without_mean_and_std(tmp_path: Path) -> None:
    module = mpm(NetworkSettings(architecture="test_resnet"))
    module.export(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("mean", "std", "crop_pct"):
        del config["pretrained_cfg"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    classifier = load_classifier(tmp_path)
    assert classifier.normalise.values == HALF
    assert classifier.normalise.source == (
        f"timm's configuration of test_resnet.r160_in1k, as {tmp_path} says none"
    )


def test_downstream_detector_starts_from_timms_normalisation() -> None:
    _, described = open_backbone(None, None, {"architecture": "test_resnet", "model_args": {}})
    assert (described["mean"], described["std"]) == HALF
