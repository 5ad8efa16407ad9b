"""Clean and adversarial example pairs that the evaluation left in `examples.npz`."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from datamodules.evaluation.attack_units import answer_name
from datamodules.files.errors import UserError

DAMAGED = (KeyError, ValueError, OSError, EOFError, IndexError, BadZipFile, ZlibError)


@dataclass(frozen=True)
class ExamplePair:
    """One image before and after an attack.

    Attributes:
        key: `object/file`.
        threat: Name of the threat.
        truth: Object category of the image.
        clean_prediction: Category predicted for the clean image.
        adversarial_prediction: Category predicted for the attacked image.
        clean: uint8 (H, W, 3).
        adversarial: uint8 (H, W, 3).
        difference: Perturbation times `gain` around mid-grey, uint8 (H, W, 3).
        gain: Factor of the difference.
    """

    key: str
    threat: str
    truth: str
    clean_prediction: str
    adversarial_prediction: str
    clean: np.ndarray
    adversarial: np.ndarray
    difference: np.ndarray
    gain: int


def amplified_difference(clean: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, int]:
    """Shows a perturbation around mid-grey, multiplied so that its largest value just fits.

    Args:
        clean: uint8 (H, W, 3).
        adversarial: uint8 (H, W, 3).

    Returns:
        uint8 (H, W, 3) and the factor, at least 1.
    """
    difference = adversarial.astype(np.int32) - clean.astype(np.int32)
    gain = max(1, 127 // max(1, int(np.abs(difference).max())))
    return np.clip(128 + gain * difference, 0, 255).astype(np.uint8), gain


def read_examples(run: Path, limit: int = 8) -> list[ExamplePair]:
    """Reads the example pairs of an evaluation.

    Args:
        run: `evaluate/<model>/` folder.
        limit: At most so many pairs; successful attacks on rightly recognised images come first.

    Returns:
        Pairs; empty when the evaluation left no `examples.npz`.

    Raises:
        UserError: If the file is damaged or lacks an array.
    """
    path = run / "examples.npz"
    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        names = [str(name) for name in arrays["objects"]]
        label, before = arrays["label"], arrays["clean_prediction"]
        after = arrays["adversarial_prediction"]
        fooled = (before == label) & (after != label)
        pairs = []
        for index in np.argsort(~fooled, kind="stable")[:limit]:
            clean, adversarial = arrays["clean"][index], arrays["adversarial"][index]
            difference, gain = amplified_difference(clean, adversarial)
            pairs.append(
                ExamplePair(
                    str(arrays["key"][index]),
                    str(arrays["threat"][index]),
                    names[label[index]],
                    answer_name(names, int(before[index])),
                    answer_name(names, int(after[index])),
                    clean,
                    adversarial,
                    difference,
                    gain,
                )
            )
    except DAMAGED as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run make evaluate again"
        ) from None
    return pairs
