"""Few-shot classification by the command line, against loops in NumPy over its own features."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import ttest_1samp, ttest_rel

from datamodules.evaluation.few_shot_episodes import EpisodeRules, draw_episodes
from datamodules.evaluation.few_shot_images import FewShotImages
from datamodules.files.errors import UserError
from datamodules.images.image_files import read_image
from modules.weights.frozen_features import open_features
from pipeline.__main__ import main as command
from pipeline.few_shot import extraction
from pipeline.few_shot.comparison import compare_runs
from pipeline.few_shot.feature_store import FeatureStore
from pipeline.few_shot.summary import FewShotComparison, FewShotSummary
from tests.modules.tiny_classifier import export_tiny_classifier

EPISODES, QUERIES, SHOTS = 12, 4, (1, 3)
RULES = EpisodeRules(3, SHOTS, QUERIES, EPISODES, 7)
SMALL = ["--way=3", "--shots=[1,3]", f"--queries={QUERIES}", f"--episodes={EPISODES}", "--seed=7"]


def measure(model: Path, root: Path, out: Path, *more: str, pinpp: bool = True) -> int:
    args = ["few_shot", f"--model={model}", f"--imagenet={root / 'imagenet'}", f"--out={out}"]
    args += [f"--pinpp={root / 'pinpp'}"] if pinpp else []
    return command([*args, "--workers=0", "--batch_size=7", "--device=cpu", *SMALL, *more])


def scores(run: Path) -> dict[tuple[str, int, str], list[float]]:
    found: dict[tuple[str, int, str], list[float]] = {}
    rows = pq.read_table(run / "episodes.parquet").to_pylist()
    for row in sorted(rows, key=lambda one: one["episode"]):
        assert row["accuracy"] == row["right"] / row["queries"]
        place = (row["view"], row["shots"], row["classifier"])
        assert row["episode"] == len(found.setdefault(place, []))
        found[place].append(row["accuracy"])
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network, and one of other weights: its classes are fewer, so it is drawn otherwise."""
    root = tmp_path_factory.mktemp("models")
    one, other = (export_tiny_classifier(root / f"m{n}", n, image_size=32) for n in (3, 4))
    weights = other / "export" / "model.safetensors"
    state = load_file(weights)
    state["conv1.0.weight"] = state["conv1.0.weight"].flip(0)
    save_file(state, weights)
    return one, other


