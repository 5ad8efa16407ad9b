"""Stage 2 output: predictions become whole Parquet shards, beside the network's work."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

from datamodules.files.errors import UserError
from datamodules.labels.label_set import shard_path
from datamodules.labels.pseudo_labels import write_labels
from datamodules.labels.shard_claims import cannot_write
from datamodules.masks.part_labels import ImageParts, PartInstance
from modules.pseudo_label_writer import encode_record


def to_image_parts(record: dict[str, Any]) -> ImageParts:
    """The label record of one prediction of `PseudoLabelWriter`."""
    encoded = encode_record(record)
    instances = tuple(PartInstance(**instance) for instance in encoded["instances"])
    return ImageParts(**{**encoded, "instances": instances})


def write_shard(path: Path, rows: Sequence[ImageParts], source: str = "") -> None:
    """Writes a shard whole or not at all: to a temporary name first, then renamed.

    Args:
        path: the shard's file; its folder is made if it is missing.
        rows: labels of its images, in order.
        source: `label_set.provenance_hash` of the run, kept in the file.

    Raises:
        UserError: if the file cannot be written; nothing of it stays then.
    """
    try:
        write_labels(path, rows, source)
    except OSError as error:
        raise cannot_write(path, error) from None


class ShardWriter:
    """Encodes masks and writes shards in background threads.

    Batches may come from several shards and in any order; a shard is written when its last batch
    is encoded. At most `pending` batches are held that are not encoded yet, so memory has a
    bound; then `add` waits. What goes wrong in a thread is raised by the next `add` or `close`.

    Args:
        run: stage 2 run folder.
        source: `label_set.provenance_hash` of the run.
        threads: number of background threads.
        pending: bound of the batches that are waiting or being encoded.
        max_error_share: a shard with a larger share of error rows is not written.

    Attributes:
        shards: the shards that were written.
        errors: how many of their images could not be labelled.
    """

    def __init__(
        self,
        run: Path,
        source: str,
        threads: int = 2,
        pending: int = 4,
        max_error_share: float = 0.5,
    ) -> None:
        self.run = run
        self.max_error_share = max_error_share
        self.source = source
        self.shards: list[int] = []
        self.errors = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="labels")
        self._slots = BoundedSemaphore(pending)
        self._lock = Lock()
        self._open: dict[int, dict[int, list[ImageParts]]] = {}  # shard -> first image -> rows
        self._failure: BaseException | None = None

    def add(self, shard: int, start: int, length: int, records: list[dict[str, Any]]) -> None:
        """Takes a batch of predictions, once there is room.

        Args:
            shard: the batch's shard.
            start: position of the first image in it.
            length: number of images of the whole shard.
            records: what `PseudoLabelWriter.predict_step` gave.

        Raises:
            UserError: if an earlier shard cannot be written.
        """
        self._slots.acquire()
        if self._failure:
            self._slots.release()
            raise self._failure
        self._pool.submit(self._encode, shard, start, length, records)

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: if a shard cannot be written.
        """
        self._pool.shutdown()
        if self._failure:
            raise self._failure

    def abandon(self) -> None:
        """Drops what is not encoded yet; a shard that is being written is finished."""
        self._pool.shutdown(cancel_futures=True)

    def _encode(self, shard: int, start: int, length: int, records: list[dict[str, Any]]) -> None:
        try:
            rows = [to_image_parts(record) for record in records]
            with self._lock:
                batches = self._open.setdefault(shard, {})
                batches[start] = rows
                whole = sum(map(len, batches.values())) == length
                if whole:
                    del self._open[shard]
        except BaseException as error:
            self._failure = self._failure or error
            return
        finally:
            self._slots.release()
        if whole and not self._failure:
            self._write(shard, [row for first in sorted(batches) for row in batches[first]])

    def _write(self, shard: int, rows: list[ImageParts]) -> None:
        try:
            reasons = [f"{row.key}: {row.error}" for row in rows if row.error]
            failed = len(reasons)
            if failed > self.max_error_share * len(rows):
                raise UserError(
                    f"shard {shard}: {failed} of {len(rows)} images could not be labelled, more "
                    f"than the share max_error_share={self.max_error_share}, the first is "
                    f"{reasons[0]}; mend the cause, or raise max_error_share of PseudoLabelShards"
                )
            write_shard(shard_path(self.run, shard), rows, self.source)
            with self._lock:
                self.shards.append(shard)
                self.errors += failed
            if failed:
                warnings.warn(
                    f"shard {shard}: {failed} images could not be labelled, their rows say why",
                    stacklevel=2,
                )
        except BaseException as error:
            self._failure = self._failure or error
