"""`metrics.json`: validation metrics of a training's best checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json, write_json

REMEDY = "delete it and measure the run again with the stage's subcommand validate"
FILE = "metrics.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Metrics:
    """What a training reports.

    Attributes:
        values: metrics by name, without the prefix `val/`.
        epoch: of the checkpoint, None where it was measured without a training.
        step: likewise.
    """

    values: dict[str, float]
    epoch: int | None = None
    step: int | None = None

    @classmethod
    def find(cls, run: Path) -> Self | None:
        """The metrics of a run folder, None where nothing was measured yet.

        Raises:
            UserError: if the file is damaged or of another format version.
        """
        path = run / FILE
        if not path.is_file():
            return None
        content = read_json(path, REMEDY)
        version = content.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format {version}, this version of partrobust reads format "
                f"{FORMAT_VERSION}: {REMEDY}"
            )
        epoch, step = content.pop("epoch", None), content.pop("step", None)
        try:
            return cls({name: float(value) for name, value in content.items()}, epoch, step)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}): {REMEDY}") from None

    def write(self, run: Path) -> None:
        """Writes the metrics of a run folder: one flat object, metrics by name."""
        position = {"epoch": self.epoch, "step": self.step}
        known = {name: value for name, value in position.items() if value is not None}
        write_json(run / FILE, {"format_version": FORMAT_VERSION, **self.values, **known})
