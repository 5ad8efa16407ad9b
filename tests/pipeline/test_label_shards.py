import contextlib
import json
import os
import shutil
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
from datamodules.part_labels import decode_masks
from datamodules.pseudo_labels import from_table
from modules.part_segmenter import PartSegmenter
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.label_progress import LabelMeter, LabelProgressBar
from pipeline.label_shards import LabelShards

PROJECT = Path(__file__).resolve().parents[2]
KEYS = [f"{name}/{name}_{index}.jpg" for name in ("ant", "bee") for index in range(7)]
CORRUPT = "ant/ant_4.jpg"

# DDP starts further processes by running this file again, so it has to be one.
SCRIPT = """
import resource
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
data = ImageNetShards(
    root / "imagenet", root / "pinpp", batch_size=2, shard_size=3, num_workers=devices - 1
)
if len(sys.argv) > 5:  # no file may grow beyond so many bytes, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]), int(sys.argv[5])))
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


def predict(
    root: Path,
    run: Path,
    segmenter: str = "stage1",
    labels: dict[str, object] | None = None,
    **settings: object,
) -> Trainer:
    data = ImageNetShards(root / "imagenet", root / "pinpp", batch_size=2, shard_size=3)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=run,
        logger=False,
        callbacks=[LabelShards(), LabelProgressBar()],
        **settings,
    )
    model = PseudoLabelWriter(root / segmenter, data.object_parts, **(labels or {}))
    trainer.predict(model, datamodule=data, return_predictions=False)
    return trainer


def start(
    root: Path, run: Path, devices: int, pause: float = 0.0, *args: str
) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "predict.py", str(root), str(run), str(devices), str(pause), *args]
    return subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: "subprocess.Popen[bytes]", status: int = 0) -> str:
    try:
        output, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == status, output.decode()[-2000:]
    return output.decode()


def await_shard(run: Path, shard: int) -> None:
    deadline = time.monotonic() + 100
    while not (run / f"labels/{shard:05d}.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


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
    assert list(files_of(whole)) == [*names, "_shards.json"]
    rows = [row for name in names for row in from_table(pq.read_table(whole / "labels" / name))]
    assert [row.key for row in rows] == KEYS
    assert [row.label for row in rows] == [0] * 7 + [1] * 7
    assert any(len(row.instances) > 1 for row in rows)
    for row in rows:
        assert bool(row.error) == (row.key == CORRUPT)
        assert {part.part for part in row.instances} <= ({1, 2}, {3, 4})[row.label]
        if not row.error:
            assert decode_masks(row).shape == (len(row.instances), 40, 48)


def test_killed_run_goes_on_to_the_same_labels(root: Path, whole: Path, tmp_path: Path) -> None:
    process = start(root, tmp_path, devices=1, pause=0.4)
    await_shard(tmp_path, 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = files_of(tmp_path)
    assert "00000.parquet" in done
    assert "00004.parquet" not in done
    times = (tmp_path / "labels/00000.parquet").stat().st_mtime_ns
    output = finish(start(root, tmp_path, devices=2))  # another number of processes than before
    written = len(KEYS) - 3 * len([name for name in done if name.endswith(".parquet")])
    assert f"labelled {written} images in 0:00:" in output
    assert "1 could not be read; 14 are labelled in all" in output
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
    (tmp_path / "labels/_shards.json").unlink()
    with pytest.raises(ValueError, match=r"shards\.json is missing"):
        predict(root, tmp_path)
    (tmp_path / "labels/_shards.json").write_bytes(before["_shards.json"])
    assert files_of(tmp_path) == before


def test_other_settings_and_other_images_are_refused(root: Path, tmp_path: Path) -> None:
    predict(root, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"score_threshold: 0\.05 -> 0\.5\)"):
        predict(root, tmp_path, labels={"score_threshold": 0.5})
    with pytest.raises(ValueError, match=r"category_filter: True -> False; flip_tta: False -> Tr"):
        predict(root, tmp_path, labels={"category_filter": False, "flip_tta": True})
    shutil.copytree(root, tmp_path / "more")
    more = tmp_path / "more/imagenet/train/ant"
    shutil.copy(more / "ant_0.jpg", more / "ant_9.jpg")
    with pytest.raises(ValueError, match=r"image_list_sha256: .* -> .*; images: 14 -> 15\)"):
        predict(tmp_path / "more", tmp_path)
    (more / "ant_9.jpg").rename(more / "ant_0.jpg.png")  # as many images, another name
    (more / "ant_0.jpg").unlink()
    with pytest.raises(ValueError, match=r"way \(image_list_sha256: \w+ -> \w+\)"):
        predict(tmp_path / "more", tmp_path)
    shutil.copytree(root, tmp_path / "parts")
    (tmp_path / "parts/pinpp/including").mkdir()
    parts = {"images": [], "annotations": [], "categories": [{"id": 0, "name": n} for n in "ab"]}
    (tmp_path / "parts/pinpp/json/ant.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match=r"way \(vocabulary_hash: \w+ -> \w+\)"):
        predict(tmp_path / "parts", tmp_path)
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


def test_full_disk_is_said_in_one_line_and_leaves_whole_shards(
    root: Path, whole: Path, tmp_path: Path
) -> None:
    sizes = [(whole / f"labels/{shard:05d}.parquet").stat().st_size for shard in range(5)]
    limit = sizes[0] + 1
    first = next(shard for shard, size in enumerate(sizes) if size > limit)
    output = finish(start(root, tmp_path, 1, 0.0, str(limit)), status=1)
    assert f"labels/{first:05d}.parquet cannot be written (File too large): make room" in output
    left = files_of(tmp_path)
    assert not any(name.endswith(".partial") for name in left)
    kept = [name for name in left if name.endswith(".parquet")]
    assert kept
    assert all(left[name] == files_of(whole)[name] for name in kept)
    predict(root, tmp_path)
    assert files_of(tmp_path).keys() == files_of(whole).keys()


@pytest.mark.parametrize(
    ("devices", "number", "status"),
    [(2, signal.SIGTERM, 143), (1, signal.SIGINT, 1)],
)
def test_stopped_run_leaves_whole_shards(
    root: Path, whole: Path, tmp_path: Path, devices: int, number: signal.Signals, status: int
) -> None:
    process = start(root, tmp_path, devices, 1.5)
    await_shard(tmp_path, 0)
    for _ in range(3):  # Python drops an interrupt that comes within a callback
        os.killpg(process.pid, number)  # to its workers and the other process as well
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(8)
            break
    output = finish(process, status)
    assert "stopped after" in output
    assert "Traceback" not in output
    left = files_of(tmp_path)
    kept = [name for name in left if name.endswith(".parquet")]
    assert "00000.parquet" in kept
    assert len(kept) < 5
    assert all(left[name] == files_of(whole)[name] for name in kept)


def test_progress_counts_images_of_all_processes(root: Path, tmp_path: Path) -> None:
    meter = LabelMeter(tmp_path, {1: 3, 2: 3, 4: 2}, total=14, alone=False)
    assert (meter.done, str(meter)) == (6, "")
    (tmp_path / "labels").mkdir()
    for name in ("00000.parquet", "00002.parquet", ".00004.parquet.partial", "_shards.json"):
        (tmp_path / "labels" / name).touch()
    meter.started -= 2
    meter._looked -= 11
    meter.add(1, 2)
    assert meter.done == 6 + 2 + 3
    assert str(meter) == f"{meter.rate:.1f} images/s, 0:00:01 left"
    assert meter.rate == pytest.approx(2.5, rel=0.05)
