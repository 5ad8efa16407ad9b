"""Order of the training items: a permutation of (seed, epoch), sharded by rank, resumable."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from lightning.pytorch import Trainer
from torch.utils.data import Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Sampler of ``(epoch, index)`` pairs whose order depends on seed and epoch alone.

    The pair lets a dataset derive its augmentation from (seed, epoch, index) in any worker
    process. Use it as ``DataLoader(dataset, batch_size=batch_size, sampler=EpochSampler(...))``.
    With ``shuffle`` the order is padded with its own head so that all ranks get equally many
    items; without it every item is handed out once, and ranks may differ by one item.

    Args:
        num_items: number of items of the dataset.
        batch_size: items in a batch of one rank; places `start_batch`.
        seed: seed of the permutations.
        shuffle: a new permutation every epoch; False keeps the order 0, 1, 2, ...
        rank: this process, in [0, world_size).
        world_size: number of processes.

    Attributes:
        epoch: epoch of the next iteration, set by `set_epoch`.
        start_batch: batches of `epoch` that are left out because they were trained on before.
            The length stays that of the whole epoch, as Lightning's loops expect.

    Raises:
        ValueError: if `num_items` or `batch_size` is not positive or `rank` is out of range.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_items < 1 or batch_size < 1:
            raise ValueError(
                f"num_items={num_items} and batch_size={batch_size} must both be positive: "
                "the data set is empty or the batch size wrong"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in [0, world_size={world_size})")
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start_batch = 0

    @classmethod
    def for_trainer(
        cls,
        trainer: Trainer | None,
        num_items: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
    ) -> Self:
        """Sampler of this rank; a shuffled one starts where the loaded checkpoint stopped.

        Lightning creates the iterator (and with workers fills it) before it sets the epoch, so
        epoch and start are read from the loops here. Build the sampler in `train_dataloader`,
        which runs after the checkpoint's loops are restored.

        Args:
            trainer: the trainer, or None outside of one (one process, epoch 0).
            num_items: number of items of the dataset.
            batch_size: items in a batch of one rank.
            seed: seed of the permutations.
            shuffle: as in the class.
        """
        if trainer is None:
            return cls(num_items, batch_size, seed, shuffle)
        sampler = cls(num_items, batch_size, seed, shuffle, trainer.global_rank, trainer.world_size)
        if not shuffle:
            return sampler
        epochs: Any = trainer.fit_loop.epoch_progress.current
        batches_done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        limit = trainer.limit_train_batches
        num_batches = max(1, len(sampler) // batch_size)
        if isinstance(limit, int):
            num_batches = min(num_batches, limit)
        elif limit is not None:
            num_batches = int(num_batches * limit)
        sampler.epoch = epochs.processed
        if epochs.processed < epochs.ready:
            finished = batches_done >= num_batches
            sampler.epoch += int(finished)
            sampler.start_batch = 0 if finished else batches_done
        return sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; `start_batch` holds only for the epoch it was given for."""
        if epoch != self.epoch:
            self.start_batch = 0
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.num_items)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_items)
            order = np.resize(order, len(self) * self.world_size)
        mine = order[self.rank :: self.world_size][self.start_batch * self.batch_size :]
        epoch = self.epoch
        for index in mine.tolist():
            yield epoch, index

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.num_items // self.world_size)
        return len(range(self.rank, self.num_items, self.world_size))
