"""What the pictures of a page were made of, and the refusal to add others to them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.files.json_files import write_json
from datamodules.labels.label_set import provenance_hash
from pipeline.browse.drawn import FOLDER
from pipeline.browse.evaluated import SHAPE, Evaluated, runs_of
from pipeline.browse.subjects import LabelSource
from pipeline.runs.manifest import MANIFEST, sha256
from pipeline.runs.refuse_mixing import refuse_mixing
from pipeline.runs.stages import EVALUATION

RECORD, FORMAT_VERSION = "made_of.json", 1


def page_folder(evaluation: Path) -> Path:
    """Where the page of an evaluation lies by default: `RUNS/browse/MODEL`."""
    runs, whole = runs_of(evaluation), evaluation.absolute()
    below = whole.relative_to(runs).parts
    names = below[1:] if below[0] == EVALUATION.name else below
    return runs / "browse" / "_".join(names)


def claim(
    out: Path, evaluated: Evaluated, labels: LabelSource, pinpp: Path | None, segment: bool
) -> None:
    """Writes `made_of.json`, or refuses a folder whose pictures were made of something else.

    Masks that become known later are no contradiction, as images that lack them are drawn anew.

    Args:
        out: folder of the page.
        evaluated: the evaluation.
        labels: where pseudo labels come from.
        pinpp: annotations of train images; None if no train image is shown.
        segment: whether the segmenter labels images for the page.

    Raises:
        UserError: naming what differs.
    """
    data = evaluated.data
    masks = {"evaluated": data.annotations_hash}
    if pinpp is not None:
        masks["train"] = _hash_of(pinpp)
    if labels.run is not None:
        masks["stage 2"] = provenance_hash(labels.run) or _hash_of(labels.run, "labels/*.parquet")
    if segment and labels.segmenter is not None and (labels.segmenter / MANIFEST).is_file():
        settings = json.dumps(dict(labels.settings), sort_keys=True, default=str)
        digest = hashlib.sha256(settings.encode()).hexdigest()
        masks["this page"] = f"{sha256(labels.segmenter / MANIFEST)} {digest}"
    origin: Mapping[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": evaluated.evaluator.fingerprint,
        "images": {name: evaluated.settings.get(name) for name in SHAPE},
        "vocabulary": data.vocabulary.content_hash,
        "subset": data.settings["subset"],
        "attack": evaluated.threat.settings,
        "min_score": labels.min_score,
        "masks": {name: digest for name, digest in masks.items() if digest is not None},
    }
    remedy = "give the page another OUT=, or delete the folder"
    plain = json.loads(json.dumps(origin, default=str))  # as it will be read
    pictures = (out / FOLDER).glob("*.jpg")
    write_json(out / RECORD, refuse_mixing(out / RECORD, plain, remedy, pictures, growing="masks"))


def _hash_of(folder: Path, pattern: str = "json/[!.]*.json") -> str:
    """SHA-256 of the contents of some files, by name."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob(pattern)):
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()
