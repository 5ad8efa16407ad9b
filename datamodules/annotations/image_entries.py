"""What an entry of `images` must say of its image."""

from typing import Any

from datamodules.files.integers import whole_number
from datamodules.files.names import is_utf8
from datamodules.images.image_files import IMAGE_SUFFIXES, is_image
from datamodules.masks.segmentations import MAX_PIXELS, MAX_SIDE, shown


def sides_of(entry: dict[str, Any]) -> tuple[int, int]:
    """Height and width in pixels, also where they are written 64.0; 0 for what is no size."""
    height, width = (whole_number(entry.get(key)) or 0 for key in ("height", "width"))
    return height, width


def image_fault(entry: dict[str, Any], object_name: str) -> tuple[str, str] | None:
    """Kind and message of what is wrong with an entry, None if it is sound.

    Args:
        entry: an entry of `images`.
        object_name: category that the image must lie in the folder of.
    """
    name: Any = entry.get("file_name")
    if not isinstance(name, str):
        return "malformed_entry", f"its file_name is {shown(name)}, not text"
    height, width = sides_of(entry)
    if min(height, width) < 1:
        key = "height" if height < 1 else "width"
        message = f"its {key} is {shown(entry.get(key))}, not a whole number of pixels"
        return "malformed_entry", message
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        return "malformed_entry", f"no image is {shown(height)}x{shown(width)}"
    if not is_utf8(name):
        return "name_not_utf8", f"{shown(name)} is not UTF-8 text"
    folder, _, base = name.partition("/")
    if folder != object_name or base in ("", ".", "..") or "/" in base:
        return "wrong_folder", f"{shown(name)} is no file of {object_name}/"
    if not is_image(base):
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        message = f"{shown(name)} is not taken for an image: its suffix must be one of {suffixes}"
        return "malformed_entry", f"{message}, with no dot in front of the name"
    return None
