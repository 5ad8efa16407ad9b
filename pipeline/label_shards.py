"""Stage 2 output: predictions become whole Parquet shards."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.imagenet_shards import ImageNetShards, shard_path
from datamodules.part_labels import ImageParts, PartInstance
from datamodules.part_vocabulary import PartVocabulary
from datamodules.pseudo_labels import to_table
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.stage_outputs import sha256, write_json


def to_image_parts(record: dict[str, Any]) -> ImageParts:
    """The label record of one prediction of `PseudoLabelWriter`."""
    instances = tuple(PartInstance(**instance) for instance in record["instances"])
    return ImageParts(**{**record, "instances": instances})


def write_shard(path: Path, rows: Sequence[ImageParts]) -> None:
    """Writes a shard whole or not at all: to a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        pq.write_table(to_table(rows), file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def check_vocabulary(checkpoint: Path, vocabulary: PartVocabulary) -> None:
    """Refuses a segmenter that was trained for another part vocabulary.

    A checkpoint file without a `vocabulary.json` in its run folder is taken as it is.

    Args:
        checkpoint: the segmenter's `checkpoints/<name>.ckpt`.
        vocabulary: the data's part vocabulary.

    Raises:
        ValueError: if the vocabularies differ.
    """
    saved = checkpoint.parent.parent / "vocabulary.json"
    if not saved.is_file():
        return
    trained = PartVocabulary.load(saved)
    if trained.content_hash != vocabulary.content_hash:
        raise ValueError(
            f"{checkpoint} is a checkpoint of another vocabulary ({trained.num_parts} parts, "
            f"{trained.content_hash[:12]}) than the data's ({vocabulary.num_parts} parts, "
            f"{vocabulary.content_hash[:12]}): use the annotations it was trained on, or run "
            "make stage1-segmenter again"
        )


def claim_labels(run: Path, provenance: dict[str, Any]) -> None:
    """Writes `labels/shards.json`, or refuses labels that were made another way.

    Args:
        run: stage 2 run folder.
        provenance: what decides the labels: image list, weights, settings.

    Raises:
        ValueError: if the folder's labels were made with something else.
    """
    path = run / "labels" / "shards.json"
    mend = f"give the new run another NAME=, or delete {path.parent}"
    try:
        old = json.loads(path.read_text())
    except FileNotFoundError:
        if any(path.parent.glob("*.parquet")):
            raise ValueError(
                f"{path} is missing, so how its labels were made is not known: {mend}"
            ) from None
        write_json(path, provenance)
        return
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {mend}") from None
    changed = [
        f"{name}: {old.get(name)} -> {provenance.get(name)}"
        for name in sorted(old.keys() | provenance.keys())
        if old.get(name) != provenance.get(name)
    ]
    if changed:
        raise ValueError(f"{path.parent} was made another way ({'; '.join(changed)}): {mend}")


class LabelShards(Callback):
    """Collects predictions and writes each shard once it is whole.

    Shards go to `labels/<shard>.parquet` below the trainer's `default_root_dir`, with
    `labels/shards.json` saying what they were made of. A shard that is there is valid, wherever
    a run was cut; the same command makes those that are missing.
    """

    def __init__(self) -> None:
        self._rows: list[ImageParts] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses labels or weights that do not fit, before any work.

        Raises:
            ValueError: on every rank, so that none waits for the others.
        """
        if stage != "predict" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        refusal = ""
        if trainer.is_global_zero:
            try:
                self._claim(trainer, pl_module)
            except ValueError as error:
                refusal = str(error)
        refusal = trainer.strategy.broadcast(refusal)
        if refusal:
            raise ValueError(refusal)

    def _claim(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _data(trainer)
        assert isinstance(pl_module, PseudoLabelWriter)
        check_vocabulary(pl_module.checkpoint, data.vocabulary)
        provenance = {
            **data.provenance,
            "segmenter_sha256": sha256(pl_module.checkpoint),
            **pl_module.settings,
        }
        claim_labels(Path(trainer.default_root_dir), provenance)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts without rows of an earlier, interrupted run."""
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes a batch's records, and writes the shard that they complete.

        Raises:
            ValueError: if batches do not follow each other within the shard.
        """
        if batch["shard"] < 0 or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        keys = _data(trainer).shard_keys(batch["shard"])
        self._rows += [to_image_parts(record) for record in outputs]
        if [row.key for row in self._rows] != keys[: len(self._rows)]:
            raise ValueError(
                f"batches of shard {batch['shard']} came out of order: "
                "set trainer.use_distributed_sampler to false, the data is sharded already"
            )
        if len(self._rows) == len(keys):
            write_shard(shard_path(Path(trainer.default_root_dir), batch["shard"]), self._rows)
            failed = sum(bool(row.error) for row in self._rows)
            if failed:
                warnings.warn(
                    f"shard {batch['shard']}: {failed} images could not be read, their rows "
                    "say why",
                    stacklevel=2,
                )
            self._rows = []

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for all ranks, then makes sure that no shard is missing.

        Raises:
            ValueError: if shards are missing, on every rank.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.strategy.barrier("labels written")
        missing: list[int] = []
        run, data = Path(trainer.default_root_dir), _data(trainer)
        if trainer.is_global_zero:
            missing = [
                shard for shard in range(data.num_shards) if not shard_path(run, shard).is_file()
            ]
        missing = trainer.strategy.broadcast(missing)
        if missing:
            raise ValueError(
                f"{run / 'labels'} lacks {len(missing)} of {data.num_shards} shards, the first is "
                f"{missing[0]:05d}: run the same command without trainer.limit_predict_batches"
            )


def _data(trainer: Trainer) -> ImageNetShards:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageNetShards):
        raise ValueError(f"LabelShards needs ImageNetShards as data, not {type(data).__name__}")
    return data
