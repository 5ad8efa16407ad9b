"""One command line for all stages, on Lightning's CLI."""

import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

# Imported so that configurations can name the classes by their bare names.
from datamodules.coco_detection import CocoDetectionDataModule  # noqa: F401
from datamodules.files.errors import MissingInputError, UserError
from datamodules.generalisation import GeneralisationDataModule  # noqa: F401
from datamodules.imagenet_shards import ImageNetShardsDataModule  # noqa: F401
from datamodules.part_detection import PartDetectionDataModule  # noqa: F401
from datamodules.part_supervised import PartSupervisedDataModule  # noqa: F401
from datamodules.robustness import RobustnessDataModule  # noqa: F401
from modules.downstream_detector import DownstreamDetector  # noqa: F401
from modules.generalisation_evaluator import GeneralisationEvaluator  # noqa: F401
from modules.mpm import MPM  # noqa: F401
from modules.part_segmenter import PartSegmenter  # noqa: F401
from modules.pseudo_label_writer import PseudoLabelWriter  # noqa: F401
from modules.robustness_evaluator import RobustnessEvaluator  # noqa: F401
from pipeline.labelling.progress import LabelProgressBar
from pipeline.labelling.shard_callback import closes_run
from pipeline.runs.stage_outputs import (
    StageOutputs,
    is_complete,
    mark_complete,
    plain_config,
    read_manifest,
    refuse_changed_config,
    require_complete,
)

DETECTION = "downstream_detection"  # the one stage without parts
STAGES = (
    "stage1_segmenter",
    "stage2_pseudolabels",
    "stage3_mpm",
    "evaluate",
    "generalisation",
    DETECTION,
)
BASE_CONFIG = Path(__file__).parent.parent / "configs" / "base.yaml"

# Where a stage's configuration names the run folder of the stage before it.
NEEDS = {
    "stage2_pseudolabels": ("model", "segmenter", "make stage1-segmenter"),
    "stage3_mpm": ("data", "labels", "make stage2-pseudolabels"),
}


class StageComplete(Exception):
    """The run folder holds this very stage, complete: there is nothing left to do."""


class PipelineCLI(LightningCLI):
    """LightningCLI with run folders, resume by default and checks before long work.

    Args:
        stage: one of `STAGES`.
        args: arguments of the subcommand, such as `["fit", "-c", "small.yaml"]`.
    """

    def __init__(self, stage: str, args: ArgsType = None) -> None:
        self.stage = stage
        default = {"default_config_files": [str(BASE_CONFIG)]}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=StageOutputs,
            save_config_kwargs={"overwrite": True},
            parser_kwargs=dict.fromkeys(("fit", "validate", "test", "predict"), default),
            args=args,
        )

    @property
    def run_folder(self) -> Path:
        """The run folder, the trainer's `default_root_dir`."""
        return Path(self.config[self.subcommand].trainer.default_root_dir or f"runs/{self.stage}")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hands the module what it must know of the data: parts of objects, classes, groups."""
        facts = ["num_classes" if self.stage == DETECTION else "object_parts"]
        facts += ["groups"] if self.stage == "evaluate" else []
        for fact in facts:
            parser.link_arguments(f"data.{fact}", f"model.init_args.{fact}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Refuses missing inputs and changed settings, and resumes where a run was cut."""
        config = self.config[self.subcommand]
        if self.subcommand == "fit" and config.ckpt_path is None:
            last = self.run_folder / "checkpoints" / "last.ckpt"
            requeued = any(self.run_folder.glob("hpc_ckpt_*.ckpt"))
            config.ckpt_path = "last" if last.is_file() and not requeued else None
        plain = plain_config(self._parser(self.subcommand), config)
        self.again = self.subcommand == "validate" and (self.run_folder / "manifest.json").is_file()
        if self.again:  # what the run left is measured again, whatever the trainer's settings
            if config.ckpt_path is None:
                config.ckpt_path = str(self.run_folder / "checkpoints" / "best.ckpt")
            if not Path(config.ckpt_path).is_file():
                raise MissingInputError(f"{config.ckpt_path} does not exist: run fit first")
            trained = read_manifest(self.run_folder)["config"]
            plain = trained | {part: plain[part] for part in ("model", "data")}
        refuse_changed_config(self.run_folder, plain)
        # a folder that was missing may be there now, and what is done costs nothing
        ended = self.stage != "generalisation"
        if ended and not self.again and is_complete(self.run_folder, config, plain):
            raise StageComplete(self.run_folder)
        if needed := self._earlier_run():
            require_complete(*needed)

    def instantiate_classes(self) -> None:
        """Builds data, module and trainer; the earlier stage must share the vocabulary."""
        super().instantiate_classes()
        if needed := self._earlier_run():
            require_complete(*needed, self.datamodule.vocabulary.content_hash)

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Puts everything a run writes into its run folder."""
        if self.config[self.subcommand].trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(self.run_folder, name="", version="")
        if self.config[self.subcommand].trainer.enable_progress_bar is not False:
            labelling = self.stage == "stage2_pseudolabels"
            bar = LabelProgressBar() if labelling else RichProgressBar()
            self.trainer_defaults["callbacks"] = [bar]
        return super().instantiate_trainer(default_root_dir=str(self.run_folder), **kwargs)

    def _earlier_run(self) -> tuple[Path, str] | None:
        if self.stage not in NEEDS:
            return None
        part, name, command = NEEDS[self.stage]
        value = self.config[self.subcommand][part].init_args.get(name)
        return None if value is None or Path(value).is_file() else (Path(value), command)


def main(args: list[str]) -> PipelineCLI | None:
    """Runs one stage; does nothing, and returns None, if its run folder is complete.

    Args:
        args: stage and arguments of its subcommand, such as
            `["stage3_mpm", "fit", "-c", "configs/stage3_mpm/small.yaml"]`.

    Raises:
        UserError: if the stage is unknown or an input is wrong.
        MissingInputError: if an input is missing.
    """
    if not args or args[0] not in STAGES:
        raise UserError(
            f"unknown stage {args[:1]}: usage is python -m pipeline {{{','.join(STAGES)}}} "
            "{fit,validate,test,predict} -c CONFIG ..."
        )
    torch.set_float32_matmul_precision("high")
    # The stage comes before the arguments that Lightning parses, so both are given.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    # Epoch metrics are combined before they are logged; averaging them again could round them.
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log")
    try:
        cli = PipelineCLI(args[0], args[1:])
    except StageComplete as complete:
        print(f"{complete} is complete; to run it again, give another NAME= or delete the folder")
        return None
    finished = cli.trainer.state.finished and not cli.trainer.interrupted
    if cli.again:  # a fit that was cut stays so
        finished = finished and read_manifest(cli.run_folder)["state"] == "complete"
    if finished and closes_run(cli.trainer) and (cli.run_folder / "manifest.json").is_file():
        mark_complete(cli.run_folder)
    return cli
