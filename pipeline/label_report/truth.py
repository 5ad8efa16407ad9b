"""The human annotations that pseudo labels are compared with."""

from pathlib import Path

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, read_split, split_annotations
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts


def held_out(
    vocabulary: PartVocabulary,
    pinpp: Path | None,
    truth: Path | None = None,
    split: Path | None = None,
    seed: int = 0,
) -> tuple[dict[str, ImageParts], str]:
    """Annotations by key that stage 1 was not trained on, and what they are in words.

    Args:
        vocabulary: vocabulary of the labels.
        pinpp: folder with `json/`, whose held-out tenth is taken (PartImageNet++ §3.2).
        truth: folder with `json/` that is taken whole, instead of `pinpp`.
        split: split file of `pinpp`; its `val` is taken instead of the seeded tenth.
        seed: seed of the 9:1 split.

    Raises:
        MissingInputError: if a folder or the split file is missing.
        UserError: if neither folder is given, or an annotation cannot be read.
    """
    if truth is not None:
        annotations, name = read_annotations(truth, vocabulary), str(truth)
    elif pinpp is None:
        raise UserError("give --pinpp (its held-out tenth is compared) or --truth")
    elif split is not None:
        annotations = read_split(split, read_annotations(pinpp, vocabulary))[1]
        name = f"val of {split}"
    else:
        annotations = split_annotations(read_annotations(pinpp, vocabulary), "val", seed)
        name = f"the held-out tenth of {pinpp} (seed {seed})"
    return {parts.key: parts for parts in annotations}, name
