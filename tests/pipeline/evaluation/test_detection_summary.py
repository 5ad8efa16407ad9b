import json
from pathlib import Path

import pytest
import timm
import torch

from modules.networks.preprocessing import ImageFormat
from modules.weights.classifier_export import export_timm
from modules.weights.classifier_folder import load_classifier
from pipeline.cli import main
from pipeline.runs.manifest import Manifest
from tests.datamodules.tiny_coco import write_coco
from tests.pipeline.commands import PROJECT

STAGE = "downstream_detection"


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    """A run folder as stage 3 leaves it, with a tiny network of three classes."""
    model_args = {"act_layer": "gelu", "channels": [8, 8, 16, 16], "stem_width": 8}
    export_timm(
        timm.create_model("resnet18", num_classes=3, **model_args),
        tmp_path / "stage3_mpm" / "export",
        architecture="resnet18",
        model_args=model_args,
        num_classes=3,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        images=ImageFormat(32),
    )
    Manifest("stage3_mpm").write(tmp_path / "stage3_mpm")
    return tmp_path / "stage3_mpm"


def command(subcommand: str, coco: Path, run: Path, *args: str) -> list[str]:
    return [
        STAGE,
        subcommand,
        f"-c={PROJECT / 'configs' / STAGE / 'small.yaml'}",
        f"-c={PROJECT / 'tests' / 'configs' / f'{STAGE}.yaml'}",
        f"--data.init_args.coco={coco}",
        f"--trainer.default_root_dir={run}",
        *args,
    ]


def test_fit_resume_and_test_from_an_exported_backbone(
    shapes_root: Path, recogniser: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = write_coco(tmp_path / "coco", shapes_root)
    run = tmp_path / STAGE
    backbone = f"--model.init_args.backbone={recogniser}"
    main(command("fit", coco, run, backbone))
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6  # 3 batches of 4 images, 2 replays
    start = load_classifier(recogniser).network
    body = "network.backbone.network."
    for name in ("conv1.weight", "layer1.0.conv1.weight", "bn1.running_mean"):
        assert torch.equal(last["state_dict"][body + name], start.state_dict()[name])
    changed = "layer4.0.conv1.weight"
    assert not torch.equal(last["state_dict"][body + changed], start.state_dict()[changed])

    main(command("fit", coco, run, backbone, "--trainer.max_epochs=2"))
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    assert set(manifest["inputs"]) == {"backbone"}  # this stage has no parts
    assert not (run / "vocabulary.json").exists()
    assert {"AP", "AP50"} <= set(json.loads((run / "metrics.json").read_text()))

    capsys.readouterr()
    tested = run / "test"
    main(command("test", coco, tested, f"--model.init_args.weights={run}"))
    summary = json.loads((tested / "summary.json").read_text())
    assert set(summary) == {"format_version", "clean", "A_cls", "A_reg", "images"}
    assert summary["images"] == 13
    for name in ("clean", "A_cls", "A_reg"):
        assert 0 <= summary[name]["AP"] <= summary[name]["AP50"] <= 1
    shown = capsys.readouterr().out
    assert "30.3 / 50.3" in shown
    main(command("test", coco, tested, f"--model.init_args.weights={run}"))
    assert "is complete" in capsys.readouterr().out
