"""The loaders that the data modules of detectors share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.images.sampling import EpochSampler

Sample = dict[str, Any]


class DetectionLoaders(LightningDataModule):
    """Loaders of a training and a validation set, which `setup` makes.

    Args:
        batch_size: images of one process and step.
        val_batch_size: the same for validation.
        num_workers: worker processes of each loader.
        seed: seed of the order.
        collate: makes a batch of samples.
    """

    train_set: Dataset[Sample] | None = None
    val_set: Dataset[Sample] | None = None

    def __init__(
        self,
        batch_size: int,
        val_batch_size: int,
        num_workers: int,
        seed: int,
        collate: Callable[[Sequence[Sample]], Sample],
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.collate = collate

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented batches of this rank; goes on where a checkpoint stopped."""
        return self._loader(self.train_set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Every validation image once, spread over the ranks."""
        return self._loader(self.val_set, self.val_batch_size, shuffle=False)

    def repeats(self) -> np.ndarray | None:
        """How often an epoch shows each training image, see `EpochSampler`; None for once."""
        return None

    def groups(self) -> np.ndarray | None:
        """Which training images go into a batch together, see `EpochSampler`; None for any."""
        return None

    def _loader(
        self, dataset: Dataset[Sample] | None, batch_size: int, shuffle: bool
    ) -> DataLoader[Sample]:
        assert dataset is not None, "setup() comes first"
        sampler = EpochSampler.for_trainer(
            self.trainer,
            len(dataset),  # type: ignore[arg-type]
            batch_size,
            self.seed,
            shuffle,
            self.repeats() if shuffle else None,
            self.groups() if shuffle else None,
        )
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=self.collate,
            drop_last=shuffle and len(sampler) >= batch_size,
        )
