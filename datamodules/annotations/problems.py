"""Kinds of problems in annotation data, and the record of one."""

from dataclasses import dataclass

KINDS: dict[str, bool] = {
    "unreadable_file": True,
    "malformed_entry": True,
    "unknown_object": True,
    "unknown_category": True,
    "unknown_image": True,
    "wrong_folder": True,
    "missing_image": True,
    "corrupt_image": True,
    "size_mismatch": True,
    "name_not_utf8": True,
    "images_without_class": True,
    "class_without_images": True,
    "unknown_class": True,
    "empty_polygon": True,
    "degenerate_polygon": True,
    "mask_outside": True,
    "broken_runs": True,
    "box_elsewhere": True,
    "duplicate_id": True,
    "duplicate_file_name": True,
    "unknown_relation_part": True,
    "unusual_id": False,
    "padded_name": False,
    "category_without_masks": False,
    "empty_mask": False,
    "box_mismatch": False,
    "duplicate_annotation_id": False,
    "duplicate_mask": False,
    "duplicate_category_name": False,
    "image_without_parts": False,
    "turned_image": False,
    "turned_image_unclear": False,
    "val_class_without_images": False,
    "discarded_image": False,
    "object_without_annotations": False,
    "unreadable_discarded_list": False,
}
"""Kinds of problems; True where training would stop, or learn from something false."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the data.

    Attributes:
        kind: a key of `KINDS`.
        file: the file it is in.
        entry: which entry, such as `annotation 7`, `image 3` or `line 2`; empty for the file.
        message: what is wrong, in words.
    """

    kind: str
    file: str
    entry: str
    message: str

    @property
    def affects_training(self) -> bool:
        """Whether training would stop, or learn from something false."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.entry, self.message)))
