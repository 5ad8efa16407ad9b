"""Colours of parts: fixed, by a part's place within its object."""

import numpy as np

from datamodules.annotations.part_vocabulary import PartVocabulary

# Okabe and Ito's set and Tol's muted set, ordered so that the first ones stay far apart for
# colour-blind eyes too (smallest CIE-Lab distance 24 among six). PIN++ has at most 9 parts.
PALETTE = np.array(
    [
        (86, 180, 233),
        (213, 94, 0),
        (240, 228, 66),
        (0, 158, 115),
        (0, 114, 178),
        (51, 34, 136),
        (136, 34, 85),
        (204, 121, 167),
        (230, 159, 0),
        (153, 153, 51),
    ],
    dtype=np.uint8,
)


def hex_colour(colour: np.ndarray) -> str:
    """A colour (uint8 (3,)) as `#rrggbb`."""
    return "#" + colour.tobytes().hex()


ORANGE, GREEN, BLUE = (hex_colour(PALETTE[place]) for place in (1, 3, 4))
GREY = "#9aa3ab"
SERIES = tuple(hex_colour(PALETTE[place]) for place in (4, 1, 3, 7, 5, 8, 0, 6, 9, 2))
"""Colours of the lines of a chart: those that are strong on white first."""


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
