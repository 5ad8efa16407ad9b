from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from modules.networks.preprocessing import ImageFormat
from modules.networks.structures import NetworkSettings, Structure
from modules.weights.classifier_export import export_timm
from modules.weights.classifier_folder import fingerprint, load_classifier
from modules.weights.part_network_folder import export_part_network
from tests.modules.weights.released_networks import trained

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CHANNELS = {"channels": [8, 8, 16, 16]}
MODEL_ARGS = {"act_layer": "gelu", **CHANNELS}


def make_network() -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=5, act_layer="gelu", **CHANNELS)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
    return network.eval()


def export(network: nn.Module, folder: Path) -> None:
    export_timm(
        network,
        folder,
        architecture="resnet10t",
        model_args=MODEL_ARGS,
        num_classes=5,
        mean=MEAN,
        std=STD,
        images=ImageFormat(32),
    )


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (MEAN, STD))
    return (images - mean) / std


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_export_gives_equal_logits_in_timm_and_here(tmp_path: Path, images: torch.Tensor) -> None:
    network = make_network()
    export(network.to(memory_format=torch.channels_last), tmp_path / "run" / "export")
    network = network.to(memory_format=torch.contiguous_format)
    wanted = network(normalised(images))
    in_timm = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True).eval()
    assert torch.equal(in_timm(normalised(images)), wanted)
    assert in_timm.pretrained_cfg["input_size"] == (3, 32, 32)
    for place in (tmp_path / "run", tmp_path / "run" / "export"):
        classifier = load_classifier(place)
        assert not classifier.training
        assert classifier.num_classes == 5
        torch.testing.assert_close(classifier(images), wanted)


@torch.no_grad()
def test_checkpoint_of_a_run_gives_equal_logits(tmp_path: Path, images: torch.Tensor) -> None:
    network = make_network()
    export(make_network(), tmp_path / "export")
    nn.init.normal_(network.get_parameter("fc.weight"))
    state = {
        f"network.recogniser.network.{name}": value for name, value in network.state_dict().items()
    }
    state["network.bypass.head.weight"] = torch.zeros(3)
    path = tmp_path / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    torch.save({"state_dict": state, "hyper_parameters": {"weights": tmp_path}}, path)
    wanted = network(normalised(images))
    torch.testing.assert_close(load_classifier(path)(images), wanted)
    assert fingerprint(path) != fingerprint(tmp_path)


def test_leftover_and_missing_keys_are_listed(tmp_path: Path) -> None:
    export(make_network(), tmp_path / "export")
    state = {f"net.{name}": value for name, value in make_network().state_dict().items()}
    state["net.surplus.bias"] = torch.zeros(1)
    del state["net.fc.bias"]
    state["net.fc.weight"] = torch.zeros(7, 16)
    path = tmp_path / "export" / "other.pt"
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"missing: fc.bias; leftover: surplus.bias; wrong shape"):
        load_classifier(path)


def test_export_refuses_another_network_and_keeps_the_old_folder(tmp_path: Path) -> None:
    export(make_network(), tmp_path / "export")
    before = fingerprint(tmp_path)
    other = timm.create_model("resnet10t", num_classes=6, **CHANNELS)
    with pytest.raises(ValueError, match=r"wrong shape: fc\.weight"):
        export(other, tmp_path / "export")
    assert fingerprint(tmp_path) == before


def test_missing_model_names_path_and_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist.*make stage3-mpm"):
        load_classifier(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config.json.*make stage3-mpm"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "other.pt"])
def test_damaged_weights_are_one_clear_line(tmp_path: Path, name: str) -> None:
    export(make_network(), tmp_path / "export")
    path = tmp_path / "export" / name
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=f"{name} holds no readable weights"):
        load_classifier(path)


@pytest.mark.parametrize("structure", ["downsampled", "bounding_box", "judgment"])
@torch.no_grad()
def test_networks_with_parts_are_rebuilt_from_their_folder(
    structure: Structure, tmp_path: Path, images: torch.Tensor
) -> None:
    regions = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    settings = NetworkSettings(structure, "resnet10t", MODEL_ARGS, image_size=32)
    network = trained(settings.build(regions))
    network.normalise.mean.fill_(0.4)
    export_part_network(network, tmp_path / "run" / "export", settings, regions, ImageFormat(32))
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state}, checkpoint)
    for place in (tmp_path / "run", tmp_path / "run" / "export", checkpoint):
        classifier = load_classifier(place)
        assert not classifier.training
        assert classifier.num_classes == 5
        torch.testing.assert_close(classifier(images), network(images))
    torch.save({**state, "network.extra": torch.zeros(1)}, checkpoint)
    with pytest.raises(ValueError, match="leftover: extra"):
        load_classifier(checkpoint)
    path = tmp_path / "run" / "export" / "part_network.json"
    before = fingerprint(tmp_path / "run")
    path.write_text(path.read_text().replace("0.4", "0.3"))
    assert fingerprint(tmp_path / "run") != before
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"part_network.json describes no part network"):
        load_classifier(tmp_path / "run")
