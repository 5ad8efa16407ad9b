import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard

from modules.weights.classifier_folder import load_classifier
from pipeline.__main__ import main as run_command
from pipeline.cli import main as run_stage
from pipeline.export.export_model import main
from pipeline.runs.manifest import sha256
from tests.modules.weights.released_networks import ReleasedMPM, ReleasedTwoStage, trained
from tests.pipeline.commands import stage_args

TINY = {"channels": [4, 8, 16, 32], "stem_width": 8}
GELU = json.dumps({**TINY, "act_layer": "gelu"})


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_run_is_exported_with_a_card(finished_runs: Path, tmp_path: Path) -> None:
    run, out = finished_runs / "stage3_mpm", tmp_path / "out"
    main(run, out, ["timm", "torch_export"], license="mit")
    network = load_classifier(run)
    torch.testing.assert_close(load_classifier(out)(images()), network(images()))
    in_timm = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    torch.testing.assert_close(in_timm(network.normalise(images())), network(images()))
    program = torch.export.load(out / "model.pt2").module()
    torch.testing.assert_close(program(images()), network(images()))

    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "timm"
    assert card.data.license == "mit"
    summary = json.loads((finished_runs / "evaluate" / "stage3_mpm" / "summary.json").read_text())
    shown = {result.metric_name: result.metric_value for result in card.data.eval_results}
    for threat in summary["threats"]:
        names = [name for name in shown if name.startswith(f"accuracy, {threat['name']}")]
        assert shown[names[0]] == round(threat["accuracy"], 4)
    metrics = json.loads((run / "metrics.json").read_text())
    for part in (
        f"robust_acc {metrics['robust_acc']:.4g}",
        "`model.attack.eps`",
        "pinpp",
        "images",
    ):
        assert part in card.text
    assert str(finished_runs.parent) not in card.text
    for name in ("config.json", "model.safetensors", "model.pt2"):
        assert sha256(out / name) in card.text
    main(run, out, license="mit")  # the same weights may be exported again
    record = json.loads((out / "export.json").read_text())
    assert set(record["files"]) == {"config.json", "model.safetensors", "model.pt2"}


def test_folders_with_other_content_are_refused(finished_runs: Path, tmp_path: Path) -> None:
    run = finished_runs / "stage3_mpm"
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"export\.json is missing"):
        main(run, tmp_path)
    main(run, tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(run / "export", other)
    config = other / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ValueError, match=r"made another way \(fingerprint: "):
        main(other, tmp_path / "out")
    with pytest.raises(ValueError, match="no part_network form: use --format timm"):
        main(run, tmp_path / "x", "part_network")
    evaluation = finished_runs / "evaluate" / "stage3_mpm"
    assert not list(tmp_path.glob("x*"))
    with pytest.raises(ValueError, match="evaluates other weights"):
        main(other, tmp_path / "y", evaluation=evaluation)


@torch.no_grad()
def test_two_stage_run_is_exported_and_evaluated(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "stage2_pseudolabels").symlink_to(finished_runs / "stage2_pseudolabels")
    structure = "--model.init_args.network.structure=downsampled"
    run_stage(stage_args("stage3_mpm", shapes_root, runs, structure, "--trainer.max_epochs=1"))
    run_stage(stage_args("evaluate", shapes_root, runs, name="evaluate/stage3_mpm"))
    assert (runs / "stage3_mpm" / "export" / "part_network.json").is_file()
    out = tmp_path / "out"
    main(runs / "stage3_mpm", out)
    network = load_classifier(runs / "stage3_mpm")
    assert torch.equal(load_classifier(out)(images()), network(images()))
    assert ModelCard.load(out / "README.md").data.library_name == "pytorch"


@torch.no_grad()
def test_released_checkpoints_become_folders(tmp_path: Path) -> None:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25]))
    cases = (
        (ReleasedMPM(4, 6, **TINY), ["bypass"]),
        (ReleasedTwoStage(4, 6, **TINY), ["downsampled", "--foreign.num_part_classes=6"]),
    )
    for network, structure in cases:
        trained(network)
        path, out = tmp_path / "released.pth.tar", tmp_path / structure[0]
        torch.save({"state_dict_ema": network.state_dict()}, path)
        command = ["export_model", f"--model={path}", f"--out={out}"]
        command += ["--foreign.architecture=resnet50", f"--foreign.model_args={GELU}"]
        command += ["--foreign.num_classes=4", "--foreign.structure", *structure]
        normalisation = ["--foreign.mean=[0.5,0.4,0.3]", "--foreign.std=[0.2,0.3,0.25]"]
        assert run_command([*command, *normalisation]) == 0
        wanted = network((images() - mean) / std)[0]
        torch.testing.assert_close(load_classifier(out)(images()), wanted)
        assert sha256(path) in (out / "README.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bypass",
        "downsampled",
        "released.pth.tar",
    ]
