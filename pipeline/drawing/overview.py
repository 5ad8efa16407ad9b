"""The README's picture: images, their human parts and their pseudo labels."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from pipeline.drawing.palette import PALETTE, part_colours
from pipeline.drawing.part_overlays import LEGEND_LINE, draw_legend, legend_of, show_parts
from pipeline.drawing.samples import Sample, pick_samples


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
