from pathlib import Path

from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import LABELS, SEGMENTER


def test_a_stage_is_told_its_folders_and_the_earlier_run() -> None:
    folders = {"imagenet": Path("i"), "pinpp": Path("p")}
    assert stage_command(LABELS, Path("runs/a"), folders, "--x=1", earlier=Path("runs/b")) == [
        "stage2_pseudolabels",
        "predict",
        f"-c={LABELS.configs / 'small.yaml'}",
        "--data.init_args.imagenet=i",
        "--data.init_args.pinpp=p",
        "--model.init_args.segmenter=runs/b",
        "--trainer.default_root_dir=runs/a",
        "--x=1",
    ]


def test_configurations_are_names_of_the_stage_or_files() -> None:
    command = stage_command(SEGMENTER, Path("a"), {}, configs=("small", Path("mine.yaml")))
    assert command == [
        "stage1_segmenter",
        "fit",
        f"-c={SEGMENTER.configs / 'small.yaml'}",
        "-c=mine.yaml",
        "--trainer.default_root_dir=a",
    ]
