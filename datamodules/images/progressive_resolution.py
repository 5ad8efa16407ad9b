"""Crops that grow while a training goes on."""

from dataclasses import dataclass

from datamodules.files.errors import UserError

STRIDE = 32  # of the coarsest features of the usual networks: their cells divide such crops evenly


@dataclass(frozen=True)
class ProgressiveResolution:
    """Side of the training crops as a function of the epoch alone, of a linear ramp.

    Small images first cost a fraction and hardly matter in the end (progressive resizing, Howard
    2018; EfficientNetV2, Tan and Le 2021, §4). Both settings are relative, so that they hold for
    any size of images and length of training.

    Attributes:
        start: side of the first epoch, as a share of the full side, in (0, 1].
        until: fraction of the training at which the ramp reaches the full side, in (0, 1].

    Raises:
        UserError: if either is out of range.
    """

    start: float = 0.5
    until: float = 0.8

    def __post_init__(self) -> None:
        if not (0 < self.start <= 1 and 0 < self.until <= 1):
            raise UserError(
                f"progressive.start={self.start} and progressive.until={self.until} must be above "
                "0 and at most 1"
            )

    def sides(self, full: int, epochs: int | None) -> list[int]:
        """Side of the crops of every epoch in pixels.

        Args:
            full: side at the end.
            epochs: of the whole training.

        Returns:
            The ramp, rounded down to multiples of 32, but 32 at least; `full` from its end on.

        Raises:
            UserError: if the number of epochs is not known.
        """
        if epochs is None or epochs < 1:
            raise UserError(
                "progressive resolution is a course over the epochs: set trainer.max_epochs"
            )
        return [self._side(full, epoch / epochs) for epoch in range(epochs)]

    def _side(self, full: int, progress: float) -> int:
        if progress >= self.until:
            return full
        side = full * (self.start + (1 - self.start) * progress / self.until)
        return min(full, max(STRIDE, int(side) // STRIDE * STRIDE))
