"""An evaluation says how its images are normalised, and whether the model was made for others."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from modules.generalisation_evaluator import GeneralisationEvaluator
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.records import image_lines
from tests.modules.tiny_classifier import export_tiny_classifier


def made(size: int, resize: int, interpolation: str = "bicubic") -> SimpleNamespace:
    return SimpleNamespace(image_size=size, resize=resize, interpolation=interpolation)


def test_images_of_another_format_are_named(tmp_path: Path) -> None:
    folder = export_tiny_classifier(tmp_path / "model", num_classes=3, image_size=28)
    config = folder / "export" / "config.json"
    normalised = (
        f"images are normalised by mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25]: {config}"
    )
    groups = torch.tensor([0, 1, 1])
    for module in (
        GeneralisationEvaluator(folder),
        RobustnessEvaluator(folder, {}),
        RobustnessEvaluator(folder, {}, groups=groups),
    ):
        assert image_lines(module, made(28, 32)) == [normalised]
        said = image_lines(module, made(28, 28, "bilinear"))
        assert said == [
            normalised,
            f"images are 28 of 28 pixels, bilinear, but {folder} was made for 28 of 32 pixels, "
            "bicubic: --data.init_args.image_size=28 --data.init_args.resize=32 "
            "--data.init_args.interpolation=bicubic measure it on those",
        ]


def test_modules_that_say_nothing(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
    module = RobustnessEvaluator(network, {})
    assert image_lines(module, made(28, 32)) == ["Sequential takes pixels in [0, 1] as they are"]
