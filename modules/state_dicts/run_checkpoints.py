"""The best checkpoint of a run folder, or why there is none and what to do."""

from pathlib import Path

from datamodules.files.errors import MissingInputError

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
