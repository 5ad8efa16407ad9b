"""Part masks drawn over images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from pipeline.drawing.palette import hex_colour

LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)  # ITU-R BT.601
GREY_FLOOR = 80  # black under the paint would make every colour muddy
OUTLINE = np.array((255, 255, 255), dtype=np.uint8)
LEGEND_LINE = 18


def outline(mask: np.ndarray) -> np.ndarray:
    """Finds the inner border pixels of every labelled region.

    Args:
        mask: Part ids, int (H, W), 0 = background.

    Returns:
        bool (H, W), True on labelled pixels with another label above, below, left or right.
    """
    padded = np.pad(mask, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    differs = np.logical_or.reduce([mask != neighbour for neighbour in neighbours])
    return differs & (mask > 0)


def overlay(
    image: np.ndarray, mask: np.ndarray, colours: np.ndarray, alpha: float = 0.55
) -> np.ndarray:
    """Paints part labels over an image, with a one-pixel outline.

    Under the paint the image is a light grey, so that only the part decides the hue and the
    legend can be read off. Regions too thin to have an inside are painted solid instead.

    Args:
        image: Pixels, uint8 (H, W, 3).
        mask: Part ids, int (H, W), 0 = background.
        colours: Colours by part id, uint8 (K + 1, 3).
        alpha: Opacity of the paint, 0 to 1.

    Returns:
        uint8 (H, W, 3), a new array.

    Raises:
        UserError: If image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise UserError(f"mask {mask.shape} does not fit image {image.shape[:2]}")
    grey = GREY_FLOOR + (1 - GREY_FLOOR / 255) * (image @ LUMA)[..., None]
    blended = (1 - alpha) * grey + alpha * colours[mask]
    painted = np.where(mask[..., None] > 0, blended.round().astype(np.uint8), image)
    border = outline(mask)
    around = np.pad((mask > 0) & ~border, 1)
    rows, columns = mask.shape
    near_inside = np.logical_or.reduce(
        [around[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    )
    painted[border & near_inside] = OUTLINE
    thin = border & ~near_inside
    painted[thin] = colours[mask[thin]]
    return painted


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes pixels smoothly and part ids to the nearest, to `size` = (height, width).

    Args:
        image: uint8 (H, W, 3) pixels or int (H, W) part ids.
        size: Height and width wanted, in pixels.

    Returns:
        An array of the same kind.
    """
    height, width = size
    if image.ndim == 2:
        ids = Image.fromarray(image.astype(np.int32))
        return np.array(ids.resize((width, height), Image.Resampling.NEAREST))
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def show_parts(
    image: np.ndarray, mask: np.ndarray | None, colours: np.ndarray, side: int
) -> np.ndarray:
    """Draws an image, with its parts where there are any, with its longer side at `side` pixels.

    Resizing comes first, so that outlines stay one pixel wide.
    """
    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    resized = resize(image, size)
    return resized if mask is None else overlay(resized, resize(mask, size), colours)


def legend_of(
    masks: Sequence[np.ndarray | None], vocabulary: PartVocabulary, colours: np.ndarray
) -> list[tuple[str, str]]:
    """Lists the parts that are visible in any of the masks.

    Returns:
        (part name, colour as `#rrggbb`) in the order of part ids; the name carries its object
        where parts of several objects are visible.
    """
    seen = {int(part) for mask in masks if mask is not None for part in np.unique(mask)} - {0}
    names = {part: vocabulary.parts[part - 1] for part in sorted(seen)}
    one_object = len({name.split(":", 1)[0] for name in names.values()}) == 1
    return [
        (name.split(":", 1)[1] if one_object else name, hex_colour(colours[part]))
        for part, name in names.items()
    ]


def draw_legend(entries: Sequence[tuple[str, str]], width: int, lines: int) -> np.ndarray:
    """Draws a legend, one part a line: a swatch and the part's name.

    Args:
        entries: Names and colours as `legend_of` gives them.
        width: Width in pixels.
        lines: Height in lines of `LEGEND_LINE` pixels.

    Returns:
        uint8 (lines * LEGEND_LINE, width, 3), white ground.
    """
    picture = Image.new("RGB", (width, lines * LEGEND_LINE), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=12)
    for line, (name, colour) in enumerate(entries[:lines]):
        top = line * LEGEND_LINE
        draw.rectangle((4, top + 4, 14, top + 14), fill=colour)
        draw.text((20, top + 2), name, fill="black", font=font)
    return np.array(picture)
