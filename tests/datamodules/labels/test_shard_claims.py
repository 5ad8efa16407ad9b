from multiprocessing import get_context
from pathlib import Path

import pytest

from datamodules.labels.shard_claims import ShardClaims


def draw_all(folder: Path, run: str) -> list[int]:
    return list(ShardClaims(folder, run).draw(range(300)))


def test_each_shard_is_drawn_by_one_process(tmp_path: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        drawn = pool.starmap(draw_all, [(tmp_path, "a")] * 4, chunksize=1)
    assert sorted(shard for shards in drawn for shard in shards) == list(range(300))
    assert draw_all(tmp_path, "a") == []
    assert draw_all(tmp_path, "b") == list(range(300))  # another start of the run


def test_the_last_to_leave_hears_of_all(tmp_path: Path) -> None:
    claims = ShardClaims(tmp_path, "a")
    assert claims.leave(2, 3, {"shards": [5]}) is None
    assert claims.leave(0, 3, {"shards": []}) is None
    reports = claims.leave(1, 3, {"shards": [1, 2]})
    assert reports == [{"shards": []}, {"shards": [1, 2]}, {"shards": [5]}]
    ShardClaims.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(ValueError, match=r"labels cannot be written \(File exists\): make room"):
        next(ShardClaims(tmp_path / "labels", "a").draw([0]))
