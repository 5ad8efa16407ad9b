"""The part segmenter."""

from dataclasses import dataclass

from pipeline.published.paper import PAPER


@dataclass(frozen=True)
class PublishedAP:
    """COCO mask AP of the part segmenter (Table 5, left half).

    Attributes:
        category_filter: Whether the parts of other object categories were ruled out.
        ap: Mask AP averaged over IoU 0.50 to 0.95, percent.
        ap50: Mask AP at IoU 0.50, percent.
        source: Paper and table.
    """

    category_filter: bool
    ap: float
    ap50: float
    source: str


TABLE_5_SEGMENTER = (
    PublishedAP(False, 37.2, 58.6, f"{PAPER}, Table 5"),
    PublishedAP(True, 40.7, 64.4, f"{PAPER}, Table 5"),
)
"""Part segmenter without and with the category filter (Table 5, left half)."""
