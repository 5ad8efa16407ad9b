import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import ttest_1samp
from torch import Tensor

from datamodules.corruptions.frost_overlays import OVERLAY_FILES
from datamodules.evaluation.attack_units import wilson_interval
from datamodules.evaluation.background_swaps import BackgroundSwaps
from datamodules.evaluation.corruption_sets import Corruptions
from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
)
from datamodules.evaluation.ood_sets import ClassFolders
from datamodules.files.errors import UserError
from datamodules.generalisation import GeneralisationDataModule
from datamodules.images.image_lists import sizes_hash
from modules.generalisation_evaluator import GeneralisationEvaluator
from pipeline.evaluation.generalisation_records import GeneralisationRecords, mean_rows
from pipeline.evaluation.summaries import SetRow
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.evaluation.evaluation_runs import contents, quiet_trainer


class Noise(EvaluationSource, EvaluationSet):
    """Seeded noise in two groups, 7 images; fails after so many, if told to."""

    name = "noise"
    table = "texture"

    def __init__(self, left: int = -1, seed: int = 0) -> None:
        self.left = left
        self.settings = {"noise": seed}

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        self.groups = torch.tensor([1, -1, 0])
        self.group_names = ("first", "second")
        return [self]

    def items(self) -> Sequence[tuple[str, int]]:
        return [(f"image {i}", i % 2) for i in range(7)]

    def image(self, key: str) -> Tensor:
        if self.left == 0:
            raise RuntimeError("power cut")
        self.left -= 1
        generator = torch.Generator().manual_seed(int(key.split()[1]))
        return torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=generator)

    def figures(
        self, keys: Sequence[str], labels: Sequence[int], predictions: Sequence[int]
    ) -> dict[str, float]:
        return {"seconds": sum(predictions) / len(keys)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_classifier(tmp_path_factory.mktemp("stage3_mpm"), num_classes=3)


def evaluate(
    model: Path, root: Path, run: Path, noise: Noise | None = None, **options: object
) -> GeneralisationDataModule:
    sources: dict[str, EvaluationSource] = {
        "val": ClassFolders("val", root / "imagenet" / "val"),
        "noise": noise or Noise(),
        "background": BackgroundSwaps(root / "val_parts"),
        "sketch": ClassFolders("sketch", None),
    }
    sources = options.pop("sources", sources)  # type: ignore[assignment]
    max_images = options.pop("max_images", None)
    sets = GeneralisationDataModule(
        root / "imagenet",
        root / "pinpp",
        sources,
        batch_size=5,
        image_size=16,
        resize=16,
        max_images=max_images,  # type: ignore[arg-type]
    )
    trainer = quiet_trainer(run, GeneralisationRecords(), **options)
    trainer.test(GeneralisationEvaluator(model, sets.object_parts), datamodule=sets, verbose=False)
    return sets


@pytest.fixture(scope="module")
def finished(
    model: Path, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, GeneralisationDataModule]:
    run = tmp_path_factory.mktemp("generalisation")
    return run, evaluate(model, shapes_root, run)


def test_summary_is_that_of_the_records(
    finished: tuple[Path, GeneralisationDataModule], model: Path
) -> None:
    run, sets = finished
    summary = json.loads((run / "summary.json").read_text())
    assert summary["model"] == str(model)
    found = {row["name"]: row for row in summary["sets"]}
    assert [(name, row["n"]) for name, row in found.items()] == [
        ("val", 12),
        ("noise", 7),
        ("background/original", 12),
        ("background/swapped", 12),
        ("sketch", 0),
    ]
    assert "no folder given" in found["sketch"]["missing"]
    assert found["sketch"]["accuracy"] is None
    network = timm.create_model(f"local-dir:{model / 'export'}", pretrained=True).eval()
    for chosen in sets.sets[:-1]:
        files = sorted((run / "records" / chosen.name).glob("*.parquet"))
        rows = [record for file in files for record in pq.read_table(file).to_pylist()]
        assert [(row["key"], row["label"]) for row in rows] == list(chosen.items())
        images = torch.stack([chosen.image(row["key"]) for row in rows]).float() / 255
        with torch.no_grad():
            logits = network((images - 0.5) / 0.25).numpy()
        answers = logits.argmax(1) if chosen.groups is None else logits[:, [2, 0]].argmax(1)
        assert [row["prediction"] for row in rows] == answers.tolist()
        right = [row["prediction"] == row["label"] for row in rows]
        assert [row["correct"] for row in rows] == right
        row = found[chosen.name]
        assert row["accuracy"] == np.mean(right)
        assert row["ci95"] == list(wilson_interval(sum(right), len(right)))
        assert row["missing"] == ""
        if chosen.name == "noise":
            assert row["figures"] == {"seconds": np.mean(answers)}
    assert summary["means"] == []  # the two of the background are there to be compared


def test_cut_run_goes_on_and_ends_the_same(
    finished: tuple[Path, GeneralisationDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        evaluate(model, shapes_root, tmp_path, Noise(5))
    assert not (tmp_path / "summary.json").exists()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(done) == 4  # three of val, one of noise
    damaged = next(iter(done))
    damaged.write_bytes(b"half a fi")
    evaluate(model, shapes_root, tmp_path)
    assert contents(tmp_path) == contents(finished[0])
    kept = {path: path.stat().st_mtime_ns for path in done if path != damaged}
    assert kept.items() <= done.items()
    # nothing left to do: no image is made, and the summary comes back
    (tmp_path / "summary.json").unlink()
    evaluate(model, shapes_root, tmp_path, Noise(0))
    assert contents(tmp_path) == contents(finished[0])


@pytest.mark.slow
def test_two_processes_end_the_same(
    finished: tuple[Path, GeneralisationDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate(model, shapes_root, tmp_path, strategy="ddp_spawn", devices=2)
    assert contents(tmp_path) == contents(finished[0])


def test_other_settings_are_refused(
    finished: tuple[Path, GeneralisationDataModule], model: Path, shapes_root: Path
) -> None:
    before = contents(finished[0])
    with pytest.raises(ValueError, match=r"sets.noise.noise: 0 -> 1\)"):
        evaluate(model, shapes_root, finished[0], Noise(seed=1))
    assert contents(finished[0]) == before


def test_other_files_of_the_same_names_are_refused_and_a_moved_folder_goes_on(
    model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    def measure(folder: Path, **options: object) -> None:
        sources = {"noise": Noise(), "stylized": ClassFolders("stylized", folder)}
        evaluate(model, shapes_root, tmp_path / "run", sources=sources, **options)

    wrong, right = tmp_path / "wrong", tmp_path / "right"
    shutil.copytree(shapes_root / "imagenet" / "val", wrong)
    shutil.copytree(wrong, right)
    for file in right.rglob("*.jpg"):
        Image.open(file).rotate(90).save(file)
    measure(wrong)
    before = contents(tmp_path / "run")
    refused = r"\(sets.stylized.files.images: \w{64} -> \w{64}\): .* delete the records of that set"
    with pytest.raises(UserError, match=refused):
        measure(right)
    assert contents(tmp_path / "run") == before
    (tmp_path / "run" / "records" / "stylized" / "00001.parquet").unlink()
    wrong.rename(tmp_path / "moved")
    measure(tmp_path / "moved")
    assert contents(tmp_path / "run") == before
    # as the message says
    shutil.rmtree(tmp_path / "run" / "records" / "stylized")
    path = tmp_path / "run" / "records" / "settings.json"
    settings = json.loads(path.read_text())
    del settings["sets"]["stylized"]
    path.write_text(json.dumps(settings))
    measure(right)
    assert contents(tmp_path / "run") != before


def test_records_that_do_not_say_their_files_go_on_with_a_word(
    finished: tuple[Path, GeneralisationDataModule],
    model: Path,
    shapes_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    path = run / "records" / "settings.json"
    settings = json.loads(path.read_text())
    for one in settings["sets"].values():
        del one["files"]
    path.write_text(json.dumps(settings))
    evaluate(model, shapes_root, run)
    (line,) = [line for line in caplog.messages if "earlier version" in line]
    assert line.startswith(f"{run / 'records'} was begun with an earlier version, which did not")
    assert "note the files of val and 3 more: if they are others now, use another run" in line
    assert json.loads(path.read_text()) == settings
    assert contents(run) == contents(finished[0])


def test_other_masks_and_other_backgrounds_are_other_swaps(
    shapes_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(shapes_root, tmp_path / "shapes"))

    def files() -> dict[str, dict[str, str]]:
        folders = root / "imagenet", root / "pinpp"
        source: EvaluationSource = BackgroundSwaps(root / "val_parts")
        sets = GeneralisationDataModule(*folders, {"background": source}, max_images=1)
        return {one.name: sets.settings_of(one)["files"] for one in sets.sets}

    def changed(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[str]:
        one, two = old["background/swapped"], new["background/swapped"]
        return sorted(name for name in one if one[name] != two[name])

    before = files()
    assert set(before["background/original"]) == {"images"}
    file = next((root / "val_parts" / "json").glob("*.json"))
    content = json.loads(file.read_text())
    content["annotations"].pop()
    file.write_text(json.dumps(content))
    after = files()
    assert after["background/original"] == before["background/original"]
    assert changed(before, after) == ["annotations"]
    for image in (root / "imagenet" / "val").rglob("*.jpg"):
        image.write_bytes(image.read_bytes() + b"\0")
    assert changed(after, files()) == ["backgrounds", "images"]


def test_corruptions_of_other_images_or_frost_are_others_and_each_file_is_looked_at_once(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def look(folder: Path, keys: Iterable[str]) -> str:
        looks.append(folder)
        return sizes_hash(folder, keys)

    monkeypatch.setattr("datamodules.generalisation.sizes_hash", look)

    def files(grey: int) -> dict[str, dict[str, str]]:
        for name in OVERLAY_FILES:
            Image.new("RGB", (240, 240), (grey, grey, grey)).save(tmp_path / name)
        source: EvaluationSource = Corruptions(frost_images=tmp_path)
        folders = shapes_root / "imagenet", shapes_root / "pinpp"
        sets = GeneralisationDataModule(*folders, {"corruptions": source})
        return {one.name: sets.settings_of(one)["files"] for one in sets.sets}

    before, after = files(200), files(210)
    assert looks == [shapes_root / "imagenet" / "val"] * 2  # once in each data module
    assert len(before) == 75
    assert all("images" in hashes for hashes in before.values())
    changed = [name for name in before if before[name] != after[name]]
    assert changed == [f"frost/{severity}" for severity in range(1, 6)]


def test_at_most_so_many_images_balanced(model: Path, shapes_root: Path, tmp_path: Path) -> None:
    sets = evaluate(model, shapes_root, tmp_path, max_images=6)
    assert sorted(label for _, label in sets.image_lists["val"]) == [0, 0, 1, 1, 2, 2]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["n"] for row in summary["sets"]] == [6, 6, 6, 6, 0]


def write_outcomes(root: Path, name: str, keys: Sequence[str], right: np.ndarray) -> SetRow:
    columns = {"key": keys, "correct": right.tolist()}
    (root / "records" / name).mkdir(parents=True)
    pq.write_table(pa.table(columns), root / "records" / name / "00000.parquet")
    return SetRow(name, "corruptions", float(right.mean()), n=len(right))


def test_an_image_under_all_severities_is_one_draw(tmp_path: Path) -> None:
    right = np.random.default_rng(0).random(200) < 0.7
    keys = [f"n01/{place}.png" for place in range(200)]
    rows = [write_outcomes(tmp_path, f"fog/{severity}", keys, right) for severity in range(1, 6)]
    (mean,) = mean_rows(rows, tmp_path)
    single = ttest_1samp(right.astype(float), 0).confidence_interval(0.95)
    assert mean.ci95 == pytest.approx([single.low, single.high])
    assert mean.accuracy == pytest.approx(right.mean())


def test_sets_of_different_images_are_independent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        write_outcomes(tmp_path, f"din/{name}", [f"{name}{i}.png" for i in range(100)], right)
        for name, right in (("cl", rng.random(100) < 0.6), ("cop", rng.random(100) < 0.9))
    ]
    (mean,) = mean_rows(rows, tmp_path)
    (unseen,) = mean_rows(rows, tmp_path / "without records")
    assert mean.ci95 == pytest.approx(unseen.ci95, abs=2e-3)


def test_means_leave_out_what_is_missing(tmp_path: Path) -> None:
    rows = [
        SetRow("din/edge", "ood", accuracy=0.5, n=10),
        SetRow("din/colour", "ood", accuracy=0.9, n=30),
        SetRow("din/sketch", "ood", missing="gone"),
        SetRow("sketch", "ood", accuracy=0.1, n=30),
    ]
    (mean,) = mean_rows(rows, tmp_path)
    half = 1.959964 * np.sqrt(0.25 / 10 + 0.09 / 30) / 2
    assert mean.accuracy == pytest.approx(0.7)
    assert mean.ci95 == pytest.approx([0.7 - half, 0.7 + half])
    assert mean.pooled == pytest.approx(0.8)
    assert (mean.name, mean.n, mean.measured, mean.sets) == ("din", 40, 2, 3)


def test_processes_share_what_is_left(
    finished: tuple[Path, GeneralisationDataModule], tmp_path: Path
) -> None:
    _, sets = finished

    def keys_of(rank: int, processes: int, run: Path) -> list[str]:
        place = SimpleNamespace(default_root_dir=run, global_rank=rank, world_size=processes)
        sets.trainer = place  # type: ignore[assignment]
        return [f"{batch['set']} {key}" for batch in sets.test_dataloader() for key in batch["key"]]

    every = [f"{name} {key}" for name, images in sets.image_lists.items() for key, _ in images]
    for processes in (1, 2, 3):
        shared = [keys_of(rank, processes, tmp_path) for rank in range(processes)]
        assert sorted(chain(*shared)) == sorted(every)
        assert keys_of(0, processes, finished[0]) == []


def test_names_and_numbers_are_checked(shapes_root: Path) -> None:
    def build(**options: object) -> None:
        sources: dict[str, EvaluationSource] = {"a": Noise(), "b": Noise()}
        folders = shapes_root / "imagenet", shapes_root / "pinpp"
        GeneralisationDataModule(*folders, **({"sources": sources} | options))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="two sets are called noise"):
        build()
    with pytest.raises(ValueError, match="max_images=0 must be positive"):
        build(max_images=0)
