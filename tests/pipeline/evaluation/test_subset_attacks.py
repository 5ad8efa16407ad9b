"""Attacks within a subset of the classes, from the command line to the report."""

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.images.imagenet_folder import list_objects
from pipeline.cli import main
from pipeline.report.generalisation_tables import subset_tables
from pipeline.report.reading.evaluations import read_evaluation
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.commands import PROJECT, stage_args

THREATS = """{
clean: {class_path: modules.attacks.threats.Clean},
linf_4: {class_path: modules.attacks.threats.AutoAttack, init_args: {eps: 0.01568627450980392}}}"""


@pytest.fixture(scope="module")
def runs(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model and a file of subsets."""
    runs = tmp_path_factory.mktemp("runs")
    objects = list_objects(shapes_root / "imagenet")
    export_tiny_classifier(runs / "stage3_mpm", num_classes=len(objects), image_size=32)
    subsets = {"pair": {objects[0]: "x", objects[1]: "x", objects[2]: "y"}, "every": objects}
    (runs / "subsets.json").write_text(json.dumps(subsets))
    return runs


def evaluate(runs: Path, shapes_root: Path, *args: str, name: str = "evaluate/stage3_mpm") -> Path:
    main(stage_args("evaluate", shapes_root, runs, *args, name=name))
    return runs / name


def attack_on(runs: Path, shapes_root: Path, subset: str, *args: str) -> Path:
    given = (
        f"--data.init_args.subset={subset}",
        f"--data.init_args.subsets={runs / 'subsets.json'}",
    )
    name = f"evaluate/stage3_mpm/subsets/{subset}"
    return evaluate(runs, shapes_root, *given, *args, name=name)


def rows(run: Path, threat: str) -> list[dict]:
    files = sorted((run / "records" / threat).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()


def test_a_subset_of_all_classes_has_the_same_records(runs: Path, shapes_root: Path) -> None:
    whole = evaluate(runs, shapes_root)
    every = attack_on(runs, shapes_root, "every")
    for threat in ("clean", "pgd"):
        assert rows(whole, threat) == rows(every, threat)


def test_attacks_on_two_groups_fill_the_report(runs: Path, shapes_root: Path) -> None:
    folder = attack_on(
        runs,
        shapes_root,
        "pair",
        f"--model.init_args.threats={THREATS}",
        "--data.init_args.images={clean: 12, linf_4: 6}",
    )
    clean, attacked = rows(folder, "clean"), rows(folder, "linf_4")
    assert {row["label"] for row in clean} == {0, 1}
    assert {row["clean_prediction"] for row in clean} <= {0, 1}
    right = {row["key"]: row["robust"] for row in clean}
    assert all(right[row["key"]] >= row["robust"] for row in attacked)
    one = read_evaluation(runs / "evaluate" / "stage3_mpm")
    table = next(table for table in subset_tables([one]) if table.name == "subset_pair")
    shown = table.rows[0].cells
    for cell, records in zip(shown, (clean, attacked), strict=False):
        assert cell is not None
        assert cell.value == pytest.approx(100 * sum(r["robust"] for r in records) / len(records))
        assert cell.n == len(records)
        assert cell.low is not None
    assert shown[2] is not None
    assert shown[2].value is None
    with pytest.raises(ValueError, match=r"other settings .*init_args.subset: pair -> every"):
        evaluate(
            runs,
            shapes_root,
            "--data.init_args.subset=every",
            f"--data.init_args.subsets={runs / 'subsets.json'}",
            name="evaluate/stage3_mpm/subsets/pair",
        )
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"made another way .*subset: pair sha256:"):
        evaluate(runs, shapes_root, name="evaluate/stage3_mpm/subsets/pair")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        (["SUBSET=pin11"], ["-c imagenet -c pin11", "/m/subsets/pin11"]),
        (["CONFIG=imagenet pin11"], ["-c imagenet -c pin11", "subset=pin11", "/m/subsets/pin11"]),
        (["SUBSET=mine", "SUBSETS=f"], ["subset=mine", "subsets=f", "-c imagenet --data"]),
    ],
)
def test_make_attacks_within_a_subset(variables: list[str], wanted: list[str]) -> None:
    command = ["make", "-n", "evaluate", "IMAGENET=i", "PINPP=p", "MODEL=m", *variables]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert all(text in done.stdout.replace("'", "") for text in wanted)
    assert "generalisation" not in done.stdout
