"""What the calls of a long attack found, kept on disk, so that a unit that was cut goes on."""

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor

from datamodules.files.atomic_files import written_whole


class KeptCalls:
    """Results of the calls that an attack consists of, in their order.

    Of a call only the images that it broke are kept: a standing one is judged the same unchanged.

    Args:
        folder: of these calls alone; made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, number: int, images: Tensor, labels: Tensor) -> Tensor | None:
        """What call `number` returned for these images, None where it is not known.

        Args:
            number: of the call, from 0 on.
            images: that it attacked, `(B, 3, H, W)`.
            labels: their classes `(B,)`.

        Returns:
            Images `(B, 3, H, W)`, adversarial where the call broke them, else as given.
        """
        try:
            kept = torch.load(self._file(number), weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None  # none, or cut: the call is made again
        if kept["of"] != _digest(images, labels):
            return None
        found = images.clone()
        found[kept["broken"].to(images.device)] = kept["adversarial"].to(images.device)
        return found

    def keep(
        self, number: int, images: Tensor, labels: Tensor, found: Tensor, broken: Tensor
    ) -> None:
        """Keeps the result of a call.

        Args:
            number: of the call.
            images: that it attacked, `(B, 3, H, W)`.
            labels: their classes `(B,)`.
            found: what it returned, `(B, 3, H, W)`.
            broken: which of these the network gets wrong, bool `(B,)`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "of": _digest(images, labels),
            "broken": broken.cpu(),
            "adversarial": found[broken].detach().cpu().clone(),
        }
        with written_whole(self._file(number)) as partial:
            torch.save(content, partial)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.pt"


def _digest(images: Tensor, labels: Tensor) -> str:
    content = hashlib.sha256(images.detach().cpu().contiguous().numpy().tobytes())
    content.update(labels.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
