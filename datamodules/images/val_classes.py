"""Which class each of ImageNet's val images is of, from the files that say so."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from scipy.io import loadmat

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import is_image

GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
# of Kaggle's list, whose names lack the suffix; boxes follow the class
KAGGLE_HEADER = "ImageId,PredictionString"
SUFFIX = ".JPEG"


def read_devkit(devkit: Path) -> dict[str, str]:
    """Class of each val image from the development kit of ILSVRC 2012.

    The helpers of torchvision take the archive with its released checksum alone, and write a
    pickle beside it.

    Args:
        devkit: the kit's folder, its `data/` folder, or `ILSVRC2012_devkit_t12.tar.gz`.

    Returns:
        WNID by file name, `ILSVRC2012_val_00000001.JPEG` and so on.

    Raises:
        MissingInputError: if the kit or one of its two files is not there.
        UserError: if they are damaged, or not of ILSVRC 2012.
    """
    numbers = _devkit_file(devkit, GROUND_TRUTH).decode(errors="replace").split()
    try:
        synsets = loadmat(io.BytesIO(_devkit_file(devkit, META)), squeeze_me=True)["synsets"]
        wnids = {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
    except MissingInputError:
        raise
    except Exception as error:  # scipy raises what it likes on damaged files
        raise UserError(f"{META} of {devkit} is damaged ({error}): fetch the kit again") from None
    unknown = [number for number in numbers if number not in wnids]
    if unknown or not numbers:
        what = f"class {unknown[0][:20]!r} that {META} does not have" if unknown else "no class"
        raise UserError(f"{GROUND_TRUTH} of {devkit} names {what}: fetch the kit again")
    return {
        f"ILSVRC2012_val_{place:08d}{SUFFIX}": wnids[number]
        for place, number in enumerate(numbers, 1)
    }


def read_val_list(path: Path) -> dict[str, str]:
    """Class of each val image from a list, one `file class` a line.

    Between file and class are spaces or a comma; Kaggle's `LOC_val_solution.csv` is such a list.

    Returns:
        Name of the class folder by file name.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if a line is malformed, or gives a file two classes.
    """
    classes: dict[str, str] = {}
    for row, line in _lines(path):
        words = re.split(r"[,\s]+", line.strip())
        name = words[0] if is_image(words[0]) else f"{words[0]}{SUFFIX}"
        if len(words) < 2 or "/" in line or "" in words[:2] or words[1].startswith("."):
            raise UserError(
                f"{path}:{row}: {line[:80]!r} is not `file class`, such as "
                "ILSVRC2012_val_00000001.JPEG n01751748"
            )
        if classes.setdefault(name, words[1]) != words[1]:
            raise UserError(
                f"{path}:{row}: {name} is of {words[1]}, before it was of {classes[name]}"
            )
    if not classes:
        raise UserError(f"{path} lists no images")
    return classes


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without blank ones and Kaggle's header."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MissingInputError(f"list of val images {path} does not exist") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no list of `file class` lines: it is not text") from None
    for row, line in enumerate(lines, 1):
        if line.strip() and line.strip() != KAGGLE_HEADER:
            yield row, line


def _devkit_file(devkit: Path, name: str) -> bytes:
    if devkit.is_dir():
        for path in (devkit / "data" / name, devkit / name):
            if path.is_file():
                return path.read_bytes()
    elif devkit.is_file():
        try:
            with tarfile.open(devkit) as archive:
                for member in archive:
                    if member.isfile() and Path(member.name).name == name:
                        stream = archive.extractfile(member)
                        assert stream is not None, "a plain file has content"
                        return stream.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{devkit} is no readable archive ({error}): fetch it again") from None
    raise MissingInputError(
        f"{devkit} holds no {name}: set DEVKIT to the development kit of ILSVRC 2012, its folder "
        "or ILSVRC2012_devkit_t12.tar.gz"
    )
