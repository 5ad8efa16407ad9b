import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.files.json_files import write_json
from pipeline.evaluation.compare_outcomes import compare, main
from pipeline.evaluation.intervals import mcnemar, paired_difference, unpaired_difference
from pipeline.evaluation.outcome_tables import Outcomes, read_outcomes

LOG = """using standard version including apgd-ce, apgd-t, fab-t, square.
initial accuracy: 70.00%
apgd-ce - 1/2 - 20 out of 100 successfully perturbed
apgd-ce - 2/2 - 10 out of 40 successfully perturbed
robust accuracy after APGD-CE: 55.00% (total time 1.2 s)
apgd-t - 1/1 - 4 out of 110 successfully perturbed
robust accuracy after APGD-T: 53.00% (total time 9.2 s)
max Linf perturbation: 0.00784, nan in tensor: 0, max: 1.00000, min: 0.00000
robust accuracy: 53.00%
"""


def outcomes(robust: dict[str, bool]) -> Outcomes:
    return Outcomes("x", sum(robust.values()), len(robust), robust)


@pytest.mark.parametrize(
    ("cells", "low", "high"),  # Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10
    [((36, 12, 2, 0), 0.0569, 0.3404), ((54, 0, 0, 0), -0.0664, 0.0664)],
)
def test_paired_interval_of_newcombe(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    gap, interval = paired_difference(*cells)
    assert gap == pytest.approx((cells[1] - cells[2]) / sum(cells))
    assert interval == pytest.approx((low, high), abs=5e-5)


def test_unpaired_interval_of_newcombe() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 873-890, method 10
    gap, interval = unpaired_difference(56, 70, 48, 80)
    assert gap == pytest.approx(0.2)
    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_paired_interval_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.5
    second = np.where(rng.random(2000) < 0.9, first, rng.random(2000) < 0.7)
    keys = [f"a/{i}.png" for i in range(2000)]
    row = compare(*(outcomes(dict(zip(keys, x.tolist(), strict=True))) for x in (first, second)))
    drawn = rng.integers(0, 2000, (4000, 2000))
    gaps = (second[drawn].astype(float) - first[drawn]).mean(1)
    assert row["difference"] == pytest.approx(second.mean() - first.mean())
    assert row["ci95"] == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=2e-3)
    assert [row["only_a"], row["only_b"]] == [(first & ~second).sum(), (second & ~first).sum()]


def test_exact_mcnemar() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(9, 3) == pytest.approx(0.14599609375)  # scipy.stats.binomtest(3, 12)
    assert mcnemar(5, 0) == pytest.approx(2 / 32)


def test_tables_of_other_projects_are_paired(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,robust\nn01/x.JPEG,1\nn01/y.JPEG,0\nn02/z.JPEG,True\n")
    (tmp_path / "b.json").write_text(json.dumps({"val/x.png": True, "val/y.png": True}))
    (row,) = (row for _, row in main(tmp_path / "a.csv", tmp_path / "b.json"))
    assert (row["both"], row["only_a"], row["only_b"], row["neither"]) == (1, 0, 1, 0)
    assert row["left_out"] == [1, 0]
    assert row["difference"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no image in common"):
        compare(outcomes({"a/1.png": True}), outcomes({"b/2.png": True}))


def test_log_is_compared_unpaired(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(LOG)
    (tmp_path / "a.csv").write_text("key,robust\nx,1\ny,0\n")
    log = read_outcomes(tmp_path / "log.txt")
    assert (log.right, log.total, log.robust) == (106, 200, {})
    (row,) = (row for _, row in main(tmp_path / "a.csv", tmp_path / "log.txt"))
    assert row["method"] == "unpaired"
    assert row["difference"] == pytest.approx(0.03)
    low, high = row["ci95"]
    assert low < -0.3 < 0.3 < high


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image,ok\nx,1\n", "no rows with the columns key and robust"),
        ("a.csv", "key,robust\nx,maybe\n", "robust of x is 'maybe'"),
        ("a.csv", "key,robust\nx,1\nx,0\n", "x occurs twice"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "{}", "holds no outcomes"),
        ("a.log", "nothing", "is no AutoAttack log"),
        ("a.log", "initial accuracy: 70.00%\nrobust accuracy: 3.0%", "does not tell the number"),
    ],
)
def test_unreadable_sources_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_outcomes(tmp_path / name)


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_outcomes(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="holds no records/"):
        read_outcomes(tmp_path)


def test_run_folders_are_compared_under_all_common_threats(finished_runs: Path) -> None:
    run = finished_runs / "evaluate" / "stage3_mpm"
    rows = main(run, run, json=run.parent / "both.json")
    assert [name for name, _ in rows] == ["clean", "pgd"]
    for _, row in rows:
        assert row["method"] == "paired"
        assert row["only_a"] == row["only_b"] == row["difference"] == 0
    written = json.loads((run.parent / "both.json").read_text())["comparisons"]
    assert [row["threat"] for row in written] == ["clean", "pgd"]
    (row,) = (row for _, row in main(run, run, "pgd"))
    assert row["a"]["n"] == 6


def evaluated(run: Path, image_size: int = 224, chunk_size: int = 8, **pgd: object) -> Path:
    """A run folder of one image, right in all."""
    for threat in ("clean", "pgd"):
        (run / "records" / threat).mkdir(parents=True)
        table = pa.table({"key": ["n01/x.png"], "robust": [True]})
        pq.write_table(table, run / "records" / threat / "00000.parquet")
    threats = {"clean": {"attack": "Clean"}, "pgd": {"attack": "PGD", "eps": 0.01} | pgd}
    images = {"model": str(run), "image_size": image_size, "chunk_size": chunk_size, "seed": 0}
    write_json(run / "records" / "settings.json", {**images, "threats": threats})
    return run


def test_run_folders_that_measured_something_else_are_refused(tmp_path: Path) -> None:
    a = evaluated(tmp_path / "a")
    radius = evaluated(tmp_path / "radius", eps=0.02)
    with pytest.raises(ValueError, match=r"a and .*radius did .*\(pgd.eps: 0.01 -> 0.02\)"):
        main(a, radius)
    with pytest.raises(ValueError, match=r"pgd\.eps"):
        main(a / "records", radius, "pgd")
    assert [name for name, _ in main(a, radius, "clean")] == ["clean"]
    with pytest.raises(ValueError, match=r"\(image_size: 224 -> 32\)"):
        main(a, evaluated(tmp_path / "small", image_size=32), "clean")
    (radius / "records" / "settings.json").unlink()  # as a folder of others, with nothing known
    assert len(main(a, radius)) == 2


def test_other_chunks_and_batches_are_the_same_measure(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a"), evaluated(tmp_path / "b", chunk_size=64, batch_size=4)
    assert len(main(a, b)) == 2
