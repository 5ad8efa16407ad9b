import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from datamodules.imagenet_shards import ImageNetShards
from datamodules.part_labels import ImageParts, PartInstance, decode_masks, encode_mask
from datamodules.pseudo_labels import from_table, read_labels
from modules.part_segmenter import PartSegmenter
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.label_shards import LabelShards, write_shard

PROJECT = Path(__file__).resolve().parents[2]
KEYS = [f"{name}/{name}_{index}.jpg" for name in ("ant", "bee") for index in range(7)]
CORRUPT = "ant/ant_4.jpg"

# DDP starts further processes by running this file again, so it has to be one.
SCRIPT = """
import sys
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from datamodules.imagenet_shards import ImageNetShards
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.label_shards import LabelShards


class Slow(Callback):
    def on_predict_batch_end(self, *args, **kwargs):
        time.sleep(float(sys.argv[4]))


torch.set_num_threads(1)
root, run, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
data = ImageNetShards(root / "imagenet", root / "pinpp", batch_size=2, shard_size=3)
trainer = Trainer(
    accelerator="cpu",
    strategy="ddp" if devices > 1 else "auto",
    devices=devices,
    default_root_dir=run,
    logger=False,
    enable_progress_bar=False,
    use_distributed_sampler=False,
    callbacks=[LabelShards(), Slow()],
)
model = PseudoLabelWriter(root / "stage1", data.object_parts)
trainer.predict(model, datamodule=data, return_predictions=False)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen images of two objects, one of them corrupt, and an untrained segmenter."""
    root = tmp_path_factory.mktemp("world")
    (root / "predict.py").write_text(SCRIPT)
    rng = np.random.default_rng(0)
    for key in KEYS:
        file = root / "imagenet/train" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    file = root / "imagenet/train" / CORRUPT
    file.write_bytes(file.read_bytes()[:200])
    (root / "pinpp/json").mkdir(parents=True)
    for name in ("ant", "bee"):
        categories = [{"id": 0, "name": "body"}, {"id": 1, "name": "head"}]
        content = {"images": [], "annotations": [], "categories": categories}
        (root / f"pinpp/json/{name}.json").write_text(json.dumps(content))
    save_segmenter(root / "stage1", seed=0)
    return root


def save_segmenter(run: Path, seed: int) -> None:
    torch.manual_seed(seed)
    network = PartSegmenter(
        torch.tensor([[True, True, True, False, False], [True, False, False, True, True]]),
        backbone="test_resnet",
        fpn_channels=16,
        mask_channels=(16,),
        box_head_dim=16,
        min_size=64,
        max_size=64,
        anchor_sizes=(8, 16, 32, 48, 64),
        rpn_proposals=10,
    )
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    content = {"state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams)}
    torch.save(content, run / "checkpoints/best.ckpt")


def predict(root: Path, run: Path, segmenter: str = "stage1", **settings: object) -> Trainer:
    data = ImageNetShards(root / "imagenet", root / "pinpp", batch_size=2, shard_size=3)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=run,
        logger=False,
        enable_progress_bar=False,
        callbacks=[LabelShards()],
        **settings,
    )
    model = PseudoLabelWriter(root / segmenter, data.object_parts)
    trainer.predict(model, datamodule=data, return_predictions=False)
    return trainer


def start(root: Path, run: Path, devices: int, pause: float = 0.0) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "predict.py", str(root), str(run), str(devices), str(pause)]
    return subprocess.Popen(
        command, cwd=root, env=environment, start_new_session=True, stderr=subprocess.PIPE
    )


