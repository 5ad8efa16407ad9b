import pickle
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18, resnet50, swin_t

from tests.modules.networks.detectron2_engine import needs_detectron2


@needs_detectron2
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_of_torchvision_gives_the_same_features(name: str, tmp_path: Path) -> None:
    from modules.networks.detectron2_backbones import build_backbone

    torch.manual_seed(0)
    theirs = {"resnet18": resnet18, "resnet50": resnet50}[name]().eval()
    path = tmp_path / "resnet.pth"
    torch.save(theirs.state_dict(), path)
    ours = build_backbone(name, path, grad_checkpointing=False).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
        torch.testing.assert_close(ours(x)["res5"], expected)
    released = tmp_path / "R.pkl"  # detectron2's own kind of file
    arrays = {key: value.numpy() for key, value in ours.state_dict().items()}
    released.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision"}))
    again = build_backbone(name, released, grad_checkpointing=False).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x)["res5"], expected)


@needs_detectron2
def test_swin_file_as_released_loads_and_another_is_refused(tmp_path: Path) -> None:
    from modules.networks.detectron2_backbones import build_backbone

    torch.manual_seed(0)
    source = build_backbone("swin_test", None, False)
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("norm")}
    classifier = {
        "norm.weight": torch.ones(128),
        "norm.bias": torch.zeros(128),
        "head.weight": torch.zeros(5, 128),
        "head.bias": torch.zeros(5),
        "layers.0.blocks.0.attn_mask": torch.zeros(64, 49, 49),
    }
    path = tmp_path / "swin.pth"
    torch.save({"model": state | classifier}, path)
    loaded = build_backbone("swin_test", path, False)
    for name, value in state.items():
        assert torch.equal(loaded.state_dict()[name], value)
    torch.save({"model": (state | {"surplus": torch.ones(1)})}, path)
    with pytest.raises(ValueError, match="leftover: surplus"):
        build_backbone("swin_test", path, False)
    state.pop("patch_embed.proj.weight")
    torch.save({"model": state}, path)
    with pytest.raises(ValueError, match=r"missing: patch_embed\.proj\.weight"):
        build_backbone("swin_test", path, False)
    with pytest.raises(FileNotFoundError, match="swin"):
        build_backbone("swin_test", tmp_path / "swin_none.pth", False)


@needs_detectron2
def test_swin_of_torchvision_gives_the_same_features() -> None:
    """Same architecture elsewhere: the tensors of torchvision's Swin-T come in the same order."""
    from modules.networks.detectron2_backbones import build_backbone

    torch.manual_seed(0)
    theirs, ours = swin_t().eval(), build_backbone("swin_tiny", None, False).eval()
    with torch.no_grad():
        names = [n for n, _ in ours.named_parameters() if not n.startswith("norm")]
        for name, value in zip(names, theirs.features.parameters(), strict=True):
            ours.get_parameter(name).copy_(value)
        x = torch.rand(1, 3, 224, 224)
        expected = torch.nn.functional.layer_norm(theirs.features[:6](x), (384,))
        torch.testing.assert_close(ours(x)["p2"], expected.permute(0, 3, 1, 2), rtol=0, atol=1e-4)


@needs_detectron2
def test_code_in_a_pickle_is_refused(tmp_path: Path) -> None:
    from modules.networks.detectron2_backbones import build_backbone

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": print}))
    with pytest.raises(ValueError, match="builtins"):
        build_backbone("swin_test", path, False)
