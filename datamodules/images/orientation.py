"""The EXIF orientation of an image file, which viewers apply and nothing here does.

ImageNet and its annotations count pixels as they are stored. An annotation made in a tool that
turned the image fits the stored pixels in no way.
"""

from PIL import ExifTags, Image

UPRIGHT = 1
# Where Pillow looks for it; most images of a data set have none of these.
CARRIERS = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
SWAPS_SIDES = frozenset({5, 6, 7, 8})  # orientations that turn by a quarter


def exif_orientation(image: Image.Image) -> int:
    """Orientation of an opened image, 1 (upright) to 8, from its header alone.

    What has none, or one that no viewer understands, is upright. A PNG may tell it behind its
    pixels; it is known once those are loaded. A TIFF is upright: its orientation is a part of the
    format, and Pillow turns size and pixels itself.
    """
    if image.format == "TIFF" or CARRIERS.isdisjoint(image.info):
        return UPRIGHT
    try:
        # the method of PNG files would load the pixels
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises what it likes on damaged EXIF, and the pixels may be sound
        return UPRIGHT
    return value if isinstance(value, int) and UPRIGHT <= value <= 8 else UPRIGHT


def turned_reason(orientation: int, stored: tuple[int, int], listed: tuple[int, int]) -> str:
    """Why a size does not fit an image, where its orientation is why, and what mends it; or "".

    Args:
        orientation: EXIF orientation of the file.
        stored: height and width of its pixels as stored.
        listed: height and width that something else says it has.
    """
    if orientation not in SWAPS_SIDES or stored == listed or stored != listed[::-1]:
        return ""
    return (
        f"that is the size of the image as its EXIF orientation {orientation} turns it, but pixels "
        "are used as stored: store them turned (mogrify -auto-orient), or annotate them as stored"
    )
