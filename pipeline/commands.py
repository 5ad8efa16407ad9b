"""The commands of `python -m pipeline`, imported only when they are called."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pipeline.runs.stages import STAGES


@dataclass(frozen=True)
class Command:
    """A program of the project.

    Attributes:
        function: `module:function`; its signature and docstring are the command's flags and help.
        help: what it does, one line.
        takes_args: the function parses the command line itself, the command's name first.
        stopped: what is said when the user interrupts it; None leaves the traceback.
    """

    function: str
    help: str
    takes_args: bool = False
    stopped: str | None = None

    def load(self) -> Callable[..., Any]:
        """Imports the function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


GOES_ON = "stopped; the same command goes on"
GROUPS = {
    "stages (fit, validate, test or predict -c CONFIG ...)": {
        stage.name: Command("pipeline.cli:main", stage.help, takes_args=True)
        for stage in STAGES.values()
    },
    "data": {
        "check_data": Command(
            "pipeline.annotations.check_data:main",
            "every problem in images and annotations; status 1 if training would be affected",
            stopped="stopped",
        ),
        "sort_val": Command(
            "pipeline.annotations.sort_val:main",
            "ImageNet's val as unpacked into class folders",
            stopped=GOES_ON,
        ),
        "data_statistics": Command(
            "pipeline.annotations.statistics:main",
            "counts and density beside the paper",
            stopped="stopped",
        ),
        "compare_annotations": Command(
            "pipeline.annotations.compare_annotations:main", "two annotations of the same images"
        ),
        "import_parts": Command(
            "pipeline.annotations.import_parts:main",
            "Pascal-Part, Cityscapes Panoptic Parts or PartImageNet as PIN++ layout",
            takes_args=True,
            stopped="stopped; nothing was written",
        ),
        "tiny_imagenet": Command(
            "pipeline.annotations.tiny_imagenet:main", "T-PIN++ from ImageNet and Tiny-ImageNet"
        ),
        "resize_images": Command(
            "pipeline.annotations.resize_images:main",
            "smaller training images, faster to load",
            stopped=GOES_ON,
        ),
        "part_shapes": Command(
            "datamodules.part_shapes.part_shapes:render_part_shapes",
            "render a small data set of parts",
        ),
    },
    "labels": {
        "label_report": Command(
            "pipeline.label_report.build:main", "pseudo labels against people's, as a page"
        ),
        "label_quality": Command("pipeline.labelling.quality:main", "mean IoU of pseudo labels"),
        "score_segmenter": Command(
            "pipeline.scoring.score_segmenter:score_segmenter",
            "any segmenter's results against people's masks",
        ),
        "export_labels": Command(
            "pipeline.labelling.export_labels:main", "pseudo labels as COCO or PNG"
        ),
        "import_labels": Command(
            "pipeline.labelling.import_labels:main", "labels made elsewhere, for stage 3"
        ),
    },
    "models": {
        "export_model": Command("pipeline.export.export_model:main", "timm, ONNX or torch.export"),
        "compare": Command(
            "pipeline.evaluation.compare_outcomes:main", "two evaluations side by side"
        ),
        "few_shot": Command(
            "pipeline.few_shot.program:main",
            "few-shot classification on frozen features",
            stopped=GOES_ON,
        ),
        "human_alignment": Command(
            "pipeline.evaluation.human_alignment:main", "models beside people's decisions"
        ),
        "estimate": Command(
            "pipeline.estimate.program:main", "hours and days of a training", takes_args=True
        ),
    },
    "reports": {
        "demo": Command("pipeline.demo:demo", "the whole pipeline on rendered images"),
        "study": Command(
            "pipeline.study.program:main",
            "rows of the tables over several seeds",
            stopped=GOES_ON,
        ),
        "report": Command("pipeline.report.build:build_report", "one HTML page of all runs"),
        "deploy": Command(
            "pipeline.report.deploy.build:deploy", "which evaluated model to deploy, as a page"
        ),
        "browse": Command(
            "pipeline.browse.build:main",
            "a page to look through the images of an evaluation",
            takes_args=True,
            stopped=GOES_ON,
        ),
        "overview": Command(
            "pipeline.drawing.overview:write_overview", "picture of images and their parts"
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def usage() -> str:
    """What `python -m pipeline --help` prints: all commands by group."""
    lines = ["usage: python -m pipeline COMMAND ...  (COMMAND --help lists its options)"]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:22}{command.help}" for name, command in commands.items()]
    return "\n".join(lines)
