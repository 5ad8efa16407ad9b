"""Images to evaluate on and their classes: ImageNet's layout, `val/` alone, or any folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.files.errors import MissingInputError
from datamodules.files.names import printable, require_utf8
from datamodules.images.image_lists import read_image_list
from datamodules.images.imagenet_folder import class_folders, list_images, require_class_folders
from datamodules.images.named_lists import find_list


@dataclass(frozen=True)
class EvaluationFolder:
    """Images with labels.

    Attributes:
        root: folder that keys are relative to: `val/`, or the folder that was given.
        classes: sorted names of the classes, the position is the label; None where nothing but
            the labels of a list is known.
        listed: pairs of key and label of a list, in its order; None without one.
    """

    root: Path
    classes: tuple[str, ...] | None
    listed: Sequence[tuple[str, int]] | None = None

    @classmethod
    def read(cls, imagenet: Path, list_file: Path | None = None) -> "EvaluationFolder":
        """Finds classes and, if there is a list, its images.

        Classes are the folders of `train/`, which may be empty, else those of `val/`. A folder
        with neither holds class folders itself, or with a list any images, whose labels the list
        alone says.

        Args:
            imagenet: folder with `train/` and `val/`, with `val/` alone, or of images.
            list_file: list of `path label` lines, or the name of one, see `find_list`.

        Raises:
            MissingInputError: if a folder, the list, or an image of the list is missing.
            UserError: if there are images but no class folders, or the list is malformed.
        """
        train, val = imagenet / "train", imagenet / "val"
        known = train.is_dir() or val.is_dir()
        root = val if known else imagenet
        named = train if train.is_dir() else root
        names = class_folders(named)
        only_listed = list_file is not None and not (known and names)
        if not names and not only_listed:
            require_class_folders(named)
            raise MissingInputError(
                f"{printable(named)} holds no class folders: set IMAGENET to a folder whose train/ "
                "or val/ has one for each class"
            )
        require_utf8(named, names)
        classes = None if only_listed else tuple(names)
        if list_file is None:
            return cls(root, classes)
        path = find_list(list_file, imagenet)
        listed = read_image_list(path, classes)
        absent = next((key for key, _ in listed if not (root / key).is_file()), None)
        if absent is not None:
            if classes is not None:
                require_class_folders(root)
            raise MissingInputError(f"{path} lists {absent}, which is not below {root}")
        return cls(root, classes, listed)

    def images(self) -> Sequence[tuple[str, int]]:
        """Pairs of key and label: those of the list, else all.

        Raises:
            MissingInputError: if there is no image.
            UserError: if images lie outside of class folders, or in one that is no class.
        """
        return list_images(self.root, self.classes) if self.listed is None else self.listed

    @property
    def objects(self) -> tuple[str, ...]:
        """Names by label; where classes have none, the labels up to the largest of the list."""
        if self.classes is not None:
            return self.classes
        return tuple(map(str, range(self.least_classes)))

    @property
    def least_classes(self) -> int:
        """Number of classes that the labels of the list need; 0 without one."""
        return max((label + 1 for _, label in self.listed or ()), default=0)
