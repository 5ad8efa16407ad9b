"""IoU of label maps, pixels pooled over images."""

import numpy as np


def pixel_counts(truth: np.ndarray, guess: np.ndarray, size: int) -> np.ndarray:
    """Pixels of each id in one image: int64 `(3, size)`, where both agree, of `guess`, of `truth`.

    Args:
        truth: ids `(H, W)`, 0 to `size - 1`.
        guess: likewise.
        size: number of ids, the background's 0 included.
    """
    maps = truth[truth == guess], guess, truth
    return np.stack([np.bincount(ids.ravel(), minlength=size) for ids in maps])


def iou_by_part(overlap: np.ndarray, guessed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """IoU in [0, 1] of each id `(size,)`; NaN for the background and ids that the truth lacks.

    Args:
        overlap: pixels by id that both maps give it, `(size,)`; position 0 is the background.
        guessed: pixels that the guess gives it.
        true: pixels that the truth gives it.
    """
    iou = np.full(len(true), np.nan)
    shown = np.flatnonzero(true[1:]) + 1
    iou[shown] = overlap[shown] / (guessed + true - overlap)[shown]
    return iou
