"""Whatever the image library raises is a bad image, which every reader names."""

import builtins
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from datamodules.annotations.reports import ObjectJob, report_object
from datamodules.annotations.split_checks import decode_images
from datamodules.corruptions.frost_overlays import OVERLAY_FILES, read_overlays
from datamodules.detection.annotated_images import read_annotated
from datamodules.evaluation.corruption_sets import Corruptions
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.evaluation.human_stimuli import DistortedImages
from datamodules.evaluation.object_groups import known_groups
from datamodules.evaluation.ood_sets import ClassFolders
from datamodules.files.errors import UserError
from datamodules.imagenet_shards import ShardBatches
from datamodules.images import jpeg_rows
from datamodules.images.image_crops import read_crop
from datamodules.images.image_files import read_header, read_image
from datamodules.images.image_matching import find_origins
from datamodules.images.recognition import RecognitionImages
from datamodules.images.resized_store import Settings, claim, resize_object
from datamodules.labels.png import read_png
from tests.datamodules.annotations.annotated import make_set

NAME = "cat/1.jpg"
PROPERTY = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def exceptions() -> list[Exception]:
    """One of every kind that Python has, and one that a plug-in made up."""

    class PluginError(Exception):
        pass

    found: list[Exception] = [PluginError("strange chunk"), PluginError()]
    arguments: list[tuple] = [(), ("utf-8", b"\xff", 0, 1, "no"), ("utf-8", "\xff", 0, 1, "no")]
    for kind in vars(builtins).values():
        if isinstance(kind, type) and issubclass(kind, Exception):
            for given in arguments:
                try:
                    found.append(kind(*given))
                    break
                except TypeError:
                    continue
    return found


EXCEPTIONS = exceptions()


def setting(root: Path, objects: tuple[str, ...] = ("cat", "flatworm")) -> EvaluationSetting:
    return EvaluationSetting(root / "imagenet", root / "pinpp", objects, 32, 32, 0)


def stage_2(root: Path) -> None:
    batch = ShardBatches(root / "imagenet/train")[(0, 0, [NAME], [0])]
    assert batch["image"][0].shape == (3, 0, 0)
    raise UserError(batch["error"][0])


def resized(root: Path) -> None:
    claim(root / "small", Settings())
    errors = resize_object((root / "imagenet/train", root / "small", "cat"))
    raise UserError(errors[0])


def validation(root: Path) -> None:
    _ = RecognitionImages(root / "imagenet/train", [(NAME, 0)], 8, 8)[0]


def origins(root: Path) -> None:
    find_origins([root / "imagenet/train" / NAME], [root / "imagenet/train" / NAME])


def headers(root: Path) -> None:
    job = ObjectJob("cat", root / "pinpp", root / "imagenet/train")
    found = [p for p in report_object(job).problems if p.kind == "corrupt_image"]
    assert len(found) == 3
    raise UserError(found[0].message)


def decoded(root: Path) -> None:
    ((key, problem),) = decode_images((root / "imagenet/train", (NAME,))).damaged
    assert key == NAME
    raise UserError(str(problem))


def frost(root: Path) -> None:
    folder = root / "imagenet/train/cat"
    for name in OVERLAY_FILES:
        (folder / name).write_bytes((folder / "1.jpg").read_bytes())
    read_overlays(folder)


def corruption(root: Path) -> None:
    (root / "imagenet/val").unlink(missing_ok=True)
    (root / "imagenet/val").symlink_to(root / "imagenet/train")
    Corruptions().sets(setting(root))[0].image(NAME)


def shifted(root: Path) -> None:
    (found,) = ClassFolders("r", root / "imagenet/train").sets(setting(root))
    found.image(NAME)


def stimuli(root: Path) -> None:
    (root / "din").mkdir(exist_ok=True)
    (root / "din/edge").unlink(missing_ok=True)
    (root / "din/edge").symlink_to(root / "imagenet/train")
    (root / "imagenet/train/flatworm/1.jpg").unlink(missing_ok=True)
    sets = DistortedImages(root / "din").sets(setting(root, tuple(sorted(known_groups("human16")))))
    next(found for found in sets if found.name == "din/edge").image(NAME)


READERS: dict[str, Callable[[Path], object]] = {
    "pixels": lambda root: read_image(root / "imagenet/train" / NAME),
    "crops": lambda root: read_crop(
        root / "imagenet/train" / NAME, 4, lambda h, w: (0, 0, w, h), "torch"
    ),
    "stage 1 and detection": lambda root: read_annotated(root / "imagenet/train" / NAME, 6, 8),
    "stage 2": stage_2,
    "resized copies": resized,
    "validation": validation,
    "PNG labels": lambda root: read_png(root / "imagenet/train" / NAME),
    "T-PIN++": origins,
    "check_data decoding": decoded,
    "frost overlays": frost,
    "corruptions": corruption,
    "shifts": shifted,
    "human stimuli": stimuli,
}
HEADER_READERS = READERS | {
    "headers": lambda root: read_header(root / "imagenet/train" / NAME),
    "check_data": headers,
}


def refused(reader: Callable[[Path], object], root: Path) -> None:
    """The reader names a file that is there and says that it is damaged."""
    with pytest.raises(
        UserError, match=r"(1\.jpg|frost1\.png):? cannot be decoded \(.+\): replace"
    ):
        reader(root)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@PROPERTY
@given(error=st.sampled_from(EXCEPTIONS))
@example(error=AttributeError())  # NumPy takes it for an object that is no array
def test_errors_of_decoders_are_bad_images(
    reader: Callable[[Path], object], error: Exception, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = make_set(tmp_path_factory.mktemp("set"))

    def load(self: ImageFile.ImageFile) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", load)
        patch.setattr(jpeg_rows, "decode_jpeg", None)  # Pillow decodes all files
        refused(reader, root)


@pytest.mark.parametrize("reader", HEADER_READERS.values(), ids=HEADER_READERS)
@PROPERTY
@given(error=st.sampled_from(EXCEPTIONS))
@example(error=AttributeError())  # NumPy takes it for an object that is no array
def test_errors_while_a_file_is_opened_are_bad_images(
    reader: Callable[[Path], object], error: Exception, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = make_set(tmp_path_factory.mktemp("set"))

    def read(*args: object, **kwargs: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", read)
        patch.setattr(jpeg_rows, "decode_jpeg", None)
        refused(reader, root)


def test_the_file_with_a_short_chunk_is_an_error_row(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    awkward = (shared / "awkward/short_iccp_chunk.jpg").read_bytes()
    (tmp_path / NAME).write_bytes(awkward)
    batch = ShardBatches(tmp_path)[(0, 0, [NAME], [0])]
    assert "1.jpg cannot be decoded" in batch["error"][0]
    assert [key for key, _ in decode_images((tmp_path, (NAME,))).damaged] == [NAME]
    with pytest.raises(UserError, match=r"1\.jpg cannot be decoded"):
        _ = RecognitionImages(tmp_path, [(NAME, 0)], 8, 8)[0]
