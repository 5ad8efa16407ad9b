"""Labels from elsewhere, shard by shard, checked against the images that they are for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.images.image_files import BadImageError, read_header, read_image
from datamodules.images.orientation import turned_reason
from datamodules.labels.coco import from_coco
from datamodules.labels.png import from_label_map, png_path, read_png
from datamodules.masks.part_labels import ImageParts, PartInstance
from pipeline.labelling.export_labels import Format
from pipeline.labelling.shard_writer import write_shard

HINT = "pass --allow_missing=true to give such images no labels"


@dataclass(frozen=True)
class ShardImport:
    """One shard to make, the unit of work.

    Attributes:
        path: Parquet file to write.
        provenance_hash: what the run's labels are made of, kept in the file.
        images: keys and labels, sorted.
        split: folder of the images.
        source: folder with the labels.
        vocabulary: file with the part vocabulary.
        layout: `coco` or `png`.
        allow_missing: whether an image may have no labels.
        found: instances by key, where `source` is a segmenter's results, which are read before.
    """

    path: Path
    provenance_hash: str
    images: tuple[tuple[str, int], ...]
    split: Path
    source: Path
    vocabulary: Path
    layout: Format
    allow_missing: bool
    found: Mapping[str, tuple[PartInstance, ...]] | None = None

    def rows(self) -> Iterator[ImageParts]:
        """Labels of the shard's images, in order; an image that is damaged says so."""
        for name, images in groupby(self.images, lambda image: image[0].split("/")[0]):
            labelled = self.layout == "coco" and self.found is None
            rows = self._coco(name) if labelled else {}
            for key, label in images:
                row = self._png(key, label) if self.layout == "png" else rows.get(key)
                if self.found is not None:
                    row = self._result(key, label)
                yield self._checked(key, label, row)

    def _result(self, key: str, label: int) -> ImageParts | None:
        if self.found is None or key not in self.found:
            return None
        try:
            size = read_header(self.split / key).size
        except BadImageError:
            return None  # a damaged image, about which `_checked` says more
        return ImageParts(key, label, *size, self.found[key])

    def _coco(self, name: str) -> Mapping[str, ImageParts]:
        file = self.source / "json" / f"{name}.json"
        rows = from_coco(file, _vocabulary(self.vocabulary)) if file.is_file() else {}
        for key in rows.keys() - {key for key, _ in self.images}:
            if not (self.split / key).is_file():
                raise UserError(
                    f"{file} lists {key}, but {self.split / key} does not exist: add the image "
                    "or remove the entry"
                )
        return rows

    def _png(self, key: str, label: int) -> ImageParts | None:
        path = png_path(self.source, key)
        if not path.is_file():
            return None
        known = _known_parts(self.vocabulary, label, (self.source / "vocabulary.json").is_file())
        return from_label_map(key, label, read_png(path), known, path)

    def _checked(self, key: str, label: int, row: ImageParts | None) -> ImageParts:
        try:
            header = read_header(self.split / key)
            if row is None:
                read_image(self.split / key)
        except BadImageError as error:
            return ImageParts(key, label, 0, 0, error=str(error))
        if row is None and not self.allow_missing:
            raise UserError(f"{self.source} has no labels for {key}: {HINT}")
        if row is not None and (row.height, row.width) != header.size:
            reason = turned_reason(header.orientation, header.size, (row.height, row.width))
            raise UserError(
                f"{self.source}: labels of {key} are {row.height}x{row.width}, "
                f"{self.split / key} is {header.height}x{header.width} (height x width): "
                f"{reason or 'labels must be made for these images'}"
            )
        return row or ImageParts(key, label, *header.size)


@lru_cache(maxsize=1)
def _vocabulary(path: Path) -> PartVocabulary:
    return PartVocabulary.load(path)


@lru_cache(maxsize=1)
def _known_parts(vocabulary: Path, label: int, same_numbers: bool) -> Collection[int]:
    """Part ids that a map may hold: all of them if the source is known to number them alike."""
    loaded = _vocabulary(vocabulary)
    return range(1, loaded.num_parts + 1) if same_numbers else loaded.parts_of(label)


def import_shard(task: ShardImport) -> int:
    """Writes one shard whole or not at all; returns its number of images."""
    write_shard(task.path, list(task.rows()), task.provenance_hash)
    return len(task.images)