def finish(process: "subprocess.Popen[bytes]") -> None:
    try:
        _, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, errors.decode()[-2000:]


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted run of one process."""
    run, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the script, so that sums round alike
    predict(root, run)
    torch.set_num_threads(threads)
    return run


def files_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "labels").iterdir())}


def test_shards_hold_every_image_in_order(root: Path, whole: Path) -> None:
    names = [f"{shard:05d}.parquet" for shard in range(5)]
    assert list(files_of(whole)) == [*names, "shards.json"]
    rows = [row for name in names for row in from_table(pq.read_table(whole / "labels" / name))]
    assert [row.key for row in rows] == KEYS
    assert [row.label for row in rows] == [0] * 7 + [1] * 7
    assert any(len(row.instances) > 1 for row in rows)
    for row in rows:
        assert bool(row.error) == (row.key == CORRUPT)
        assert {part.part for part in row.instances} <= ({1, 2}, {3, 4})[row.label]
        if not row.error:
            assert decode_masks(row).shape == (len(row.instances), 40, 48)


def test_round_trip_of_a_shard(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 9, 13)) < 0.5
    parts = tuple(
        PartInstance(part, encode_mask(mask), (0.5, 1.0, 12.25, 9.0), part / 4)
        for part, mask in enumerate(masks, start=1)
    )
    rows = [ImageParts("ant/0.jpg", 3, 9, 13, parts), ImageParts("ant/1.jpg", 3, 0, 0, (), "bad")]
    write_shard(tmp_path / "labels/00000.parquet", rows)
    assert read_labels(tmp_path) == rows
    assert np.array_equal(decode_masks(read_labels(tmp_path)[0]), masks)
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["00000.parquet"]


def test_killed_run_goes_on_to_the_same_labels(root: Path, whole: Path, tmp_path: Path) -> None:
    process = start(root, tmp_path, devices=1, pause=0.4)
    deadline = time.monotonic() + 100
    while not (tmp_path / "labels/00000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = files_of(tmp_path)
    assert "00000.parquet" in done
    assert "00004.parquet" not in done
    times = (tmp_path / "labels/00000.parquet").stat().st_mtime_ns
    finish(start(root, tmp_path, devices=2))  # another number of processes than before
    assert files_of(tmp_path) == files_of(whole)
    assert (tmp_path / "labels/00000.parquet").stat().st_mtime_ns == times


def test_two_processes_write_every_image_once(root: Path, whole: Path, tmp_path: Path) -> None:
    finish(start(root, tmp_path, devices=2))
    assert files_of(tmp_path) == files_of(whole)
    damaged = tmp_path / "labels/00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    finish(start(root, tmp_path, devices=2))  # the second process has nothing to do
    assert files_of(tmp_path) == files_of(whole)
    predict(root, tmp_path)  # nor has anyone here
    assert files_of(tmp_path) == files_of(whole)


def test_labels_made_another_way_are_refused(root: Path, tmp_path: Path) -> None:
    predict(root, tmp_path)
    before = files_of(tmp_path)
    save_segmenter(root / "retrained", seed=1)
    with pytest.raises(ValueError, match=r"segmenter_sha256: .* -> .*NAME=, or delete"):
        predict(root, tmp_path, "retrained")
    (tmp_path / "labels/shards.json").unlink()
    with pytest.raises(ValueError, match=r"shards\.json is missing"):
        predict(root, tmp_path)
    (tmp_path / "labels/shards.json").write_bytes(before["shards.json"])
    assert files_of(tmp_path) == before


def test_segmenter_of_another_vocabulary_is_refused(root: Path, tmp_path: Path) -> None:
    save_segmenter(root / "other", seed=0)
    vocabulary = {"objects": ["ant", "bee"], "parts": ["ant:leg"], "inclusions": []}
    (root / "other/vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match=r"checkpoint of another vocabulary \(1 parts.*\(4 parts"):
        predict(root, tmp_path, "other")
    assert not (tmp_path / "labels").exists()


def test_cut_short_run_is_not_taken_for_complete(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks 4 of 5 shards, the first is 00001"):
        predict(root, tmp_path, limit_predict_batches=3)
    predict(root, tmp_path / "dry", fast_dev_run=True)
    assert not (tmp_path / "dry/labels").exists()


def test_unreadable_images_are_announced(root: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="shard 1: 1 images could not be read"):
        predict(root, tmp_path)
