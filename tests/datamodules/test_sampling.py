from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.sampling import EpochSampler


class Pairs(Dataset[Tensor]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        return torch.tensor(pair)


class PairData(LightningDataModule):
    def __init__(self, num_workers: int = 0) -> None:
        super().__init__()
        self.num_workers = num_workers

    def train_dataloader(self) -> DataLoader:
        sampler = EpochSampler.for_trainer(self.trainer, 10, 2, seed=3)
        return DataLoader(Pairs(), batch_size=2, sampler=sampler, num_workers=self.num_workers)


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[list[list[int]]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(batch.tolist())
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(root: Path, **kwargs: object) -> Trainer:
    return Trainer(
        default_root_dir=root,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(root, filename="{step}", every_n_train_steps=1, save_top_k=-1)],
        **kwargs,
    )


def test_shards_partition_each_epoch() -> None:
    shards = [EpochSampler(10, 2, seed=1, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(index for shard in shards for _, index in shard) == list(range(10))
    first = list(shards[0])
    shards[0].set_epoch(1)
    assert [epoch for epoch, _ in shards[0]] == [1] * 5
    assert [i for _, i in shards[0]] != [i for _, i in first]
    shards[0].set_epoch(0)
    assert list(shards[0]) == first


def test_training_pads_and_validation_does_not() -> None:
    train = [EpochSampler(7, 2, rank=rank, world_size=3) for rank in range(3)]
    assert [len(list(s)) for s in train] == [len(s) for s in train] == [3, 3, 3]
    val = [EpochSampler(7, 2, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    assert [len(list(s)) for s in val] == [len(s) for s in val] == [3, 2, 2]
    assert sorted(index for s in val for _, index in s) == list(range(7))


def test_start_batch_skips_within_its_epoch_only() -> None:
    sampler = EpochSampler(10, 3)
    whole = list(sampler)
    sampler.start_batch = 2
    assert list(sampler) == whole[6:]
    assert len(sampler) == 10
    sampler.set_epoch(1)
    assert len(list(sampler)) == 10


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("stop", [3, 5, 7])
def test_resume_continues_the_order(tmp_path: Path, stop: int, num_workers: int) -> None:
    whole = Recorder()
    trainer(tmp_path, max_epochs=3).fit(whole, PairData())
    rest = Recorder()
    trainer(tmp_path / "rest", max_epochs=3).fit(
        rest, PairData(num_workers), ckpt_path=tmp_path / f"step={stop}.ckpt", weights_only=True
    )
    assert len(whole.seen) == 15
    assert rest.seen == whole.seen[stop:]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="num_items=0"):
        EpochSampler(0, 2)
    with pytest.raises(ValueError, match="rank 2"):
        EpochSampler(4, 2, rank=2, world_size=2)
