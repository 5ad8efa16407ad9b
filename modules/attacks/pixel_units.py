"""Distances in pixel units, written as people write them: `4/255`."""

from typing import Self

from jsonargparse.typing import register_type

from datamodules.files.errors import UserError


class PixelDistance(float):
    """A radius or step size in the unit of images in [0, 1], from a number or text such as `4/255`.

    Raises:
        UserError: if the text is no number or fraction, or the distance is negative or not finite.
    """

    def __new__(cls, value: float | str) -> Self:
        """Parses text, `4/255` or `0.0157`; takes numbers as they are."""
        try:
            numerator, _, denominator = str(value).partition("/")
            number = float(numerator) / float(denominator or 1)
        except (ValueError, ZeroDivisionError):
            number = float("nan")
        if not 0 <= number < float("inf"):
            raise UserError(f"'{value}' is no distance: write a number or a fraction such as 4/255")
        return super().__new__(cls, number)


# Run folders keep the plain number, so that 4/255 and 0.0156… are the same setting.
register_type(PixelDistance, serializer=float, deserializer=PixelDistance)
