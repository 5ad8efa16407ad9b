import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from modules.networks.normalisation import Normalised
from modules.networks.structures import Structure, build_network
from modules.weights.export_formats import export_onnx, export_program
from modules.weights.part_network_folder import DeployedPartNetwork
from tests.modules.weights.released_networks import trained

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8, "act_layer": "gelu"}
SIZE = 224  # 7x7 is pooled to 4x4 in the two-stage classifier
STRUCTURES: list[Structure] = ["bypass", "downsampled", "bounding_box", "judgment"]


def classifier(structure: Structure) -> nn.Module:
    torch.manual_seed(0)
    if structure == "bypass":
        network = trained(timm.create_model("resnet10t", num_classes=5, **TINY))
        return Normalised(network, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()
    regions = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    network = trained(build_network(structure, "resnet10t", regions, model_args=TINY))
    return DeployedPartNetwork(network, {"num_objects": 5}).eval()


def images(batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("structure", STRUCTURES)
@torch.no_grad()
def test_program_gives_the_logits_of_images_in_0_1(structure: Structure, tmp_path: Path) -> None:
    network = classifier(structure)
    assert export_program(network, tmp_path / "model.pt2", SIZE, {"model": "x"}) <= 1e-4
    extra = {"metadata.json": ""}
    loaded = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    torch.testing.assert_close(loaded(images(5)), network(images(5)))
    metadata = json.loads(extra["metadata.json"])
    assert metadata["model"] == "x"
    assert "values in [0, 1]" in metadata["input"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.parametrize("structure", STRUCTURES)
@torch.no_grad()
def test_onnx_gives_the_logits_of_images_in_0_1(structure: Structure, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="extra 'export' is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="extra 'export' is not installed")
    pytest.importorskip("onnxscript", reason="extra 'export' is not installed")
    network = classifier(structure)
    assert export_onnx(network, tmp_path / "model.onnx", SIZE, {"model": "x"}) <= 1e-4
    session: Any = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    logits = session.run(["logits"], {"images": images(5).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), network(images(5)), atol=1e-4, rtol=0)
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert "values in [0, 1]" in metadata["input"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class Drifting(nn.Module):
    """Gives in a traced program what it does not give when called."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) + (0.1 if torch.compiler.is_exporting() else 0.0)


def test_other_logits_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.pt2 gives other logits than the network, by 0.1"):
        export_program(Drifting().eval(), tmp_path / "model.pt2", 8, {})
    assert not list(tmp_path.iterdir())
