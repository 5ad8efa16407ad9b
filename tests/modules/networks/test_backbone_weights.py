from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from datamodules.files.errors import UserError
from modules.networks.timm_fpn import TimmFPN


def saved(path: Path, backbone: str = "resnet18", prefix: str = "", **options: Any) -> dict:
    torch.manual_seed(3)
    state = timm.create_model(backbone, **options).state_dict()
    torch.save({"state_dict": {prefix + n: v for n, v in state.items()}}, path)
    return state


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod.", "ema_model.module."])
@pytest.mark.parametrize("classes", [0, 7, 1000])
def test_a_backbone_starts_from_a_file(prefix: str, classes: int, tmp_path: Path) -> None:
    state = saved(tmp_path / "net.pt", prefix=prefix, num_classes=classes)
    body = TimmFPN("resnet18", 32, weights=tmp_path / "net.pt").body.state_dict()
    assert all(value.equal(state[name]) for name, value in body.items())


def test_names_of_released_codes_are_translated(tmp_path: Path) -> None:
    """Swin's own code counts the down-sampling to the stage before it."""
    state = saved(tmp_path / "net.pt", "swin_tiny_patch4_window7_224")
    old = {}
    for name, value in state.items():
        words = name.replace("head.fc.", "head.").split(".")
        if words[2:3] == ["downsample"]:
            words[1] = str(int(words[1]) - 1)
        old[".".join(words)] = value
    torch.save({"model": old}, tmp_path / "net.pt")
    body = TimmFPN("swin_tiny_patch4_window7_224", 32, weights=tmp_path / "net.pt").body
    for name, value in body.state_dict().items():
        whole = name.replace("layers_", "layers.")
        assert value.equal(state[whole]), name


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """timm would leave the backbone random without a word."""
    path = tmp_path / "net.pt"
    torch.save({f"encoder.block{i}.kernel": torch.zeros(2) for i in range(5)}, path)
    foreign = r"net\.pt names its tensors otherwise than resnet18: the file has encoder.block0"
    with pytest.raises(UserError, match=foreign):
        TimmFPN("resnet18", 32, weights=path)
    saved(path, "resnet34")
    with pytest.raises(UserError, match=r"net\.pt does not fit ResNet; leftover: layer1.2"):
        TimmFPN("resnet18", 32, weights=path)
    state = saved(path)
    state["layer1.0.conv1.weight"].fill_(torch.nan)
    torch.save(state, path)
    with pytest.raises(UserError, match=r"net\.pt holds values that are not finite in layer1.0"):
        TimmFPN("resnet18", 32, weights=path)
