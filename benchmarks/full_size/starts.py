"""Commands that look at all categories: what their start takes."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.full_size.recipes import BATCH, RECIPES
from benchmarks.full_size.runs import watch
from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import MPM

FIRST = ("import_labels",)  # what stage 3 reads
# what an earlier call left, which would spare a command its work
ANEW = {"import_labels": "labels", "store_anew": "labels/composite", "label_report": "label_report"}
VOCABULARY = """
from pathlib import Path
from datamodules.annotations.part_vocabulary import PartVocabulary
PartVocabulary.from_pinpp(Path("{data}/pinpp"), Path("{data}/imagenet")).object_parts
"""
STORE = """
from pathlib import Path
from datamodules.part_supervised import PartSupervisedDataModule
data = PartSupervisedDataModule(Path("{data}/imagenet"), Path("{data}/pinpp"), Path("{labels}"))
data.prepare_data()
data.setup("fit")
data.train_set[0, 0]
"""
DETECTION_SET = """
from pathlib import Path
from datamodules.part_detection import PartDetectionDataModule
data = PartDetectionDataModule(Path("{data}/imagenet"), Path("{data}/pinpp"))
data.setup("fit")
data.image_counts
"""


def _python(code: str) -> Callable[[Path], list[str]]:
    return lambda out: ["-c", code.format(data=out / "data", labels=out / "runs" / "labels")]


def _data(out: Path) -> list[str]:
    return [f"--imagenet={out / 'data/imagenet'}", f"--pinpp={out / 'data/pinpp'}"]


def _command(name: str, *more: str, written: str = "") -> Callable[[Path], list[str]]:
    """A command on the data set; `written` is what it writes below `runs/`."""

    def arguments(out: Path) -> list[str]:
        given = [one.format(data=out / "data", runs=out / "runs") for one in more]
        if written:
            given.append(f"--out={out / 'runs' / written}")
        return ["-m", "pipeline", name, *_data(out), *given]

    return arguments


def _estimate(out: Path) -> list[str]:
    """Of MPM on a ResNet-50; one step of each kind is timed."""
    folders = {name: out / "data" / name for name in MPM.folders}
    training = stage_command(
        MPM,
        out / "runs" / "estimate",
        folders,
        f"{BATCH}=2",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--data.init_args.num_workers=0",
        configs=RECIPES["mpm_resnet50"].configs,
        earlier=out / "runs" / "labels",
    )
    return ["-m", "pipeline", "estimate", "--steps=1", "--devices=1", *training]


def _report(out: Path) -> list[str]:
    return ["-m", "pipeline", "report", f"--runs={out / 'runs'}", *_data(out)]


STARTS: Mapping[str, Callable[[Path], list[str]]] = {
    "import_labels": _command(
        "import_labels", "--format=coco", "--source={data}/pinpp", "--workers=1", written="labels"
    ),
    "help": lambda out: ["-m", "pipeline", "--help"],
    "vocabulary": _python(VOCABULARY),
    "detection_data": _python(DETECTION_SET),
    "store_anew": _python(STORE),
    "store_again": _python(STORE),
    "check_data": _command("check_data", "--workers=1"),
    "data_statistics": _command("data_statistics", "--workers=1", written="data_statistics"),
    "label_report": _command("label_report", "--labels={runs}/labels", written="label_report"),
    "estimate": _estimate,
    "report": _report,
}


def start(name: str, out: Path, minutes: float, threads: int) -> dict[str, Any]:
    """Runs a command of `STARTS` to its end.

    Args:
        name: of the command.
        out: folder of `data/`, `runs/` and `records/`.
        minutes: after which it is given up.
        threads: that it may use.

    Returns:
        `seconds`, `cpu` in seconds, `peak_gb` and `state`, which is `ended` or what went wrong.
    """
    log = out / "records" / f"{name}.log"
    log.unlink(missing_ok=True)
    if name in ANEW:
        shutil.rmtree(out / "runs" / ANEW[name], ignore_errors=True)
    done = watch(STARTS[name](out), log, minutes=minutes, threads=threads)
    state = done.reason or (f"status {done.status}" if done.status else "ended")
    return {"seconds": done.seconds, "cpu": done.cpu, "peak_gb": done.peak, "state": state}
