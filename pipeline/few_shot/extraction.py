"""Computes the features of all images that have none yet."""

from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from datamodules.evaluation.few_shot_views import FewShotViews
from modules.networks.images import as_float
from modules.weights.frozen_features import FrozenFeatures
from pipeline.few_shot.feature_store import FeatureStore

SHARD_SIZE = 1024  # images; what a stop loses at most


def extract_features(
    network: FrozenFeatures,
    data: FewShotViews,
    store: FeatureStore,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> None:
    """Adds the features of all images of `data` to the store, shard by shard.

    Args:
        network: in eval mode.
        data: images that the store does not have.
        store: takes the features.
        batch_size: images that go through the network at once.
        workers: processes that read images; 0 reads in this one.
        device: to compute on.

    Raises:
        MissingInputError: if an image is missing.
        UserError: if an image cannot be decoded or features are not finite.
    """
    network = network.to(device)
    loader = DataLoader(data, batch_size, num_workers=workers)
    keys: list[str] = []
    parts: list[np.ndarray] = []
    steps = track(loader, "Features", len(loader), console=Console(stderr=True))
    for batch in steps:
        views = batch["views"].to(device)
        features = network(as_float(views.flatten(0, 1)))
        parts.append(features.float().cpu().numpy().reshape(*views.shape[:2], -1))
        keys += batch["key"]
        if len(keys) >= SHARD_SIZE:
            _flush(store, keys, parts)
            keys, parts = [], []
    if keys:
        _flush(store, keys, parts)


def _flush(store: FeatureStore, keys: Sequence[str], parts: Sequence[np.ndarray]) -> None:
    store.add(keys, np.concatenate(parts))
