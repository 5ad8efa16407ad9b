"""Rows of plain JPEG files, decoded from the first to the last that is needed, bit-equal to Pillow.

Entropy decoding is two thirds of the time and knows no short cut to the rows of a crop, but it can
stop behind them: the height in the file's header is what says where. simplejpeg has no call for
that, so the header in memory gets the smaller height. Files that are not plain are left to Pillow.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

try:
    from simplejpeg import decode_jpeg
except ImportError:  # the extra `fast-jpeg`
    decode_jpeg = None

START, END = b"\xff\xd8", b"\xff\xd9"  # of an image
BASELINE = 0xC0  # start of a frame whose rows come one after another, 8 bits a sample
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # of any kind
SCAN = 0xDA
COMPONENTS = (1, 3)  # grey and colour; four are CMYK
MARGIN = 2  # rows below the last: interpolating halved chroma looks at one more


def available() -> bool:
    """Whether the library that decodes plain JPEG files is installed."""
    return decode_jpeg is not None


@dataclass(frozen=True)
class PlainJpeg:
    """A baseline JPEG file in memory that ends as it should.

    Attributes:
        content: of the file.
        frame: place of the frame header's content: precision, height, width, components.
    """

    content: bytes
    frame: int

    @classmethod
    def read(cls, path: Path) -> "PlainJpeg | None":
        """The file, or None where Pillow is to read it and to say what is wrong with it."""
        if decode_jpeg is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        # libjpeg fills up what a cut file lacks with grey; Pillow refuses it
        if not (content.startswith(START) and content.endswith(END)):
            return None
        frame = _baseline_frame(content)
        if not frame or content[frame] != 8 or content[frame + 5] not in COMPONENTS:
            return None
        jpeg = cls(content, frame)
        return jpeg if jpeg.height and jpeg.width else None

    @property
    def height(self) -> int:
        """In pixels."""
        return int.from_bytes(self.content[self.frame + 1 : self.frame + 3], "big")

    @property
    def width(self) -> int:
        """In pixels."""
        return int.from_bytes(self.content[self.frame + 3 : self.frame + 5], "big")

    def rows(self, stop: int) -> np.ndarray | None:
        """Decodes the rows before `stop`.

        Args:
            stop: from 1 to the height.

        Returns:
            uint8 `(stop, width, 3)`, or None if the decoder gives up.
        """
        place, height = self.frame + 1, min(stop + MARGIN, self.height)
        content = b"".join(
            [self.content[:place], height.to_bytes(2, "big"), self.content[place + 2 :]]
        )
        try:
            # not strict: what lies behind the rows would count as damage; Pillow is not either
            pixels = decode_jpeg(content, "RGB", strict=False)
        except ValueError:
            return None
        return pixels[:stop] if pixels.shape == (height, self.width, 3) else None


def _baseline_frame(content: bytes) -> int:
    """Place of the content of a baseline frame's header, 0 if there is none before the scan."""
    place = len(START)
    while place + 10 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in FRAMES or marker == SCAN:
            return place + 4 if marker == BASELINE else 0
        if marker == 0xFF:  # filling
            place += 1
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return 0
