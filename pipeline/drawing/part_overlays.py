"""Part masks drawn over images: for the report, TensorBoard and the README."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from pipeline.drawing.palette import PALETTE, hex_colour, part_colours
from pipeline.drawing.samples import Sample, pick_samples

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


def _draw_overview(
    samples: Sequence[Sample], vocabulary: PartVocabulary, colours: np.ndarray, side: int
) -> Image.Image:
    """Draws one column an image: as it is, with human parts, with pseudo labels, legend."""
    rows = ["image", "human parts"]
    if any(sample.pseudo is not None for sample in samples):
        rows.append("pseudo labels")
    legends = [legend_of([one.human, one.pseudo], vocabulary, colours) for one in samples]
    lines = max(len(legend) for legend in legends)
    gap, margin, title = 6, 20, 18
    height = title + len(rows) * (side + gap) + lines * LEGEND_LINE
    canvas = Image.new("RGB", (margin + len(samples) * (side + gap), height), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    for row, name in enumerate(rows):
        strip = Image.new("RGB", (side, margin), "white")
        ImageDraw.Draw(strip).text((side // 2, 2), name, fill="black", font=font, anchor="ma")
        canvas.paste(strip.rotate(90, expand=True), (0, title + row * (side + gap)))
    for column, (sample, legend) in enumerate(zip(samples, legends, strict=True)):
        left = margin + column * (side + gap)
        name = sample.key.split("/", 1)[0]
        draw.text((left + side // 2, 2), name, fill="black", font=font, anchor="ma")
        for row, mask in enumerate((None, sample.human, sample.pseudo)[: len(rows)]):
            drawn = Image.fromarray(show_parts(sample.image, mask, colours, side))
            corner = (left + (side - drawn.width) // 2, title + row * (side + gap))
            canvas.paste(drawn, corner)
        bottom = title + len(rows) * (side + gap)
        canvas.paste(Image.fromarray(draw_legend(legend, side, lines)), (left, bottom))
    return canvas


def _reduce_colours(picture: Image.Image) -> Image.Image:
    """Reduces a picture to 256 colours, those of the legend exactly among them."""
    kept = [(0, 0, 0), (255, 255, 255), *PALETTE.tolist()]
    free = picture.quantize(256 - len(kept)).getpalette() or []
    table = Image.new("P", (1, 1))
    table.putpalette([*(value for colour in kept for value in colour), *free][: 3 * 256])
    return picture.quantize(palette=table, dither=Image.Dither.NONE)


def write_overview(
    imagenet: Path,
    pinpp: Path,
    out: Path = Path("docs/overview.png"),
    labels: Path | None = None,
    *,
    num_images: int = 6,
    max_bytes: int = 300_000,
) -> Path:
    """Writes the README's picture: images with human parts, pseudo labels and a legend.

    Args:
        imagenet: Folder with `train/`.
        pinpp: Folder with `json/`.
        out: PNG file to write.
        labels: Run folder of stage 2; without it there is no row of pseudo labels.
        num_images: How many objects are shown, one image each.
        max_bytes: The picture is drawn smaller until the file is no larger than this.

    Returns:
        `out`.

    Raises:
        MissingInputError: If a folder is missing.
        UserError: If there is no annotated image to show.
    """
    vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
    samples = pick_samples(
        imagenet, pinpp, vocabulary, labels, num_objects=num_images, unannotated=0
    )
    if not samples:
        raise UserError(f"{pinpp}: no annotated image to show; is json/ empty?")
    colours = part_colours(vocabulary)
    out.parent.mkdir(parents=True, exist_ok=True)
    for side in (192, 160, 144, 128, 112, 96, 80, 64):
        picture = _reduce_colours(_draw_overview(samples, vocabulary, colours, side))
        buffer = BytesIO()
        picture.save(buffer, format="png", optimize=True)
        if buffer.tell() <= max_bytes:
            break
    out.write_bytes(buffer.getvalue())
    return out