@pytest.fixture(scope="module")
def run(
    models: tuple[Path, Path], shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "few_shot" / "one"
    assert measure(models[0], shapes_root, folder) == 0
    return folder


def brute_force(vectors: dict[str, np.ndarray], classifier: str, shots: int, root: Path) -> Any:
    """Accuracies by loops, logistic regression by SciPy with a gradient that it estimates."""
    images = FewShotImages.read(root / "imagenet", root / "pinpp")
    accuracies = []
    for episode in draw_episodes(images.by_class, RULES):
        support = [[vectors[key] for key in keys[:shots]] for keys in episode.support]
        right = total = 0
        weights = None
        if classifier == "linear_probe":
            x = np.array([vector for vectors in support for vector in vectors])
            y = np.repeat(np.arange(3), shots)

            def loss(flat: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
                table = flat.reshape(3, -1)
                logits = log_softmax(x @ table[:, :-1].T + table[:, -1], axis=1)
                return float((table[:, :-1] ** 2).sum() / 2 - logits[range(len(y)), y].sum())

            start = np.zeros(3 * (x.shape[1] + 1))
            weights = minimize(loss, start, method="L-BFGS-B", options={"ftol": 1e-14}).x
        for label, keys in enumerate(episode.queries):
            for key in keys:
                if weights is None:
                    means = [np.mean(vectors_, axis=0) for vectors_ in support]
                    near = [np.linalg.norm(vectors[key] - mean) for mean in means]
                    answer = int(np.argmin(near))
                else:
                    table = weights.reshape(3, -1)
                    answer = int(np.argmax(table[:, :-1] @ vectors[key] + table[:, -1]))
                right, total = right + (answer == label), total + 1
        accuracies.append(right / total)
    return accuracies


def stored(run: Path, view: str) -> dict[str, np.ndarray]:
    rows = [
        row
        for file in (run / "features").glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
    ]
    return {row["key"]: np.array(row[view], np.float64) for row in rows}


@pytest.mark.parametrize("view", ["image", "box"])
@pytest.mark.parametrize("classifier", ["nearest_mean", "linear_probe"])
def test_accuracies_are_those_of_loops(
    view: str, classifier: str, run: Path, shapes_root: Path
) -> None:
    found = scores(run)
    assert set(found) == {
        (view, shots, name)
        for view in ("image", "box")
        for shots in SHOTS
        for name in ("nearest_mean", "linear_probe")
    }
    vectors = {key: v / np.linalg.norm(v) for key, v in stored(run, view).items()}
    for shots in SHOTS:
        expected = brute_force(vectors, classifier, shots, shapes_root)
        assert found[view, shots, classifier] == expected
        assert len(set(expected)) > 1


def test_features_are_those_of_the_network(
    run: Path, models: tuple[Path, Path], shapes_root: Path
) -> None:
    images = FewShotImages.read(shapes_root / "imagenet", shapes_root / "pinpp")
    assert images.boxes is not None
    whole, box = stored(run, "image"), stored(run, "box")
    assert whole.keys() == box.keys() == {k for keys in images.by_class.values() for k in keys}
    network = open_features(models[0]).network
    key = min(whole)
    picture = read_image(images.root / key)
    known = images.boxes[key].box
    side = max(known.width, known.height)
    for vector, crop in (
        (whole[key], picture.resize((36, 36), 3).crop((2, 2, 34, 34))),
        (box[key], None),
    ):
        if crop is None:
            left = min(max((known.left + known.right - side) // 2, 0), 64 - side)
            top = min(max((known.top + known.bottom - side) // 2, 0), 64 - side)
            crop = picture.crop((left, top, left + side, top + side)).resize((32, 32), 3)
        pixels = np.asarray(crop).transpose(2, 0, 1)[None] / np.float32(255)
        expected = network(torch.from_numpy(pixels))[0].double().numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_the_summary_is_that_of_the_episodes(run: Path, models: tuple[Path, Path]) -> None:
    summary = FewShotSummary.read(run)
    assert summary.model == str(models[0])
    drawn = summary.drawn
    assert (drawn.way, drawn.queries, drawn.episodes, drawn.classes, drawn.images) == (
        *(3, QUERIES, EPISODES),
        *(3, 24),
    )
    found = scores(run)
    assert [(row.view, row.shots, row.classifier) for row in summary.rows] == list(found)
    for row in summary.rows:
        values = found[row.view, row.shots, row.classifier]
        interval = ttest_1samp(values, 0).confidence_interval(0.95)
        assert row.accuracy == pytest.approx(np.mean(values))
        assert list(row.ci95) == pytest.approx([interval.low, interval.high])
        assert row.episodes == EPISODES


def test_two_models_are_paired_by_episode(
    run: Path, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = tmp_path / "other"
    assert measure(models[1], shapes_root, other, f"--against={run}") == 0
    assert "other less one, paired by episode" in capsys.readouterr().out
    comparison = FewShotComparison.read(other / "against" / "one")
    assert (comparison.model, comparison.against) == ("other", "one")
    ours, theirs = scores(other), scores(run)
    assert ours != theirs
    for row in comparison.rows:
        place = (row.view, row.shots, row.classifier)
        interval = ttest_rel(ours[place], theirs[place]).confidence_interval(0.95)
        assert row.accuracy == pytest.approx(np.mean(ours[place]) - np.mean(theirs[place]))
        assert list(row.ci95) == pytest.approx([interval.low, interval.high])
    assert FewShotSummary.read(other).drawn.sha256 == FewShotSummary.read(run).drawn.sha256
    # as if stopped between new episodes and their summary
    summary = (other / "summary.json").read_text()
    assert measure(models[1], shapes_root, other, "--episodes=15") == 0
    (other / "summary.json").write_text(summary)
    assert compare_runs(other, run) == comparison


def test_other_episodes_are_not_compared(
    run: Path, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    against = f"--against={run}"
    assert measure(models[1], shapes_root, tmp_path / "b", against, "--seed=8") == 1
    assert f"{run} was measured on other episodes" in capsys.readouterr().err
    assert measure(models[1], shapes_root, tmp_path / "b", f"--against={tmp_path}") == 1
    assert "holds no results of few-shot classification" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_stopped_run_goes_on(
    run: Path, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(extraction, "SHARD_SIZE", 7)
    add, asked = FeatureStore.add, []

    def stop_at_the_second(store: FeatureStore, keys: Any, features: np.ndarray) -> None:
        if len(store.shards) == 1 and not asked:
            asked.append(True)
            raise KeyboardInterrupt
        add(store, keys, features)

    monkeypatch.setattr(FeatureStore, "add", stop_at_the_second)
    assert measure(models[0], shapes_root, tmp_path / "run") == 1
    assert not (tmp_path / "run" / "summary.json").exists()
    first = (tmp_path / "run" / "features" / "00000.parquet").stat().st_mtime_ns
    assert measure(models[0], shapes_root, tmp_path / "run") == 0
    assert (tmp_path / "run" / "features" / "00000.parquet").stat().st_mtime_ns == first
    assert len(stored(tmp_path / "run", "box")) == 24
    assert scores(tmp_path / "run") == scores(run)
    # a finished one is not computed again, more episodes are added to it
    monkeypatch.setattr(FeatureStore, "add", None)
    assert measure(models[0], shapes_root, tmp_path / "run", "--episodes=15") == 0
    more = scores(tmp_path / "run")
    assert {place: values[:EPISODES] for place, values in more.items()} == scores(run)
    assert {len(values) for values in more.values()} == {15}


def test_a_run_folder_keeps_to_one_origin(
    run: Path, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for model, change, message in (
        (models[1], "--way=3", "was made another way (model: "),
        (models[0], "--normalise=false", "was made another way (probe.normalise: True -> False)"),
        (models[0], "--margin=0.5", "was made another way (margin: 0.0 -> 0.5)"),
        (models[0], "--way=2", "was made another way (drawn.way: 3 -> 2)"),
        (models[0], "--episodes=3", f"holds {EPISODES} episodes: give --episodes {EPISODES}"),
    ):
        assert measure(model, shapes_root, run, change) == 1
        assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shared = f"--features={run / 'features'}"
    assert measure(models[0], shapes_root, tmp_path / "raw", shared, "--normalise=false") == 0
    assert not (tmp_path / "raw" / "features").exists()
    assert FewShotSummary.read(tmp_path / "raw").normalised is False
    plain = brute_force(stored(run, "box"), "nearest_mean", 3, shapes_root)
    assert scores(tmp_path / "raw")["box", 3, "nearest_mean"] == plain


def test_other_files_under_the_same_names_are_refused(
    run: Path, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = shutil.copytree(shapes_root, tmp_path / "data")
    assert measure(models[0], data, run) == 0  # a copy is the same
    images = FewShotImages.read(data / "imagenet", data / "pinpp")
    image = images.root / next(iter(images.by_class.values()))[0]
    image.write_bytes(image.read_bytes() + b"\0")
    assert measure(models[0], data, run) == 1
    assert "was made another way (files: " in capsys.readouterr().err
    image.unlink()
    assert measure(models[0], data, run) == 1
    assert image.name in capsys.readouterr().err


def test_val_alone_is_enough_for_whole_images(
    models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small = ["--queries=2", "--shots=[1,2]"]
    assert measure(models[0], shapes_root, tmp_path / "run", *small, pinpp=False) == 0
    assert {view for view, _, _ in scores(tmp_path / "run")} == {"image"}
    assert "whether the 3 classes are new to the model is not recorded" in capsys.readouterr().out
    assert measure(models[0], shapes_root, tmp_path / "b", pinpp=False) == 1
    said = capsys.readouterr().err
    assert "3 shots and 4 queries need 7 of each class" in said
    assert not (tmp_path / "b").exists()


def test_what_the_model_was_trained_on_is_said(
    models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = sorted(path.name for path in (shapes_root / "imagenet" / "train").iterdir())
    for number, objects in enumerate(([names[1], "x", "y"], ["x", "y", "z"])):
        model = Path(shutil.copytree(models[0], tmp_path / f"model{number}"))
        vocabulary = {"objects": objects, "parts": [], "inclusions": []}
        (model / "vocabulary.json").write_text(json.dumps(vocabulary))
        assert measure(model, shapes_root, tmp_path / f"run{number}") == 0
        assert FewShotSummary.read(tmp_path / f"run{number}").drawn.trained_classes == 1 - number
    said = capsys.readouterr().out
    assert "1 of the 3 classes are not new: the model was trained on them" in said
    assert "none of the 3 classes is among those the model was trained on" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--probe_strength=0", "probe_strength is 0.0: it must be above 0"),
        ("--image_size=0", "image_size is 0"),
        ("--batch_size=0", "batch_size=0 must be 1 or more"),
        ("--margin=-1", "margin is -1.0"),
        ("--classes=gone", "list of classes gone does not exist"),
        ("--pinpp=gone", "holds no annotation files"),
        ("--model=gone", "model gone does not exist"),
    ],
)
def test_wrong_settings_are_one_line(
    change: str, message: str, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert measure(models[0], shapes_root, tmp_path / "run", change) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "episodes.parquet").exists()


def test_damaged_features_are_named(
    run: Path, models: tuple[Path, Path], shapes_root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "summary.json").unlink()
    shard = copy / "features" / "00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert measure(models[0], shapes_root, copy) == 1
    assert f"{shard} is damaged" in capsys.readouterr().err
    shard.unlink()
    assert measure(models[0], shapes_root, copy) == 0
    assert scores(copy) == scores(run)
    with pytest.raises(UserError, match="has no features of x"):
        FeatureStore(copy / "features", ["image", "box"]).read(["x"])


def test_settings_may_change_until_there_are_results(
    models: tuple[Path, Path], shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "add", stop)
        assert measure(models[0], shapes_root, tmp_path / "run") == 1
    assert measure(models[1], shapes_root, tmp_path / "run", "--seed=8", "--margin=0.1") == 0
    record = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (record["drawn"]["seed"], record["margin"]) == (8, 0.1)
