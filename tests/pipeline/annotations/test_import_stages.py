"""Every stage, the evaluation and the report on what `import_parts` writes."""

import json
from pathlib import Path

import pytest

from pipeline.annotations.import_parts import main
from pipeline.cli import main as run_stage
from pipeline.report.build import build_report
from tests.datamodules.annotations.part_sources import panoptic_source, pascal_source
from tests.pipeline.annotations.test_import_part_imagenet import coco_of
from tests.pipeline.commands import stage_args


@pytest.mark.parametrize("annotation_format", ["pascal_part", "panoptic_parts", "part_imagenet"])
def test_all_stages_run_on_an_import(
    annotation_format: str,
    shapes_root: Path,
    tmp_path: Path,
) -> None:
    source, options = tmp_path / "source", ["--workers", "1", "--min_pixels", "20"]
    if annotation_format == "part_imagenet":
        source.mkdir()
        coco_of(shapes_root, source / "train.json")
        options = ["--imagenet", str(shapes_root / "imagenet")]
    else:
        (pascal_source if annotation_format == "pascal_part" else panoptic_source)(source)
    out, runs = tmp_path / "out", tmp_path / "runs"
    command = [annotation_format, "--source", str(source), "--out", str(out), *options]
    main(["import_parts", *command])
    val = out / "val_parts"
    for stage in ("stage1_segmenter", "stage2_pseudolabels", "stage3_mpm"):
        with_val = stage == "stage1_segmenter" and val.is_dir()
        given = [f"--data.init_args.pinpp_val={val}"] if with_val else []
        run_stage(stage_args(stage, out, runs, *given))
        manifest = json.loads((runs / stage / "manifest.json").read_text())
        assert manifest["state"] == "complete"
    run_stage(stage_args("evaluate", out, runs, name="evaluate/stage3_mpm"))
    page = build_report(runs, imagenet=out / "imagenet", pinpp=out / "pinpp").read_text()
    assert 'alt="Robust against clean accuracy' in page
