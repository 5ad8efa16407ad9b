"""What stage 2 labels were made of, and the refusal to mix them with others."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.labels.label_set import RECORD, refuse_strays
from pipeline.runs.refuse_mixing import refuse_mixing


def check_vocabulary(checkpoint: Path, vocabulary: PartVocabulary) -> None:
    """Refuses a segmenter that was trained for another part vocabulary.

    A checkpoint file without a `vocabulary.json` in its run folder is taken as it is.

    Args:
        checkpoint: the segmenter's `checkpoints/<name>.ckpt`.
        vocabulary: the data's part vocabulary.

    Raises:
        UserError: if the vocabularies differ.
    """
    saved = checkpoint.parent.parent / "vocabulary.json"
    if not saved.is_file():
        return
    trained = PartVocabulary.load(saved)
    if trained.content_hash != vocabulary.content_hash:
        raise UserError(
            f"{checkpoint} is a checkpoint of another vocabulary ({trained.num_parts} parts, "
            f"{trained.content_hash[:12]}) than the data's ({vocabulary.num_parts} parts, "
            f"{vocabulary.content_hash[:12]}): use the annotations it was trained on, or delete "
            f"{saved.parent} and run make stage1-segmenter again"
        )


@dataclass(frozen=True)
class LabelOrigin:
    """The content of `labels/_shards.json`: what decides the labels of a run folder.

    Attributes:
        images: number of images.
        image_list_sha256: hash of their keys, in order.
        shard_size: images of a shard.
        vocabulary_hash: of the part vocabulary.
        settings: how they were labelled: weights and settings, or what was imported.
        format_version: of this file.
    """

    images: int
    image_list_sha256: str
    shard_size: int
    vocabulary_hash: str
    settings: Mapping[str, Any]
    format_version: int = 1

    def claim(self, run: Path) -> None:
        """Writes the file, or refuses labels that were made another way.

        Args:
            run: stage 2 run folder.

        Raises:
            UserError: if the folder's labels were made another way, or it holds other Parquet
                files than its shards.
        """
        record = run / "labels" / RECORD
        remedy = f"give the new run another NAME=, or delete {record.parent}"
        origin = refuse_mixing(record, asdict(self), remedy, record.parent.glob("[!.]*.parquet"))
        refuse_strays(run, self.images, self.shard_size)
        if not record.is_file():  # its hash is in every shard
            write_json(record, origin)
