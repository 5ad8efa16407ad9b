"""Makes smaller copies of ImageNet's training images, for a faster data path of stage 3.

python -m pipeline.annotations.resize_images --imagenet IMAGENET --out FOLDER [--side 256] [--quality 92]

Stage 3 reads them with --data.init_args.resized=FOLDER. Started again after a stop, or after
images have changed, it makes what is not there yet. IMAGENET itself stays as it is and is still
needed, for validation.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.files.errors import UserError
from datamodules.images.imagenet_folder import list_objects
from datamodules.images.resized_store import Settings, claim, finish, resize_object
from pipeline.runs.error_exit import error_exit
from pipeline.runs.process_map import work_through


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
        UserError: if `out` cannot be used.
    """
    objects = list_objects(imagenet)
    if out.resolve().is_relative_to(imagenet.resolve()):
        raise UserError(f"--out {out} lies within {imagenet}: name a folder outside of it")
    claim(out, settings)
    tasks = [(imagenet / "train", out, name) for name in objects]
    workers = workers or len(os.sched_getaffinity(0))
    done = work_through(resize_object, tasks, workers, "Resizing")
    errors = [error for found in done for error in found]
    return finish(out, objects), errors


def main(args: Sequence[str] | None = None) -> None:
    """Makes the copies and says how many there are."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.annotations.resize_images", description=__doc__
    )
    parser.add_argument("--imagenet", type=Path, required=True, help="folder with train/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the copies")
    parser.add_argument("--side", type=int, default=Settings.side, help="shorter side, pixels")
    parser.add_argument("--quality", type=int, default=Settings.quality, help="of the JPEGs")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    given = parser.parse_args(args)
    settings = Settings(given.side, given.quality)
    copies, errors = resize_images(given.imagenet, given.out, settings, given.workers)
    for error in errors:
        print(f"warning: no copy, {error}", file=sys.stderr)
    print(f"{copies:,} images in {given.out}: give it to stage 3 as --data.init_args.resized")


if __name__ == "__main__":
    with error_exit((ValueError, OSError), stopped="stopped; the same command goes on"):
        main()
