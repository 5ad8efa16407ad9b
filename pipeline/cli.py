"""One command line for all stages, on Lightning's CLI."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from datamodules.files.errors import MissingInputError, UserError
from modules.state_dicts.finite import NotFiniteError
from modules.state_dicts.run_checkpoints import (
    CHECKPOINTS,
    best_checkpoint,
    newest_checkpoint,
    step_of,
)
from pipeline import named_classes  # noqa: F401
from pipeline.configs import resolve_configs
from pipeline.labelling.progress import LabelProgressBar
from pipeline.labelling.shard_callback import closes_run
from pipeline.runs.finite_training import FiniteTraining
from pipeline.runs.global_batch import SameGlobalBatch
from pipeline.runs.manifest import Manifest, mark_complete, require_complete
from pipeline.runs.process_state import trained_products
from pipeline.runs.settings import is_done, plain_config, refuse_changed_config
from pipeline.runs.stage_outputs import StageOutputs
from pipeline.runs.stages import CONFIGS, MPM, STAGES, Stage
from pipeline.runs.trainer_settings import (
    numbers_of_batches,
    out_of_time,
    refuse_sync_on_cpus,
    refuse_unsuited,
)
from pipeline.validation.overfitting_watch import OverfittingWatch

BARS = {"batches": RichProgressBar, "labels": LabelProgressBar}


class StageComplete(Exception):
    """The run folder holds this very stage, complete: there is nothing left to do."""


class PipelineCLI(LightningCLI):
    """LightningCLI with run folders, resume by default and checks before long work.

    Args:
        stage: a row of the table of stages.
        args: arguments of the subcommand, such as `["fit", "-c", "small"]`.
    """

    def __init__(self, stage: Stage, args: Sequence[str]) -> None:
        self.stage = stage
        self.limits = numbers_of_batches(args)
        files = [str(CONFIGS / "base.yaml"), str(stage.configs / "defaults.yaml")]
        default = {"default_config_files": files}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=StageOutputs,
            save_config_kwargs={"save_to_log_dir": False},
            parser_kwargs={
                "prog": f"python -m pipeline {stage.name}",
                **dict.fromkeys(("fit", "validate", "test", "predict"), default),
            },
            args=resolve_configs(stage, args),
        )

    @property
    def run_folder(self) -> Path:
        """The run folder, the trainer's `default_root_dir`."""
        given = self.config[self.subcommand].trainer.default_root_dir
        return Path(given or f"runs/{self.stage.name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Looks at what Lightning takes the settings of a `ckpt_path` over, and at that file."""
        super().parse_arguments(parser, args)
        self.classes_asked = self._classes()
        _require_checkpoint(self.config[self.config.subcommand].ckpt_path)

    def _classes(self) -> str | None:
        """Whether whole objects are among a segmenter's classes; None in all other stages."""
        model = self.config[self.config.subcommand].model
        return (model.get("init_args") or {}).get("whole_objects")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hands the module what it must know of the data, and names the checkpoints."""
        for fact in self.stage.handed_over:
            parser.link_arguments(f"data.{fact}", f"model.init_args.{fact}", apply_on="instantiate")
        if self.stage.trains:
            for name in ("best", "last"):  # the next stage reads checkpoints/best.ckpt
                key = f"{name}_checkpoint"
                parser.add_lightning_class_args(ModelCheckpoint, key)
                fixed = {"filename": name, "mode": "max", "enable_version_counter": False}
                parser.set_defaults({f"{key}.{k}": value for k, value in fixed.items()})
            parser.add_argument(
                "--ema_decay",
                type=float | None,
                default=None,
                help="decay of the weights' average, which is validated and kept; null for none",
            )

    def before_instantiate_classes(self) -> None:
        """Refuses missing inputs and changed settings."""
        config = self.config[self.subcommand]
        assert self.subcommand is not None
        for name, batches in self.limits.items():
            config.trainer[name] = batches
        refuse_unsuited(self.stage, self.subcommand, config.trainer)
        if (trained := self._classes()) != (asked := self.classes_asked):
            raise UserError(
                f"{config.ckpt_path} was trained with whole_objects={trained or 'null'}, asked for "
                f"is {asked or 'null'}: give its configuration, or another checkpoint"
            )
        plain = plain_config(self._parser(self.subcommand), config)
        begun = Manifest.find(self.run_folder)
        self.again = self.subcommand == "validate" and begun is not None
        if self.again:  # what the run left is measured again, whatever the trainer's settings
            assert begun is not None
            if config.ckpt_path is None:
                config.ckpt_path = str(best_checkpoint(self.run_folder, self.stage.target))
            plain = begun.config | {part: plain[part] for part in ("model", "data")}
        # of one process: SameGlobalBatch keeps that of all
        free = ("data.init_args.batch_size",) if self.stage.trains else ()
        refuse_changed_config(self.run_folder, plain, free)
        if not self.stage.repeatable and not self.again and is_done(self.run_folder, plain):
            raise StageComplete(self.run_folder)
        if earlier := self._earlier_run():
            require_complete(*earlier)

    def instantiate_classes(self) -> None:
        """Builds data, module and trainer; the earlier stage must share the vocabulary."""
        super().instantiate_classes()
        self.require_writer()
        if self.subcommand == "fit":
            converts = bool(self.config[self.subcommand].trainer.sync_batchnorm)
            refuse_sync_on_cpus(self.model, self.trainer, converts)
        if earlier := self._earlier_run():
            require_complete(*earlier, self.datamodule.vocabulary.content_hash)

    def require_writer(self) -> None:
        """Refuses a trainer without the callback that writes what the stage is run for."""
        kinds = {kind.__name__ for one in self.trainer.callbacks for kind in type(one).__mro__}  # type: ignore[attr-defined]
        if self.stage.writer not in kinds:
            raise UserError(
                f"trainer.callbacks lacks {self.stage.writer}, which writes the results of "
                f"{self.stage.name}: add it, or add yours with --trainer.callbacks+="
            )

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Puts everything a run writes into its run folder."""
        config = self.config[self.subcommand]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(self.run_folder, name="", version="")
        if config.trainer.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"] = [BARS[self.stage.bar]()]
        kwargs |= {"default_root_dir": str(self.run_folder), **self.limits}
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                # Lightning would take the logger's folder
                callback.dirpath = str(self.run_folder / CHECKPOINTS)
        if self.stage is MPM:
            trainer.callbacks.insert(0, OverfittingWatch())  # type: ignore[attr-defined]
        self.finite = FiniteTraining()
        if self.stage.trains:  # before all others, which so see no state that is not finite
            trainer.callbacks[:0] = [self.finite, SameGlobalBatch()]  # type: ignore[attr-defined]
        if (decay := config.get("ema_decay")) is not None:
            # before all others, so that they see the average in validation
            trainer.callbacks.insert(0, EMAWeightAveraging(decay=decay))  # type: ignore[attr-defined]
        return trainer

    def before_fit(self) -> None:
        """Goes on where the run was cut, which the settings that it keeps do not say."""
        config = self.config_init["fit"]
        dry = bool(config.trainer.fast_dev_run)  # leaves a run as it is, and begins anew
        if config.ckpt_path is None and not dry and (newest := newest_checkpoint(self.run_folder)):
            config.ckpt_path = str(newest)

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs it; a network that gives up in a fit is told as any other that diverged."""
        try:
            super()._run_subcommand(subcommand)
        except (NotFiniteError, FloatingPointError) as error:  # the latter is detectron2's
            if subcommand != "fit" or not self.trainer.optimizers:
                raise
            what = error.what if isinstance(error, NotFiniteError) else str(error).rstrip(".")
            raise self.finite.error(self.trainer, what) from error

    def _earlier_run(self) -> tuple[Path, str] | None:
        earlier = self.stage.earlier
        if earlier is None or not earlier.own_only:
            return None
        value = self.config[self.subcommand].get(earlier.setting)
        return None if value is None or Path(value).is_file() else (Path(value), earlier.target)


def _require_checkpoint(path: str | None) -> None:
    """Refuses a checkpoint file that does not exist or is none, before Lightning stumbles on it."""
    if not path or path in ("best", "last", "hpc"):
        return
    if not Path(path).is_file():
        raise MissingInputError(f"ckpt_path {path} does not exist: give another checkpoint file")
    step_of(Path(path))


def main(args: list[str]) -> PipelineCLI | None:
    """Runs one stage; does nothing, and returns None, if its run folder is complete.

    Args:
        args: stage and arguments of its subcommand, such as
            `["stage3_mpm", "fit", "-c", "small"]`.

    Raises:
        UserError: if the stage is unknown or an input is wrong.
        MissingInputError: if an input is missing.
    """
    if not args or args[0] not in STAGES:
        raise UserError(f"no stage {' '.join(args[:1])}: give one of {', '.join(STAGES)}")
    stage = STAGES[args[0]]
    # what is measured is the model's as it is, not rounded
    products = nullcontext() if args[1:2] in (["test"], ["validate"]) else trained_products()
    with products, warnings.catch_warnings():
        return _run(stage, args[1:])


def _run(stage: Stage, args: list[str]) -> PipelineCLI | None:
    # The stage comes before the arguments that Lightning parses, so both are given.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    # Epoch metrics are combined before they are logged; averaging them again could round them.
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log")
    try:
        cli = PipelineCLI(stage, args)
    except StageComplete as complete:
        print(f"{complete} is complete; to run it again, give another NAME= or delete the folder")
        return None
    finished = cli.trainer.state.finished and not cli.trainer.interrupted
    finished = finished and not cli.trainer.fast_dev_run  # type: ignore[attr-defined]
    if finished and out_of_time(cli.trainer):
        finished = False
        print(f"{cli.run_folder} ran out of trainer.max_time: the same command with more goes on")
    manifest = Manifest.find(cli.run_folder)
    if cli.again:  # a fit that was cut stays so
        finished = finished and manifest is not None and manifest.is_complete
    if finished and manifest is not None and closes_run(cli.trainer):
        mark_complete(cli.run_folder)
    return cli
