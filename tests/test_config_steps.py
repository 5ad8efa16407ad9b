"""Every shipped configuration trains a step, at tiny width."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image

from datamodules.evaluation.object_groups import known_groups
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from modules.networks.structures import NetworkSettings
from pipeline.cli import PipelineCLI, main
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.commands import PROJECT, stage_args
from tests.test_configs import CONFIGS, FILES, OVERLAYS

ONE_PROCESS = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto")
ONE_STEP = {
    "stage1_segmenter": ("--trainer.max_steps=1", "--trainer.val_check_interval=1"),
    "stage2_pseudolabels": (),
    "stage3_mpm": (
        "--trainer.max_epochs=1",
        "--data.init_args.batch_size=20",  # of 36 images
        "--data.init_args.num_workers=0",
        "--model.init_args.attack.clean_epochs=0",
        "--model.init_args.schedule.warmup_epochs=0",
    ),
    "evaluate": (),
}
# What makes a full-size network small: tests/configs does for ResNets, these are others.
TINY = {
    "resnext50": "model_args={act_layer: gelu, channels: [16, 16, 32, 32], layers: [1, 1, 1, 1]}",
    "convnext_tiny": "model_args={depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}",
    "swin_tiny": "model_args={embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], "
    "window_size: 2, img_size: 32}",
    "vit_small": "model_args={embed_dim: 16, depth: 2, num_heads: 2, img_size: 32}",
}
AFTER = {"deeplabv3plus": ("downsampled",)}
STAGE3 = [path for path in OVERLAYS if path.parent.name == "stage3_mpm"]


def _segmenter_args(config: Path) -> list[str]:
    """A full-size segmenter: its backbone and canvas are not those of tests/configs."""
    if config.stem.startswith("small"):
        return []
    return [
        "--model.init_args.pretrained=false",
        "--data.init_args.canvas=64",
        "--data.init_args.num_workers=0",
    ]


def _step(config: Path, data: Path, runs: Path, folder: Path, *args: str) -> PipelineCLI:
    """Runs a stage with `config`, the tiny overlay of the tests and one step."""
    stage = config.parent.name
    whole = stage_args(stage, data, runs, *ONE_STEP[stage], *ONE_PROCESS, *args)
    whole[2] = f"-c={config}"
    cli = main([*whole, f"--trainer.default_root_dir={folder}"])
    assert cli is not None
    return cli


def _assert_trained(cli: PipelineCLI) -> None:
    assert cli.trainer.global_step == 1
    # first, so that the others see the average in validation; checkpoints last, as ever
    averaged = cli.config[cli.subcommand].ema_decay is not None
    assert isinstance(cli.trainer.callbacks[0], EMAWeightAveraging) is averaged
    assert isinstance(cli.trainer.callbacks[-1], ModelCheckpoint)
    loss = cli.trainer.callback_metrics.get("train/loss")
    assert loss is not None
    assert torch.isfinite(loss)
    moments = [
        value
        for state in cli.trainer.optimizers[0].state.values()
        for name, value in state.items()
        if name in ("momentum_buffer", "exp_avg") and value is not None
    ]
    assert moments
    assert all(torch.isfinite(value).all() for value in moments)
    assert any(value.any() for value in moments)


@pytest.fixture(scope="module")
def runs(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of stages 1 and 3 and the labels of stage 2, with the small configurations."""
    folder = tmp_path_factory.mktemp("steps")
    for stage in ("stage1_segmenter", "stage2_pseudolabels", "stage3_mpm"):
        config = PROJECT / "configs" / stage / "small.yaml"
        cli = _step(config, shapes_root, folder, folder / stage)
        if stage != "stage2_pseudolabels":
            _assert_trained(cli)
    return folder


