import errno
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.files.errors import UserError
from datamodules.labels.pseudo_labels import from_table
from datamodules.masks.part_labels import decode_masks
from pipeline.labelling.progress import LabelMeter
from pipeline.labelling.shard_callback import PseudoLabelShards
from pipeline.labelling.shard_writer import ShardWriter
from tests.pipeline.labelling.label_world import CORRUPT, KEYS, files_of, predict, save_segmenter


def test_shards_hold_every_image_in_order(label_root: Path, whole_labels: Path) -> None:
    names = [f"{shard:05d}.parquet" for shard in range(5)]
    assert list(files_of(whole_labels)) == [*names, "_shards.json"]
    rows = [
        row for name in names for row in from_table(pq.read_table(whole_labels / "labels" / name))
    ]
    assert [row.key for row in rows] == KEYS
    assert [row.label for row in rows] == [0] * 7 + [1] * 7
    assert any(len(row.instances) > 1 for row in rows)
    for row in rows:
        assert bool(row.error) == (row.key == CORRUPT)
        assert {part.part for part in row.instances} <= ({1, 2}, {3, 4})[row.label]
        if not row.error:
            assert decode_masks(row).shape == (len(row.instances), 40, 48)


def test_labels_made_another_way_are_refused(label_root: Path, tmp_path: Path) -> None:
    predict(label_root, tmp_path)
    before = files_of(tmp_path)
    save_segmenter(label_root / "retrained", seed=1)
    with pytest.raises(ValueError, match=r"segmenter_sha256: .* -> .*NAME=, or delete"):
        predict(label_root, tmp_path, "retrained")
    (tmp_path / "labels/_shards.json").unlink()
    with pytest.raises(ValueError, match=r"shards\.json is missing"):
        predict(label_root, tmp_path)
    (tmp_path / "labels/_shards.json").write_bytes(before["_shards.json"])
    assert files_of(tmp_path) == before


def test_other_settings_and_other_images_are_refused(label_root: Path, tmp_path: Path) -> None:
    predict(label_root, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"score_threshold: 0\.05 -> 0\.5\)"):
        predict(label_root, tmp_path, labels={"score_threshold": 0.5})
    with pytest.raises(
        ValueError, match=r"category_filter: True -> False; settings.flip_tta: False"
    ):
        predict(label_root, tmp_path, labels={"category_filter": False, "flip_tta": True})
    shutil.copytree(label_root, tmp_path / "more")
    more = tmp_path / "more/imagenet/train/ant"
    shutil.copy(more / "ant_0.jpg", more / "ant_9.jpg")
    with pytest.raises(ValueError, match=r"image_list_sha256: .* -> .*; images: 14 -> 15\)"):
        predict(tmp_path / "more", tmp_path)
    (more / "ant_9.jpg").rename(more / "ant_0.jpg.png")  # as many images, another name
    (more / "ant_0.jpg").unlink()
    with pytest.raises(ValueError, match=r"way \(image_list_sha256: \w+ -> \w+\)"):
        predict(tmp_path / "more", tmp_path)
    shutil.copytree(label_root, tmp_path / "parts")
    (tmp_path / "parts/pinpp/including").mkdir()
    parts = {"images": [], "annotations": [], "categories": [{"id": 0, "name": n} for n in "ab"]}
    (tmp_path / "parts/pinpp/json/ant.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match=r"way \(vocabulary_hash: \w+ -> \w+\)"):
        predict(tmp_path / "parts", tmp_path)
    assert files_of(tmp_path) == before


def test_segmenter_of_another_vocabulary_is_refused(label_root: Path, tmp_path: Path) -> None:
    save_segmenter(label_root / "other", seed=0)
    vocabulary = {"objects": ["ant", "bee"], "parts": ["ant:leg"], "inclusions": []}
    (label_root / "other/vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match=r"checkpoint of another vocabulary \(1 parts.*\(4 parts"):
        predict(label_root, tmp_path, "other")
    assert not (tmp_path / "labels").exists()


def test_cut_short_run_is_not_taken_for_complete(label_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks 4 of 5 shards, the first is 00001"):
        predict(label_root, tmp_path, limit_predict_batches=3)
    predict(label_root, tmp_path / "dry", fast_dev_run=True)
    assert not (tmp_path / "dry/labels").exists()


def test_unreadable_images_are_announced(label_root: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="shard 1: 1 images could not be labelled"):
        predict(label_root, tmp_path)


def test_the_last_line_counts_the_error_rows_of_earlier_starts(
    label_root: Path, whole_labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole_labels, tmp_path, dirs_exist_ok=True)
    (tmp_path / "labels/00003.parquet").unlink()
    predict(label_root, tmp_path)
    line = "0 could not be labelled; of 14 in all, 1 could not\n"
    assert line in capsys.readouterr().out


def test_a_mount_that_drops_ends_the_run_and_costs_no_label(
    label_root: Path, whole_labels: Path, tmp_path: Path
) -> None:
    calls, really_open = [0], Image.open

    def open_while_mounted(path: Path) -> Image.Image:
        calls[0] += 1
        if calls[0] > 2:  # one image of shard 0's three
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return really_open(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", open_while_mounted)
        with pytest.raises(UserError, match=r"ant_2\.jpg cannot be read \(Stale file handle\): "):
            predict(label_root, tmp_path)
    assert not list(tmp_path.glob("labels/*.parquet"))
    predict(label_root, tmp_path)
    assert files_of(tmp_path) == files_of(whole_labels)


def test_too_many_error_rows_end_the_run_with_the_reason(tmp_path: Path) -> None:
    def row(index: int) -> dict[str, object]:
        record = {"key": f"ant/{index}.jpg", "label": 0, "height": 9, "width": 9}
        return record | {"detections": None, "error": "no memory" if index < 2 else ""}

    for share, written in ((0.5, [0]), (0.4, [])):
        writer = ShardWriter(tmp_path / str(share), "", max_error_share=share)
        writer.add(0, 0, 4, [row(index) for index in range(4)])
        if written:
            writer.close()
        else:
            with pytest.raises(ValueError, match=r"2 of 4 images.*ant/0.jpg: no memory; mend"):
                writer.close()
        assert writer.shards == written
    with pytest.raises(ValueError, match=r"max_error_share \(2\) must be"):
        PseudoLabelShards(max_error_share=2)


def test_progress_counts_images_of_all_processes(label_root: Path, tmp_path: Path) -> None:
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
