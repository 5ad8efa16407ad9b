"""COCO box AP of one detector."""

from torch import Tensor

from modules.metrics.coco_ap import CocoAP


class BoxAP:
    """Box AP and AP50 of a detector, the same on all processes and for any number of them."""

    def __init__(self) -> None:
        self._metric = CocoAP(("",), "bbox")

    def __len__(self) -> int:
        """Images of this process."""
        return len(self._metric.images)

    def reset(self) -> None:
        """Forgets all images."""
        self._metric.reset()

    def update(self, key: str, truth: dict[str, Tensor], predictions: dict[str, Tensor]) -> None:
        """Adds one image; an image that is already there is replaced.

        Args:
            key: name of the image.
            truth: `boxes (N, 4)` as x1, y1, x2, y2, `labels (N,)`, `iscrowd (N,)` in {0, 1}.
            predictions: `boxes (M, 4)`, `labels (M,)`, `scores (M,)`.
        """
        self._metric.update(key, truth, {"": predictions})

    def compute(self) -> dict[str, float]:
        """`AP` and `AP50` in [0, 1], -1 without ground truth, and `images`.

        All processes must call it.
        """
        metrics = self._metric.compute()[""]
        summary = metrics.summary()
        return {"AP": summary.AP, "AP50": summary.AP50, "images": float(metrics.num_images)}
