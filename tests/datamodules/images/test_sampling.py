from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.images.sampling import EpochSampler, repeat_factors


class Pairs(Dataset[Tensor]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        return torch.tensor(pair)


class PairData(LightningDataModule):
    def __init__(self, num_workers: int = 0, repeats: np.ndarray | None = None) -> None:
        super().__init__()
        self.num_workers = num_workers
        self.repeats = repeats

    def train_dataloader(self) -> DataLoader:
        sampler = EpochSampler.for_trainer(self.trainer, 10, 2, seed=3, repeats=self.repeats)
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


REPEATS = np.array([1.0, 1.0, 1.3, 1.0, 2.5, 1.0, 1.0, 1.75, 1.0, 1.0])


def test_repeats_have_the_wanted_mean_and_a_fixed_length() -> None:
    sampler = EpochSampler(10, 2, seed=3, repeats=REPEATS)
    assert len(sampler) == 13  # 12.55, rounded up
    counts = np.zeros((400, 10))
    for epoch in range(400):
        sampler.set_epoch(epoch)
        items = [index for _, index in sampler]
        assert len(items) == 13
        counts[epoch] = np.bincount([i % 10 for i in items], minlength=10)
        assert len(set(items)) >= 12  # copies are told apart; one item pads at most
    assert (counts.min(axis=0) >= np.floor(REPEATS)).all()
    padding = 0.45 / 10  # on average, of each item
    np.testing.assert_allclose(counts.mean(axis=0), REPEATS + padding, atol=0.08)


def test_repeats_are_sharded_and_depend_on_seed_and_epoch_alone() -> None:
    whole = list(EpochSampler(10, 2, seed=3, repeats=REPEATS))
    shards = [
        list(EpochSampler(10, 2, seed=3, rank=rank, world_size=2, repeats=REPEATS))
        for rank in range(2)
    ]
    assert [len(shard) for shard in shards] == [7, 7]
    woven = [pair for pairs in zip(*shards, strict=True) for pair in pairs]
    assert woven == [*whole, whole[0]]
    cut = EpochSampler(10, 2, seed=3, repeats=REPEATS)
    cut.start_batch = 4
    assert list(cut) == whole[8:]


@pytest.mark.parametrize("repeats", [None, REPEATS])
def test_batches_are_of_one_group_over_all_ranks(repeats: np.ndarray | None) -> None:
    groups = np.array([0, 1, 0, 0, 1, 1, 0, 1, 0, 0])
    plain = list(EpochSampler(10, 1, seed=3, world_size=2, repeats=repeats))
    shards = [
        list(EpochSampler(10, 1, 3, True, rank, 2, repeats, groups=groups)) for rank in range(2)
    ]
    assert [len(shard) for shard in shards] == [len(plain)] * 2
    steps = list(zip(*shards, strict=True))
    mixed = sum(groups[a % 10] != groups[b % 10] for (_, a), (_, b) in steps)
    assert mixed <= 1  # the last step alone
    whole = EpochSampler(10, 2, seed=3, repeats=repeats)
    padded = np.resize([index for _, index in whole], 2 * len(plain))
    assert sorted(index for pair in steps for _, index in pair) == sorted(padded)


def test_groups_are_mixed_over_an_epoch() -> None:
    groups = np.repeat([0, 1], 400)
    items = np.array([i for _, i in EpochSampler(800, 8, seed=0, groups=groups)]).reshape(-1, 8)
    kinds = groups[items]
    assert (kinds == kinds[:, :1]).all()
    assert 0.3 < kinds[:50].mean() < 0.7


@pytest.mark.parametrize("stop", [4, 8])
def test_resume_with_repeats(tmp_path: Path, stop: int) -> None:
    whole, rest = Recorder(), Recorder()
    trainer(tmp_path, max_epochs=2).fit(whole, PairData(repeats=REPEATS))
    trainer(tmp_path / "rest", max_epochs=2).fit(
        rest, PairData(repeats=REPEATS), ckpt_path=tmp_path / f"step={stop}.ckpt", weights_only=True
    )
    assert len(whole.seen) == 14
    assert rest.seen == whole.seen[stop:]


def test_repeat_factors_of_lvis() -> None:
    # class 1 on all of 100 images, class 2 on four of them, class 3 on one
    classes = [{1, 2, 3}, {1, 2}, {1, 2}, {1, 2}, *({1} for _ in range(95)), set()]
    factors = repeat_factors(classes, threshold=0.16)
    expected = [4.0, 2.0, 2.0, 2.0] + [1.0] * 96
    np.testing.assert_allclose(factors, expected)
    np.testing.assert_array_equal(repeat_factors(classes, 0.0), np.ones(100))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="num_items=0"):
        EpochSampler(0, 2)
    with pytest.raises(ValueError, match="rank 2"):
        EpochSampler(4, 2, rank=2, world_size=2)
    with pytest.raises(ValueError, match="repeats"):
        EpochSampler(4, 2, repeats=np.ones(3))
    with pytest.raises(ValueError, match="groups must be 4 numbers"):
        EpochSampler(4, 2, groups=np.zeros(3, int))


def test_every_process_must_have_something_to_validate_on() -> None:
    trainer: object = SimpleNamespace(global_rank=0, world_size=4)
    sampler = EpochSampler.for_trainer(trainer, 4, 1, shuffle=False)  # type: ignore[arg-type]
    assert len(sampler) == 1
    with pytest.raises(ValueError, match=r"3 images to validate on are too few for 4 processes"):
        EpochSampler.for_trainer(trainer, 3, 1, shuffle=False)  # type: ignore[arg-type]
