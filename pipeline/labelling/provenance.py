"""What stage 2 labels were made of, and the refusal to mix them with others."""

import json
from pathlib import Path
from typing import Any

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json


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
            f"{vocabulary.content_hash[:12]}): use the annotations it was trained on, or run "
            "make stage1-segmenter again"
        )


def claim_labels(run: Path, provenance: dict[str, Any]) -> None:
    """Writes `labels/_shards.json`, or refuses labels that were made another way.

    Args:
        run: stage 2 run folder.
        provenance: what decides the labels: image list, weights, settings.

    Raises:
        UserError: if the folder's labels were made with something else.
    """
    path = run / "labels" / "_shards.json"
    mend = f"give the new run another NAME=, or delete {path.parent}"
    try:
        old = json.loads(path.read_text())
    except FileNotFoundError:
        if any(path.parent.glob("*.parquet")):
            raise UserError(
                f"{path} is missing, so how its labels were made is not known: {mend}"
            ) from None
        write_json(path, provenance)
        return
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {mend}") from None
    changed = [
        f"{name}: {old.get(name)} -> {provenance.get(name)}"
        for name in sorted(old.keys() | provenance.keys())
        if old.get(name) != provenance.get(name)
    ]
    if changed:
        raise UserError(f"{path.parent} was made another way ({'; '.join(changed)}): {mend}")
