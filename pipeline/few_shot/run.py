"""Few-shot classification of one model: features, episodes, results in a run folder."""

import os
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.evaluation.few_shot_episodes import (
    Episode,
    EpisodeRules,
    draw_episodes,
    episodes_hash,
)
from datamodules.evaluation.few_shot_images import FewShotImages
from datamodules.evaluation.few_shot_views import FewShotViews
from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.images.image_lists import sizes_hash
from modules.networks.preprocessing import ImageFormat
from modules.weights.frozen_features import OpenedFeatures, open_features
from pipeline.evaluation.class_agreement import VOCABULARY, recorded_classes
from pipeline.evaluation.intervals import mean_interval
from pipeline.few_shot.comparison import (
    AGAINST,
    EPISODES,
    compare_runs,
    read_scores,
    require_same_episodes,
)
from pipeline.few_shot.episode_scores import accuracies, score_episodes, settings_of
from pipeline.few_shot.extraction import extract_features
from pipeline.few_shot.feature_store import FeatureStore
from pipeline.few_shot.settings import ExtractionSettings, ProbeSettings
from pipeline.few_shot.summary import EpisodeFacts, FewShotRow, FewShotSummary
from pipeline.few_shot.table import print_comparison, print_summary
from pipeline.runs.refuse_mixing import refuse_mixing

SETTINGS = "settings.json"
OTHER_NAME = "give another NAME=, or delete the folder"


def few_shot(
    model: Path,
    images: FewShotImages,
    out: Path,
    rules: EpisodeRules,
    probe: ProbeSettings,
    extraction: ExtractionSettings,
    *,
    features: Path | None = None,
    against: Path | None = None,
) -> FewShotSummary:
    """Measures a model; what is there already is not computed again.

    Args:
        model: see `open_features`.
        images: to draw from.
        out: run folder.
        rules: what an episode consists of.
        probe: how features are classified.
        extraction: how features are computed.
        features: folder that keeps them; None for one in the run folder.
        against: run folder of another model, to be compared with.

    Raises:
        MissingInputError: if the model, an image or the other run is missing.
        UserError: if images are too few, or a folder holds something made another way.
    """
    episodes = draw_episodes(images.by_class, rules)
    sha256 = episodes_hash(episodes)
    if against is not None:
        require_same_episodes(against, sha256)
    opened = open_features(model)
    squares = extraction.squares(opened.images)
    made_from = {
        "model": opened.fingerprint,
        "squares": asdict(squares),
        "split": images.root.name,
        "views": list(images.views),
        "margin": extraction.margin if images.boxes is not None else None,
        "boxes": images.boxes_hash,
        "files": sizes_hash(images.root, sorted(chain.from_iterable(images.by_class.values()))),
    }
    origin = _origin(out, made_from, images, rules, probe)
    summary = FewShotSummary.find(out)
    if summary is not None and summary.drawn.episodes > rules.episodes:
        raise UserError(
            f"{out} holds {summary.drawn.episodes} episodes: give --episodes "
            f"{summary.drawn.episodes} or more, or another NAME="
        )
    if summary is None or summary.drawn.sha256 != sha256 or not (out / EPISODES).is_file():
        keys = sorted(set().union(*(episode.keys for episode in episodes)))
        store = FeatureStore(features or out / "features", images.views)
        _extract(opened, images, keys, store, made_from, squares, extraction)
        write_json(out / SETTINGS, origin)
        _score(store, keys, episodes, rules, probe, out)
        facts = _facts(model, images, rules, sha256)
        summary = FewShotSummary(str(model), opened.what, probe.normalise, facts, _rows(out))
        summary.write(out)
    print_summary(summary)
    if against is not None:
        comparison = compare_runs(out, against)
        comparison.write(out / AGAINST / against.resolve().name)
        print_comparison(comparison)
    return summary


def _origin(
    out: Path,
    made_from: dict[str, Any],
    images: FewShotImages,
    rules: EpisodeRules,
    probe: ProbeSettings,
) -> dict[str, Any]:
    """What the results of a run folder come from; refused where it holds those of another."""
    drawn = {name: value for name, value in asdict(rules).items() if name != "episodes"}
    every = {name: list(keys) for name, keys in images.by_class.items()}
    origin = made_from | {
        "drawn": drawn | {"shots": list(rules.shots)},
        "probe": asdict(probe),
        "images": episodes_hash([Episode(tuple(every), tuple(images.by_class.values()), ())]),
    }
    outputs = [out / name for name in (EPISODES, FewShotSummary.file) if (out / name).exists()]
    return refuse_mixing(out / SETTINGS, origin, OTHER_NAME, outputs) if outputs else origin


def _extract(
    opened: OpenedFeatures,
    images: FewShotImages,
    keys: list[str],
    store: FeatureStore,
    made_from: dict[str, Any],
    squares: ImageFormat,
    settings: ExtractionSettings,
) -> None:
    record, shards = store.folder / SETTINGS, store.shards
    # without features there is nothing to mix
    write_json(
        record, refuse_mixing(record, made_from, OTHER_NAME, shards) if shards else made_from
    )
    missing = store.missing(keys)
    if not missing:
        return
    opened.network.require_size(squares.size)
    data = FewShotViews(
        images,
        missing,
        squares.size,
        squares.resize,
        "bilinear" if squares.interpolation == "bilinear" else "bicubic",
        settings.margin,
    )
    workers = len(os.sched_getaffinity(0)) if settings.workers is None else settings.workers
    extract_features(
        opened.network,
        data,
        store,
        batch_size=settings.batch_size,
        workers=workers,
        device=settings.place(),
    )


def _score(
    store: FeatureStore,
    keys: list[str],
    episodes: list[Episode],
    rules: EpisodeRules,
    probe: ProbeSettings,
    out: Path,
) -> None:
    tables = score_episodes(
        store.read(keys),
        keys,
        episodes,
        rules.shots,
        normalise=probe.normalise,
        probe_strength=probe.strength,
    )
    with written_whole(out / EPISODES) as partial:
        pq.write_table(pa.concat_tables(list(tables)), partial)


def _rows(out: Path) -> list[FewShotRow]:
    table = read_scores(out)
    rows = []
    for setting in settings_of(table):
        values = accuracies(table, setting)
        mean, interval = mean_interval(values)
        rows.append(FewShotRow(*setting, mean, list(interval), len(values)))
    return rows


def _facts(model: Path, images: FewShotImages, rules: EpisodeRules, sha256: str) -> EpisodeFacts:
    known = _trained_on(model)
    return EpisodeFacts(
        rules.way,
        rules.queries,
        rules.episodes,
        rules.seed,
        sha256,
        len(images.by_class),
        sum(map(len, images.by_class.values())),
        None if known is None else len(set(known) & images.by_class.keys()),
    )


def _trained_on(model: Path) -> tuple[str, ...] | None:
    """Names of the classes that a model's folder says it was trained on; None if it does not."""
    if (model / VOCABULARY).is_file():
        return PartVocabulary.load(model / VOCABULARY).objects
    try:
        return recorded_classes(model)
    except MissingInputError:  # a checkpoint alone
        return None
