"""The part vocabulary: which parts exist, and which object each belongs to."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.annotations.files import (
    blank_twins,
    part_name,
    read_any_json,
    read_json,
    read_relations,
)
from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.imagenet_folder import list_objects
from datamodules.masks.segmentations import shown

__all__ = ["PartVocabulary", "read_json"]


@dataclass(frozen=True)
class PartVocabulary:
    """Object categories, part categories and inclusion relations (PartImageNet++ §3).

    Ids are derived from names, never read from a file: annotation files number their parts
    locally, and the number of parts K differs between sources.

    Attributes:
        objects: sorted category folder names; the position is the class label.
        parts: part names `object:part`, grouped by object; `parts[i]` has part id `i + 1`,
            id 0 is the background.
        inclusions: pairs (part id, id of the whole that includes it).
    """

    objects: tuple[str, ...]
    parts: tuple[str, ...]
    inclusions: tuple[tuple[int, int], ...] = ()

    @property
    def num_parts(self) -> int:
        """K, the number of part categories without the background."""
        return len(self.parts)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: index + 1 for index, name in enumerate(self.parts)}

    def part_id(self, object_name: str, part_name: str) -> int:
        """Part id of a named part.

        Raises:
            UserError: if the object has no such part.
        """
        name = f"{object_name}:{part_name}"
        if name not in self._ids:
            known = ", ".join(self.parts[i - 1] for i in self._parts_by_name(object_name))
            raise UserError(f"unknown part {name}; parts of {object_name}: {known or 'none'}")
        return self._ids[name]

    def _parts_by_name(self, object_name: str) -> tuple[int, ...]:
        prefix = f"{object_name}:"
        return tuple(i + 1 for i, name in enumerate(self.parts) if name.startswith(prefix))

    def parts_of(self, label: int) -> tuple[int, ...]:
        """Part ids of the object with class label `label`."""
        return tuple(torch.nonzero(self.object_parts[label, 1:]).flatten().add(1).tolist())

    @cached_property
    def object_parts(self) -> Tensor:
        """Which parts can occur on which object: bool `(num_objects, K + 1)`.

        Column 0, the background, can occur everywhere.
        """
        label_of = {name: label for label, name in enumerate(self.objects)}
        matrix = torch.zeros(len(self.objects), self.num_parts + 1, dtype=torch.bool)
        matrix[:, 0] = True
        for index, name in enumerate(self.parts):
            matrix[label_of[name.rpartition(":")[0]], index + 1] = True
        return matrix

    @property
    def content_hash(self) -> str:
        """SHA-256 of the names and relations; equal hashes mean equal ids."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        return {
            "objects": list(self.objects),
            "parts": list(self.parts),
            "inclusions": [list(pair) for pair in self.inclusions],
        }

    def save(self, path: Path) -> None:
        """Writes the vocabulary as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._content(), indent=1))

    @classmethod
    def load(cls, path: Path) -> "PartVocabulary":
        """Reads what `save` wrote.

        Raises:
            MissingInputError: if there is no such file.
            UserError: if it is not a vocabulary.
        """
        content = read_any_json(path)
        try:
            objects, parts, pairs = (content[key] for key in ("objects", "parts", "inclusions"))
            inclusions = tuple((part, whole) for part, whole in pairs)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path} is not a part vocabulary ({error!r})") from None
        for names in (objects, parts):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise UserError(f"{path} is not a part vocabulary ({shown(names)}: no names)")
            if len(set(names)) < len(names):
                raise UserError(f"{path} is not a part vocabulary (a name occurs twice)")
        homeless = [name for name in parts if name.rpartition(":")[0] not in set(objects)]
        if homeless:
            raise UserError(f"{path}: part {shown(homeless[0])} belongs to no object of the file")
        ids = range(1, len(parts) + 1)
        if any(type(part) is not int or part not in ids for pair in inclusions for part in pair):
            raise UserError(f"{path}: 'inclusions' holds ids beyond 1..{len(parts)}")
        return cls(tuple(objects), tuple(parts), inclusions)

    @classmethod
    def from_pinpp(
        cls, pinpp: Path, imagenet: Path, objects: Sequence[str] | None = None
    ) -> "PartVocabulary":
        """Collects the vocabulary of an annotation folder.

        Args:
            pinpp: folder with `json/<object>.json` and, optionally, `including/<object>.txt`.
            imagenet: folder with `train/<object>/`; its folder names define the class labels.
            objects: class names by label where they are known otherwise.

        Raises:
            MissingInputError: if a folder is missing.
            UserError: if a file is malformed or names an unknown object or part.
        """
        objects = list_objects(imagenet) if objects is None else tuple(objects)
        files = sorted((pinpp / "json").glob("[!.]*.json"))
        if not files:
            raise MissingInputError(
                f"{pinpp / 'json'} holds no annotation files: set PINPP to the folder that "
                "holds json/ and including/"
            )
        parts: list[str] = []
        for file in files:
            if file.stem not in objects:
                train = imagenet / "train"
                known = train if train.is_dir() else imagenet
                raise UserError(f"{file} annotates {file.stem}, no folder of {known}")
            try:
                categories = read_json(file, "categories")["categories"]
                names = {part_name(entry) for entry in categories}
            except ValueError as error:
                where = "" if str(error).startswith(str(file)) else f"{file}: category "
                raise UserError(f"{where}{error}") from None
            if twice := blank_twins(entry["name"] for entry in categories):
                raise UserError(
                    f"{file}: the categories {shown(twice[0])} and {shown(twice[1])} differ by "
                    "blanks alone: rename one"
                )
            parts += [f"{file.stem}:{name}" for name in sorted(names)]
        vocabulary = cls(objects, tuple(parts))
        pairs = []
        for file in sorted((pinpp / "including").glob("[!.]*.txt")):
            for line, part, whole in read_relations(file):
                try:
                    pairs.append(
                        (vocabulary.part_id(file.stem, part), vocabulary.part_id(file.stem, whole))
                    )
                except ValueError as error:
                    relation = f"line {line}: relation '{part}:{whole}'"
                    raise UserError(f"{file}: {relation}: {error}") from None
        return cls(objects, tuple(parts), tuple(sorted(pairs)))