@pytest.mark.parametrize("overlay", STAGE3, ids=lambda path: path.stem)
def test_overlay_trains_a_step(
    overlay: Path, runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    if overlay.stem == "deeplabv3plus":
        pytest.importorskip("segmentation_models_pytorch")
    names = (*AFTER.get(overlay.stem, ()), overlay.stem)
    args = [f"-c={overlay.with_stem(name)}" for name in names]
    if overlay.stem in TINY:
        args.append(f"--model.init_args.network.{TINY[overlay.stem]}")
    args.append("--trainer.max_epochs=1")
    cli = _step(overlay.with_stem("small"), shapes_root, runs, tmp_path / "run", *args)
    _assert_trained(cli)


def overlaid(backbone: str, overlay: str) -> NetworkSettings:
    """The network of two overlays, at tiny width."""
    settings = yaml.safe_load(TINY[backbone].replace("=", ": ", 1))
    for path in STAGE3:
        if path.stem in (backbone, overlay):
            network = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
            settings = network | settings
    return NetworkSettings(**settings)


@pytest.mark.parametrize("overlay", ["sv1", "sv2", "downsampled", "bounding_box", "rock"])
@pytest.mark.parametrize("backbone", TINY)
def test_every_trained_weight_gets_a_gradient(backbone: str, overlay: str) -> None:
    """Without one DDP ends at its second step."""
    settings = overlaid(backbone, overlay)
    object_parts = torch.eye(4, dtype=torch.bool)
    if settings.structure != "bypass" and backbone in ("swin_tiny", "vit_small"):
        with pytest.raises(UserError, match=f"'{backbone}.*gives no maps .*such as resnet50"):
            settings.build(object_parts)
        return
    network = settings.build(object_parts)
    logits, levels = network.forward_with_parts(torch.rand(2, 3, 32, 32))
    (logits.sum() + sum(level.logits().sum() for level in levels)).backward()
    trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []
    frozen = {name for name, _ in network.named_parameters()} - trained.keys()
    assert all(".body.head.norm." in name for name in frozen)  # of ConvNeXt


@pytest.mark.parametrize(
    "config",
    [
        path
        for path in CONFIGS
        if path.parent.name.startswith("stage")
        and path.stem not in ("small", "lite0", "lite0_fast")
    ],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_full_size_config_runs(config: Path, runs: Path, shapes_root: Path, tmp_path: Path) -> None:
    stage = config.parent.name
    if config.stem.endswith("detectron2"):
        pytest.importorskip("detectron2")
    args = _segmenter_args(config) if stage == "stage1_segmenter" else []
    cli = _step(config, shapes_root, runs, tmp_path / "run", *args)
    if stage != "stage2_pseudolabels":
        _assert_trained(cli)
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.parametrize(
    "config",
    [p for p in FILES if p.parent.name in ("evaluate", "study") and "threats:" in p.read_text()],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_evaluation_attacks_an_image(
    config: Path, runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    """All threats of the configuration, on an image each."""
    threats = yaml.safe_load(config.read_text())["model"]["init_args"]["threats"]
    smoothed = [n for n, one in threats.items() if one["class_path"] == "RandomisedSmoothing"]
    args = stage_args("evaluate", shapes_root, runs, *ONE_PROCESS)
    args[3] = f"-c={config}"  # instead of the tiny threats of the tests
    cli = main(
        [
            *args,
            f"--data.init_args.images={dict.fromkeys(threats, 1)}",
            "--data.init_args.image_size=32",
            "--data.init_args.resize=32",
            "--data.init_args.num_workers=0",
            *(f"--model.init_args.threats.{name}.init_args.n=100" for name in smoothed),
            f"--trainer.default_root_dir={tmp_path / 'run'}",
        ]
    )
    assert cli is not None
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    images = {row["name"]: row["n"] for row in summary["threats"]}
    images |= {row["name"]: row["images"] for row in summary["certified"]}
    assert images == dict.fromkeys(threats, 1)


@pytest.mark.parametrize("subset", ["pin11", "pin125"])
def test_subset_overlay_attacks_its_own_images(subset: str, tmp_path: Path) -> None:
    """Over `imagenet.yaml`: two categories of one super-category, one of another, one of none."""
    group_of = known_groups("pin11")
    first, other = (
        [wnid for wnid, group in group_of.items() if group == wanted]
        for wanted in sorted(set(group_of.values()))[:2]
    )
    names = [*first[:2], other[0], "n00000001"]
    categories = [{"id": 1, "name": "part"}]
    for index, name in enumerate(names):
        image = Image.new("RGB", (40, 40), (40 * index, 90, 120))
        for split in ("train", "val"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            image.save(folder / f"{name}_1.JPEG")
        content = {"images": [], "annotations": [], "categories": categories}
        write_json(tmp_path / "pinpp" / "json" / f"{name}.json", content)
    write_json(tmp_path / "subsets.json", {"pin125": names[:3]})
    model = export_tiny_classifier(tmp_path / "model", num_classes=4)
    configs = PROJECT / "configs" / "evaluate"
    main(
        [
            "evaluate",
            "test",
            f"-c={configs / 'imagenet.yaml'}",
            f"-c={configs / f'{subset}.yaml'}",
            f"--data.init_args.imagenet={tmp_path / 'imagenet'}",
            f"--data.init_args.pinpp={tmp_path / 'pinpp'}",
            f"--data.init_args.subsets={tmp_path / 'subsets.json'}",
            f"--model.init_args.model={model}",
            "--data.init_args.image_size=32",
            "--data.init_args.resize=32",
            "--data.init_args.num_workers=0",
            f"--trainer.default_root_dir={tmp_path / 'run'}",
            *ONE_PROCESS,
        ]
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = [(threat["name"], threat["n"]) for threat in summary["threats"]]
    assert found == [("clean", 3), ("linf_4", 3), ("linf_8", 3)]
    records = pq.read_table(tmp_path / "run" / "records" / "clean").to_pylist()
    labels = {row["key"].split("/")[0]: row["label"] for row in records}
    by_group = [labels[name] for name in names[:3]]
    assert len(labels) == 3
    assert (by_group[0] == by_group[1]) == (subset == "pin11")
    assert by_group[0] != by_group[2]
