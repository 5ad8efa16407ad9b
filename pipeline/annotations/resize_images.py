"""Makes smaller copies of ImageNet's training images, for a faster data path of stage 3."""

import os
import sys
from pathlib import Path

from datamodules.files.errors import UserError, os_errors
from datamodules.files.process_map import work_through
from datamodules.images.imagenet_folder import list_images, list_objects
from datamodules.images.resized_store import Settings, claim, finish, resize_object


def resize_images(
    imagenet: Path, out: Path, settings: Settings, workers: int | None = None
) -> tuple[int, list[str]]:
    """Makes all copies that are not there yet.

    Args:
        imagenet: folder with `train/`.
        out: missing or empty folder, or one that was begun with the same settings.
        settings: size and quality of the copies.
        workers: processes; None takes one a core.

    Returns:
        How many copies there are, and what is wrong with images that have none.

    Raises:
        MissingInputError: if there are no images.
        UserError: if `out` cannot be used, or `train/` by no stage.
    """
    objects = list_objects(imagenet)
    if out.resolve().is_relative_to(imagenet.resolve()):
        raise UserError(f"--out {out} lies within {imagenet}: name a folder outside of it")
    list_images(imagenet / "train")  # names that the index could not hold are refused at once
    claim(out, settings)
    tasks = [(imagenet / "train", out, name) for name in objects]
    workers = workers or len(os.sched_getaffinity(0))
    done = work_through(resize_object, tasks, workers, "Resizing")
    errors = [error for found in done for error in found]
    return finish(out, objects), errors


@os_errors()
def main(
    imagenet: Path,
    out: Path,
    side: int = Settings.side,
    quality: int = Settings.quality,
    workers: int | None = None,
) -> None:
    """Makes smaller copies of ImageNet's training images, for a faster data path of stage 3.

    Stage 3 reads them with `--data.init_args.resized=FOLDER`. Started again after a stop, or after
    images have changed, it makes what is not there yet. ImageNet itself stays as it is and is
    still needed, for validation.

    Args:
        imagenet: folder with train/.
        out: folder of the copies.
        side: shorter side of a copy, pixels.
        quality: of the JPEGs.
        workers: processes, by default one a core.

    Raises:
        MissingInputError: if there are no images.
        UserError: if `out` cannot be used.
    """
    copies, errors = resize_images(imagenet, out, Settings(side, quality), workers)
    for error in errors:
        print(f"warning: no copy, {error}", file=sys.stderr)
    print(f"{copies:,} images in {out}: give it to stage 3 as --data.init_args.resized")
