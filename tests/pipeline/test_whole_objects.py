"""Stage 1 with whole objects among its classes, through the command line."""

import json
from pathlib import Path

import pytest
import torch

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.labels.label_set import read_labels
from pipeline.cli import main
from pipeline.report.reading.runs import read_runs
from pipeline.report.segmenter import category_results, object_table
from pipeline.runs.manifest import Manifest
from pipeline.runs.stages import SEGMENTER
from tests.pipeline.commands import stage_args

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
SUFFIXES = ("", "_filtered")
SHORT = ["--trainer.max_steps=2", "--trainer.val_check_interval=2"]


def names(*prefixes: str) -> set[str]:
    return {f"{one}_{name}{suffix}" for one in prefixes for name in FIGURES for suffix in SUFFIXES}


def fit(data: Path, runs: Path, overlay: str, name: str, *args: str) -> Path:
    config = f"-c={SEGMENTER.configs / overlay}.yaml"
    main(stage_args(SEGMENTER.name, data, runs, config, *SHORT, *args, name=name))
    return runs / name


@pytest.fixture(scope="module")
def runs(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint segmenter, where the next stage looks for one, and one of objects alone."""
    folder = tmp_path_factory.mktemp("runs")
    fit(shapes_root, folder, "objects_and_parts", SEGMENTER.name)
    fit(shapes_root, folder, "objects", "stage1_objects")
    return folder


def test_joint_segmenter_from_fit_to_pseudo_labels(
    runs: Path, shapes_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / SEGMENTER.name
    first = json.loads((run / "metrics.json").read_text())
    wanted = names("segm", "object", "detected_object")
    assert wanted <= first.keys()
    content = json.loads((run / "per_category.json").read_text())
    vocabulary = PartVocabulary.load(run / "vocabulary.json")
    assert [f"{row['object']}:{row['part']}" for row in content["parts"]] == [*vocabulary.parts]
    assert [row["object"] for row in content["objects"]] == [*vocabulary.objects]
    assert {*names("object", "detected_object"), "AP_filtered"} <= content["objects"][0].keys()

    config = f"-c={SEGMENTER.configs / 'objects_and_parts'}.yaml"
    again = stage_args(SEGMENTER.name, shapes_root, runs, config)
    again[again.index("fit")] = "validate"
    main(again)
    printed = capsys.readouterr().out
    assert "AP of whole objects" in printed
    lines = [line.split() for line in printed.splitlines()]
    figures = [line[-8:] for line in lines if line[:1] == ["detected"] or line[:1] == ["parts"]]
    assert [row[0] for row in figures] == ["no", "yes", "no", "yes"]
    expected = [100 * first[f"detected_object_{name}_filtered"] for name in FIGURES]
    assert figures[3][1:7] == ["-" if value < 0 else f"{value:.1f}" for value in expected]
    assert {k: first[k] for k in wanted}.items() <= json.loads(
        (run / "metrics.json").read_text()
    ).items()

    for name, filtered in (("stage2_pseudolabels", "true"), ("stage2_unfiltered", "false")):
        threshold = "--model.init_args.score_threshold=0"
        arguments = [threshold, f"--model.init_args.category_filter={filtered}"]
        main(stage_args("stage2_pseudolabels", shapes_root, runs, *arguments, name=name))
        assert Manifest.read(runs / name).is_complete
        rows = list(read_labels(runs / name))
        found = {one.part for row in rows for one in row.instances}
        assert found
        assert found <= set(range(1, vocabulary.num_parts + 1))
        if filtered == "true":
            for row in rows:
                own = set(vocabulary.parts_of(row.label))
                assert {one.part for one in row.instances} <= own


def test_objects_alone_have_figures_of_objects_and_no_labels(runs: Path, shapes_root: Path) -> None:
    run = runs / "stage1_objects"
    metrics = json.loads((run / "metrics.json").read_text())
    assert names("detected_object") <= metrics.keys()
    assert not [name for name in metrics if name.startswith(("segm", "object", "semantic"))]
    content = json.loads((run / "per_category.json").read_text())
    assert content["parts"] == []
    row = content["objects"][0]
    assert names("detected_object") | {"object", "images", "masks"} == row.keys()
    assert row["images"] == row["masks"] > 0

    segmenter = f"--model.init_args.segmenter={run}"
    with pytest.raises(ValueError, match=r"best\.ckpt was trained with whole_objects=alone"):
        main(stage_args("stage2_pseudolabels", shapes_root, runs, segmenter, name="stage2_none"))
    assert not (runs / "stage2_none").exists()


@pytest.mark.parametrize("overlay", ["objects", "objects_and_parts"])
def test_a_checkpoint_of_other_classes_is_refused(
    runs: Path, shapes_root: Path, tmp_path: Path, overlay: str
) -> None:
    other = {"objects": SEGMENTER.name, "objects_and_parts": "stage1_objects"}[overlay]
    file = runs / other / "checkpoints" / "best.ckpt"
    trained = torch.load(file, weights_only=True)["hyper_parameters"]["whole_objects"]
    assert trained == {"objects": "beside_parts", "objects_and_parts": "alone"}[overlay]
    with pytest.raises(ValueError, match=f"trained with whole_objects={trained}"):
        fit(shapes_root, tmp_path, overlay, "other", f"--ckpt_path={file}")


def test_report_shows_both(runs: Path) -> None:
    read = read_runs(runs)
    table = object_table(read.all_segmenter_metrics)
    assert table is not None
    shown = [(row.name, row.detail.split(";")[0]) for row in table.rows[::2]]
    assert shown == [
        ("stage1_objects", "detected"),
        (SEGMENTER.name, "parts united"),
        (SEGMENTER.name, "detected"),
    ]
    assert "finds no parts" in table.reasons
    metrics = read.all_segmenter_metrics["stage1_objects"]
    assert table.rows[1].cells[1].value == 100 * metrics["detected_object_AP50_filtered"]
    (alone,) = category_results(runs / "stage1_objects")
    assert alone.title == "Object categories"
    assert alone.has_values
