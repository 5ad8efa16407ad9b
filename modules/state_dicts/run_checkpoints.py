"""The checkpoints of a run folder: the best, or why there is none, and the one to go on from."""

from pathlib import Path
from pickle import UnpicklingError

import torch

from datamodules.files.errors import MissingInputError, UserError

CHECKPOINTS = "checkpoints"


def best_checkpoint(run: Path, target: str) -> Path:
    """The checkpoint of a run folder that its validations chose.

    Args:
        run: run folder of a training.
        target: the make target that fills it, for the message.

    Raises:
        MissingInputError: if there is none; the message says what can be given in its place.
    """
    best, last = (run / CHECKPOINTS / f"{name}.ckpt" for name in ("best", "last"))
    if best.is_file():
        return best
    if last.is_file():
        raise MissingInputError(
            f"{best} does not exist, as no validation of this run has ended or the file was "
            f"deleted: go on with {target} until one has, or give {last} itself"
        )
    raise MissingInputError(f"{best} does not exist: run {target} first")


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint of a run folder that is furthest on, None where there is none.

    Lightning writes `hpc_ckpt_*.ckpt` as a SLURM job nears its limit and never removes it, so it
    may be older than the last one as well as newer.

    Args:
        run: run folder of a training.

    Raises:
        UserError: if one of them is damaged.
    """
    found = [run / CHECKPOINTS / "last.ckpt", *run.glob("hpc_ckpt_*.ckpt")]
    return max((path for path in found if path.is_file()), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The step after which it was written; the time of a file is lost where folders are copied.

    Args:
        checkpoint: of Lightning.

    Raises:
        UserError: if the file is damaged or holds no state of a training.
    """
    try:  # mapped, as the tensors need not be read
        content = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
        return int(content["global_step"])
    except (KeyError, IndexError, TypeError):
        reason = "it has no global_step"
    except (RuntimeError, EOFError, ValueError, AttributeError, UnpicklingError):
        reason = "it is damaged, or needs code of its author to be read"
    raise UserError(
        f"{checkpoint} holds no state of a training to go on from ({reason}): move it away and "
        "give another checkpoint, such as best.ckpt of the run, by --ckpt_path="
    )
