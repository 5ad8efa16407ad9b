"""Annotations of some categories of a larger data set, as links."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.annotations.files import read_json
from datamodules.files.errors import MissingInputError, UserError


def link_annotations(
    pinpp: Path, names: Sequence[str], folder: Path, *, masks: bool
) -> dict[str, Any]:
    """Makes `folder/pinpp/{json,including}` for the images below `folder/imagenet/train`.

    A file all of whose images are there is linked, any other rewritten without those that are not.

    Args:
        pinpp: folder with `json/` and, optionally, `including/`.
        names: the object categories.
        folder: holds `imagenet/train/<name>/`.
        masks: False keeps the parts and their relations alone, no image.

    Returns:
        `annotated_images_left_out`, their number, and `categories_without_annotations`.

    Raises:
        MissingInputError: if none of the categories is annotated.
        UserError: if a file is malformed; the message names it.
    """
    left_out = 0
    without = []
    (folder / "pinpp" / "json").mkdir(parents=True)
    (folder / "pinpp" / "including").mkdir()
    for name in names:
        source, target = (root / "json" / f"{name}.json" for root in (pinpp, folder / "pinpp"))
        relations = pinpp / "including" / f"{name}.txt"
        if relations.is_file():
            os.symlink(relations.resolve(), folder / "pinpp" / "including" / relations.name)
        if not source.is_file():
            without.append(name)
            continue
        content = read_json(source, "images", "annotations", "categories")
        train = folder / "imagenet" / "train"
        try:
            kept = [
                image
                for image in content["images"]
                if masks and os.path.lexists(train / image["file_name"])
            ]
            ids = {image["id"] for image in kept}
            annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{source}: an image or annotation is malformed ({error!r}): run make check-data"
            ) from None
        left_out += len(content["images"]) - len(kept)
        if len(kept) == len(content["images"]):
            os.symlink(source.resolve(), target)
        else:
            target.write_text(json.dumps(content | {"images": kept, "annotations": annotations}))
    if len(without) == len(names):
        raise MissingInputError(f"{pinpp / 'json'} annotates none of the categories: set --pinpp")
    return {"annotated_images_left_out": left_out, "categories_without_annotations": without}
