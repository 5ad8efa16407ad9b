"""COCO box AP with pycocotools, gathered over processes."""

from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from modules.metrics.all_ranks import from_all_ranks

Record = tuple[dict[str, Tensor], dict[str, Tensor]]


class BoxAP:
    """Box AP and AP50 of a detector, the same on all processes and for any number of them.

    torchmetrics gathers image by image and waits for ever when processes hold different numbers
    of images, so images are gathered here and handed to it at once.
    """

    def __init__(self) -> None:
        self.reset()

    def __len__(self) -> int:
        """Images of this process."""
        return len(self.images)

    def reset(self) -> None:
        """Forgets all images."""
        self.images: dict[str, Record] = {}

    def update(self, key: str, truth: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        """Adds one image; an image that is already there is replaced.

        Args:
            key: name of the image.
            truth: `boxes (N, 4)` as x1, y1, x2, y2, `labels (N,)`, `iscrowd (N,)` in {0, 1}.
            found: `boxes (M, 4)`, `labels (M,)`, `scores (M,)`.
        """
        names = ("boxes", "labels", "scores")
        self.images[key] = (
            {name: value.detach().cpu() for name, value in truth.items()},
            {name: found[name].detach().cpu() for name in names},
        )

    def compute(self) -> dict[str, float]:
        """`AP` and `AP50` in [0, 1], -1 without ground truth, and `images`.

        All processes must call it.
        """
        return from_all_ranks(self.images, _combine)


def _combine(shards: list[dict[str, Record]]) -> dict[str, float]:
    merged = {key: record for shard in shards for key, record in shard.items()}
    metric = MeanAveragePrecision(sync_on_compute=False)
    metric.warn_on_many_detections = False
    for key in sorted(merged):  # equal scores keep this order
        truth, found = merged[key]
        metric.update([found], [truth])
    values = metric.compute() if merged else {"map": -1.0, "map_50": -1.0}
    return {
        "AP": float(values["map"]),
        "AP50": float(values["map_50"]),
        "images": float(len(merged)),
    }
