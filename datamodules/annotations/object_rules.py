"""Which annotated objects become images of their own, and which pixels those show."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from datamodules.annotations.object_parts import AnnotatedObject, Box
from datamodules.annotations.part_grouping import PartGrouping
from datamodules.files.errors import UserError

Dropped = Counter[tuple[str, str]]
"""How often something was left out, by reason and name."""


class ChosenObject(NamedTuple):
    """An object and the window of its image that is kept."""

    found: AnnotatedObject
    window: Box


@dataclass(frozen=True)
class ObjectRules:
    """How the objects of an image become images of one object each.

    Attributes:
        objects: `crop` makes every object an image; `largest` keeps images whole, with the parts
            of their largest object.
        margin: around the box of a crop, as a share of its longer side; it ends at the border.
        square: widen a crop to a square, as far as the image goes.
        min_pixels: objects of fewer pixels are dropped.
        max_other: an object is dropped when objects of other categories cover more than this share
            of its own pixels within its box; None keeps it.

    Raises:
        UserError: if a value is out of its range.
    """

    objects: Literal["crop", "largest"]
    margin: float
    square: bool
    min_pixels: int
    max_other: float | None

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise UserError(f"margin is {self.margin}: it is a share of the box, 0 or more")
        if self.min_pixels < 1:
            raise UserError(f"min_pixels is {self.min_pixels}: it must be 1 or more")
        if self.max_other is not None and not self.max_other >= 0:
            raise UserError(f"max_other is {self.max_other}: it is a share, 0 or more")

    def choose(
        self,
        objects: Sequence[AnnotatedObject],
        height: int,
        width: int,
        grouping: PartGrouping | None = None,
    ) -> tuple[list[ChosenObject], Dropped]:
        """Applies the grouping and the rules to all objects of an image.

        Args:
            objects: as annotated.
            height: of the image in pixels.
            width: the same.
            grouping: coarse categories and parts; None keeps those of the annotation.

        Returns:
            The objects that are kept, and the count of those dropped: every object is in one of
            them. Reasons are `no_instance`, `not_largest`, `class_not_in_grouping`, `too_small`,
            `no_parts` and `covered_by_others`; besides, masks of parts are counted as
            `part_not_in_grouping`.
        """
        dropped: Dropped = Counter()
        named = [one if grouping is None else grouping.rename(one) for one in objects]
        single = [one for one in named if one.single]
        largest = max(single, key=lambda one: one.pixels, default=None)
        chosen = []
        for one in named:
            if not one.single:
                dropped["no_instance", one.name] += 1
                continue
            if self.objects == "largest" and one is not largest:
                dropped["not_largest", one.name] += 1
                continue
            if grouping is not None:
                if one.name not in grouping.objects:
                    dropped["class_not_in_grouping", one.name] += 1
                    continue
                one, unknown = grouping.merge_parts(one)
                dropped.update(("part_not_in_grouping", name) for name in unknown)
            reason = self._reason_against(one, named)
            if reason:
                dropped[reason, one.name] += 1
            elif self.objects == "largest":
                chosen.append(ChosenObject(one, Box(0, 0, width, height)))
            else:
                chosen.append(ChosenObject(one, self.window(one.box, height, width)))
        return chosen, dropped

    def window(self, box: Box, height: int, width: int) -> Box:
        """The crop around a box in an image of the given size; it always holds the box."""
        pad = round(self.margin * max(box.width, box.height))
        across, down = box.width + 2 * pad, box.height + 2 * pad
        if self.square:
            across = down = max(across, down)
            left = _shifted(box.left + box.right, across, width)
            top = _shifted(box.top + box.bottom, down, height)
        else:
            left, top = box.left - pad, box.top - pad
        window = Box(left, top, left + across, top + down)
        return window.overlap(Box(0, 0, width, height))

    def _reason_against(self, one: AnnotatedObject, others: Sequence[AnnotatedObject]) -> str:
        if one.pixels < self.min_pixels:
            return "too_small"
        if not any(mask.any() for _, mask in one.parts):
            return "no_parts"
        if self.max_other is not None:
            foreign = (other for other in others if other.name != one.name)
            covered = sum(_pixels_in(other, one.box) for other in foreign)
            if covered > self.max_other * one.pixels:
                return "covered_by_others"
        return ""


def _shifted(twice_centre: int, length: int, side: int) -> int:
    """Start of a stretch around a centre, moved so that it stays within `0..side` if it can."""
    return min(max((twice_centre - length) // 2, 0), max(side - length, 0))


def _pixels_in(one: AnnotatedObject, box: Box) -> int:
    return int(one.mask[one.box.overlap(box).within(one.box).slices].sum())
