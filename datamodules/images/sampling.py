"""Order of the training items: a permutation of (seed, epoch), sharded by rank, resumable."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

import numpy as np
from lightning.pytorch import Trainer
from torch.utils.data import Sampler

from datamodules.files.errors import UserError


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
        repeats: how often each item is handed out in an epoch on average, `(num_items,)`, at
            least 1; see `repeat_factors`. An epoch hands an item out that often, rounded down or
            up by chance. Copy c of item i comes as index `i + c * num_items`, so that each copy
            can be augmented in its own way. All epochs are equally long.
        groups: group of each item, `(num_items,)` integers, such as tall and wide images: a batch
            of all ranks is then of one group, but for the last few of an epoch.

    Attributes:
        epoch: epoch of the next iteration, set by `set_epoch`.
        start_batch: batches of `epoch` that are left out because they were trained on before.
            The length stays that of the whole epoch, as Lightning's loops expect.

    Raises:
        UserError: if `num_items` or `batch_size` is not positive, `rank` is out of range,
            or `repeats` or `groups` does not fit.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        repeats: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        if num_items < 1 or batch_size < 1:
            raise UserError(
                f"num_items={num_items} and batch_size={batch_size} must both be positive: "
                "the data set is empty or the batch size wrong"
            )
        if not 0 <= rank < world_size:
            raise UserError(f"rank {rank} is not in [0, world_size={world_size})")
        if repeats is not None and (len(repeats) != num_items or min(repeats) < 1 or not shuffle):
            raise UserError(f"repeats must be {num_items} numbers from 1 on, of a shuffled sampler")
        if groups is not None and (len(groups) != num_items or not shuffle):
            raise UserError(f"groups must be {num_items} numbers, of a shuffled sampler")
        self.num_items = num_items
        self.groups = groups
        self.repeats = repeats
        self.num_drawn = num_items if repeats is None else math.ceil(math.fsum(repeats))
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
        repeats: np.ndarray | None = None,
        groups: np.ndarray | None = None,
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
            repeats: as in the class.
            groups: as in the class.

        Raises:
            UserError: as in the class, or if a process has nothing to validate on.
        """
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if not shuffle:
            require_an_image_each(num_items, world_size)
        sampler = cls(num_items, batch_size, seed, shuffle, rank, world_size, repeats, groups)
        if trainer is None:
            return sampler
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
            generator = np.random.default_rng((self.seed, self.epoch))
            order = generator.permutation(self.num_items)
            if self.repeats is not None:
                order = generator.permutation(_with_copies(order, self.repeats, generator))
            order = np.resize(order, len(self) * self.world_size)
            if self.groups is not None:
                groups = self.groups[order % self.num_items]
                order = order[_batches_of_groups(groups, self.batch_size * self.world_size)]
        mine = order[self.rank :: self.world_size][self.start_batch * self.batch_size :]
        epoch = self.epoch
        for index in mine.tolist():
            yield epoch, index

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.num_drawn // self.world_size)
        return len(range(self.rank, self.num_items, self.world_size))


def require_an_image_each(num_items: int, world_size: int) -> None:
    """Refuses to validate on fewer images than there are processes.

    A process without any would skip the validation, and the others wait for it.

    Raises:
        UserError: on every process.
    """
    if num_items < world_size:
        raise UserError(
            f"{num_items} images to validate on are too few for {world_size} processes: give more "
            "images, or train on fewer processes (trainer.devices, trainer.num_nodes)"
        )


def repeat_factors(classes: Sequence[Collection[int]], threshold: float) -> np.ndarray:
    """How often each image is to be shown in an epoch, so that rare classes are seen more.

    Repeat-factor sampling of LVIS (Gupta et al. 2019, appendix): a class that a fraction f of
    the images shows has r = max(1, sqrt(threshold / f)), an image the largest r of its classes.

    Args:
        classes: the classes that each image shows; an image without any has factor 1.
        threshold: fraction of images below which a class is repeated, in [0, 1]; 0 is off.

    Returns:
        float64 `(len(classes),)`, at least 1.
    """
    counts = Counter(c for shown in classes for c in set(shown))
    factors = {c: math.sqrt(threshold * len(classes) / n) for c, n in counts.items()}
    return np.array([max((factors[c] for c in shown), default=1.0) for shown in classes]).clip(1)


def _with_copies(
    order: np.ndarray, repeats: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Every item `repeats` times, rounded by chance so that the total hardly varies.

    One random offset rounds the running sum of the repeats in a random order (systematic
    sampling): each item's own count has the wanted mean, and the epoch's length is known.
    """
    ends = np.floor(np.cumsum(repeats[order]) + generator.random()).astype(np.int64)
    copies = np.diff(ends, prepend=0)
    rank = np.arange(ends[-1]) - np.repeat(ends - copies, copies)
    return np.repeat(order, copies) + rank * len(order)


def _batches_of_groups(groups: np.ndarray, size: int) -> np.ndarray:
    """Positions in `groups`, so that each batch of `size` is of one group as long as there are.

    A batch takes the place of its last item, so the groups stay mixed over the epoch.
    """
    ready: list[int] = []
    waiting: dict[int, list[int]] = {}
    for position, group in enumerate(groups.tolist()):
        batch = waiting.setdefault(group, [])
        batch.append(position)
        if len(batch) == size:
            ready += waiting.pop(group)
    return np.array(ready + [position for batch in waiting.values() for position in batch])
