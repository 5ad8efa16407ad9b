"""Bad input ends in one clear line that names the thing and the mend; nothing is lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.labels.label_set import read_labels
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings
from pipeline.__main__ import user_message
from pipeline.cli import main
from pipeline.export.export_callback import ExportRecogniser
from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import run, stage_args


@pytest.fixture
def data(shapes_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes_root, tmp_path / "data"))


def test_unknown_key_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(stage_args("stage1_segmenter", data, tmp_path, "--model.init_args.no_such_key=1"))
    assert "no_such_key" in capsys.readouterr().err


def test_unknown_stage_is_named() -> None:
    with pytest.raises(ValueError, match=r"no stage stage9.*stage3_mpm"):
        main(["stage9", "fit"])


def test_missing_imagenet_is_one_line(data: Path, tmp_path: Path) -> None:
    args = stage_args("stage1_segmenter", data, tmp_path)
    code, output = run([*args, f"--data.init_args.imagenet={tmp_path / 'nowhere'}"])
    assert code == 1
    assert "Traceback" not in output
    assert f"error: {tmp_path / 'nowhere' / 'train'} is not a folder: set IMAGENET" in output


def test_json_that_is_not_json(data: Path, tmp_path: Path) -> None:
    file = next((data / "pinpp" / "json").iterdir())
    file.write_text("{ not json")
    with pytest.raises(ValueError, match=f"{file} is not valid JSON"):
        main(stage_args("stage1_segmenter", data, tmp_path))


def test_unknown_category(data: Path, tmp_path: Path) -> None:
    file = next((data / "pinpp" / "json").iterdir())
    content = json.loads(file.read_text())
    content["annotations"][0]["category_id"] = 99
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{file}: annotation \d+: unknown category_id 99"):
        main(stage_args("stage1_segmenter", data, tmp_path))


def test_listed_image_that_is_missing(data: Path, tmp_path: Path) -> None:
    file = next((data / "pinpp" / "json").iterdir())
    key = json.loads(file.read_text())["images"][0]["file_name"]
    (data / "imagenet" / "train" / key).unlink()
    with pytest.raises(FileNotFoundError, match=f"lists {key}.*does not exist"):
        main(stage_args("stage1_segmenter", data, tmp_path))


def test_stage_2_before_stage_1(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run make stage1-segmenter first"):
        main(stage_args("stage2_pseudolabels", data, tmp_path))
    with pytest.raises(FileNotFoundError, match="run make stage2-pseudolabels first"):
        main(stage_args("stage3_mpm", data, tmp_path))


def test_unfinished_stage_is_refused(data: Path, finished_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_runs / "stage1_segmenter", tmp_path / "stage1_segmenter")
    manifest = tmp_path / "stage1_segmenter" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    with pytest.raises(ValueError, match="is running, not complete: run make stage1-segmenter"):
        main(stage_args("stage2_pseudolabels", data, tmp_path))


def test_a_best_checkpoint_that_is_gone(data: Path, finished_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_runs / "stage1_segmenter", tmp_path / "stage1_segmenter")
    best, last = (
        tmp_path / "stage1_segmenter" / "checkpoints" / f"{n}.ckpt" for n in ("best", "last")
    )
    best.unlink()
    validate = stage_args("stage1_segmenter", data, tmp_path)
    validate[1] = "validate"
    label = stage_args("stage2_pseudolabels", data, tmp_path, name="other_labels")
    for args in (validate, label):
        with pytest.raises(ValueError, match="does not exist") as found:  # a library may wrap it
            main(args)
        line = str(user_message(found.value))
        assert line.startswith(f"{best} does not exist, as no validation")
        assert line.endswith(f"or give {last} itself")


def test_what_a_run_chose_to_export_is_gone(tmp_path: Path) -> None:
    chosen = ModelCheckpoint(tmp_path, monitor="val/robust_acc")
    chosen.best_model_path = str(tmp_path / "best.ckpt")
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[chosen], logger=False)
    module = MPM(torch.ones(3, 4, dtype=torch.bool), NetworkSettings("bypass", "resnet10t"))
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt, which this run chose.*put it back"):
        ExportRecogniser().on_fit_end(trainer, module)
    assert not (tmp_path / "export").exists()


def test_checkpoint_of_another_vocabulary(data: Path, finished_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_runs / "stage1_segmenter", tmp_path / "stage1_segmenter")
    next((data / "pinpp" / "json").iterdir()).unlink()
    for relations in (data / "pinpp" / "including").glob("*.txt"):
        relations.unlink()
    with pytest.raises(ValueError, match=r"another (part )?vocabulary"):
        main(stage_args("stage2_pseudolabels", data, tmp_path))


def test_corrupt_jpeg_is_a_row_with_an_error_and_left_out_of_training(
    data: Path, finished_runs: Path, tmp_path: Path
) -> None:
    annotated = {
        image["file_name"]
        for file in (data / "pinpp" / "json").iterdir()
        for image in json.loads(file.read_text())["images"]
    }
    train = data / "imagenet" / "train"
    key = next(
        key
        for key in sorted(str(path.relative_to(train)) for path in train.glob("*/*.jpg"))
        if key not in annotated
    )
    (train / key).write_bytes(b"\xff\xd8 not a photograph")
    shutil.copytree(finished_runs / "stage1_segmenter", tmp_path / "stage1_segmenter")
    main(stage_args("stage2_pseudolabels", data, tmp_path))
    row = next(row for row in read_labels(tmp_path / "stage2_pseudolabels") if row.key == key)
    assert key in row.error
    assert not row.instances
    cli = main(stage_args("stage3_mpm", data, tmp_path, "--trainer.max_epochs=1"))
    assert cli is not None
    assert key not in {image for image, _ in cli.datamodule.train_set.images}
    assert len(cli.datamodule.train_set) == 35


def test_stage_3_with_fewer_images_than_a_batch_is_one_line(
    data: Path, finished_runs: Path, tmp_path: Path
) -> None:
    for stage in ("stage1_segmenter", "stage2_pseudolabels"):
        shutil.copytree(finished_runs / stage, tmp_path / stage)
    args = stage_args("stage3_mpm", data, tmp_path, "--data.init_args.batch_size=37")
    code, output = run(args)
    assert code == 1
    assert "Traceback" not in output
    assert "error: 36 images to train on are fewer than a step takes (batch_size=37" in output
    assert not Manifest.read(tmp_path / "stage3_mpm").is_complete
    assert not (tmp_path / "stage3_mpm/export").exists()


def test_corrupt_annotated_jpeg_is_one_line(data: Path, tmp_path: Path) -> None:
    file = next((data / "pinpp" / "json").iterdir())
    for image in json.loads(file.read_text())["images"]:
        (data / "imagenet" / "train" / image["file_name"]).write_bytes(b"\xff\xd8 nothing")
    args = stage_args("stage1_segmenter", data, tmp_path, "--data.init_args.num_workers=1")
    code, output = run(args)
    assert code == 1
    assert "cannot be decoded" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_lost_shard_is_named_and_the_advice_brings_it_back(
    damage: str, data: Path, finished_runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_runs / "stage1_segmenter", tmp_path / "stage1_segmenter")
    main(stage_args("stage2_pseudolabels", data, tmp_path))
    run = tmp_path / "stage2_pseudolabels"
    shard = run / "labels/00000.parquet"
    whole = shard.read_bytes()
    if damage == "truncated":
        shard.write_bytes(whole[:-40])
        message = r"00000.parquet is damaged.*: delete it and run .*make stage2-pseudolabels"
    else:
        shard.unlink()
        message = r"00000.parquet is missing.*: run the command .*make stage2-pseudolabels"
    with pytest.raises(ValueError, match=message):
        read_labels(run)
    shard.unlink(missing_ok=True)
    main(stage_args("stage2_pseudolabels", data, tmp_path))
    assert shard.read_bytes() == whole
