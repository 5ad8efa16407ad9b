"""Part masks drawn over images: for the report, TensorBoard and the README.

`python -m pipeline.report.figures --imagenet DIR --pinpp DIR --labels RUN --out docs/overview.png`
writes the overview picture.
"""

import argparse
import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datamodules.part_vocabulary import PartVocabulary
from pipeline.report.samples import Sample, pick_samples

# Okabe and Ito's colour-blind safe set without black, then Tol's muted set, ordered so that
# neighbours in the list differ in hue and lightness. An object has at most 9 parts in PIN++.
PALETTE = np.array(
    [
        (230, 159, 0),
        (0, 114, 178),
        (240, 228, 66),
        (204, 121, 167),
        (0, 158, 115),
        (86, 180, 233),
        (213, 94, 0),
        (51, 34, 136),
        (136, 34, 85),
        (153, 153, 51),
    ],
    dtype=np.uint8,
)
OUTLINE = np.array((255, 255, 255), dtype=np.uint8)
LEGEND_LINE = 18


def part_colours(vocabulary: PartVocabulary) -> np.ndarray:
    """Gives every part a colour by its place within its object.

    Args:
        vocabulary: Objects and their parts.

    Returns:
        Colours by part id, uint8 (K + 1, 3); background is black and never painted.
    """
    colours = np.zeros((vocabulary.num_parts + 1, 3), dtype=np.uint8)
    for label in range(len(vocabulary.objects)):
        for place, part in enumerate(vocabulary.parts_of(label)):
            colours[part] = PALETTE[place % len(PALETTE)]
    return colours


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

    Args:
        image: Pixels, uint8 (H, W, 3).
        mask: Part ids, int (H, W), 0 = background.
        colours: Colours by part id, uint8 (K + 1, 3).
        alpha: Opacity of the paint, 0 to 1.

    Returns:
        uint8 (H, W, 3), a new array.

    Raises:
        ValueError: If image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"mask {mask.shape} does not fit image {image.shape[:2]}")
    blended = (1 - alpha) * image.astype(np.float32) + alpha * colours[mask]
    painted = np.where(mask[..., None] > 0, blended.round().astype(np.uint8), image)
    painted[outline(mask)] = OUTLINE
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
        (part name without its object, colour as `#rrggbb`) in the order of part ids.
    """
    seen = sorted({int(part) for mask in masks if mask is not None for part in np.unique(mask)})
    return [
        (vocabulary.parts[part - 1].split(":", 1)[1], "#{:02x}{:02x}{:02x}".format(*colours[part]))
        for part in seen
        if part > 0
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


def data_uri(image: np.ndarray, kind: str = "jpeg") -> str:
    """Encodes pixels as a `data:` address, `kind` being jpeg or png."""
    buffer = BytesIO()
    options = {"quality": 88, "subsampling": 0} if kind == "jpeg" else {"optimize": True}
    Image.fromarray(image).save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


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


def write_overview(
    imagenet: Path,
    pinpp: Path,
    out: Path,
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
        FileNotFoundError: If a folder is missing.
        ValueError: If there is no annotated image to show.
    """
    vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
    samples = pick_samples(
        imagenet, pinpp, vocabulary, labels, num_objects=num_images, unannotated=0
    )
    if not samples:
        raise ValueError(f"{pinpp}: no annotated image to show; is json/ empty?")
    colours = part_colours(vocabulary)
    out.parent.mkdir(parents=True, exist_ok=True)
    for side in (192, 160, 144, 128, 112, 96, 80, 64):
        picture = _draw_overview(samples, vocabulary, colours, side).quantize(256)
        buffer = BytesIO()
        picture.save(buffer, format="png", optimize=True)
        if buffer.tell() <= max_bytes:
            break
    out.write_bytes(buffer.getvalue())
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the README's overview picture.")
    parser.add_argument("--imagenet", type=Path, required=True, help="folder with train/")
    parser.add_argument("--pinpp", type=Path, required=True, help="folder with json/")
    parser.add_argument("--labels", type=Path, help="run folder of stage 2")
    parser.add_argument("--out", type=Path, default=Path("docs/overview.png"))
    arguments = parser.parse_args()
    print(write_overview(arguments.imagenet, arguments.pinpp, arguments.out, arguments.labels))
