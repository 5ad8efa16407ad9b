"""Who has ImageNet and a network, and no part annotations: evaluation by the command line."""

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

from datamodules.evaluation.attack_batches import to_pixels
from datamodules.images.image_files import read_image
from modules.weights import named_models
from modules.weights.classifier_folder import load_classifier
from pipeline.__main__ import main as run_command
from pipeline.browse.build import browse
from pipeline.evaluation.autoattack_rows import AutoAttackRow, eps_text, imagenet_classes
from pipeline.evaluation.robustbench import describe, is_ranked
from pipeline.report.reading.examples import read_examples
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.modules.weights.test_classifier_sources import make_run
from tests.pipeline.browse.conftest import content_of
from tests.pipeline.commands import PROJECT

SIDE = 16
ATTACKS = {
    "clean": {"class_path": "Clean"},
    "linf_4": {"class_path": "AutoAttack", "init_args": {"eps": "4/255"}},
    "pgd": {"class_path": "PGD", "init_args": {"eps": 0.01, "steps": 2, "step_size": 0.005}},
}
# what `model_info/imagenet/Linf/Salman2020Do_R50.json` of RobustBench holds, with its types
PUBLISHED = {
    "link": str,
    "name": str,
    "authors": str,
    "additional_data": bool,
    "number_forward_passes": int,
    "dataset": str,
    "venue": str,
    "architecture": str,
    "eps": str,
    "clean_acc": str,
    "reported": str,
    "autoattack_acc": str,
}
OF_PERSONS = ("link", "name", "authors", "additional_data", "venue", "reported")


def overlay(folder: Path, images: dict[str, int], threats: dict = ATTACKS, **data: object) -> Path:
    """A configuration over `small`."""
    path = folder / "overlay.yaml"
    arguments = {"images": images, "chunk_size": 3, "image_size": SIDE, "resize": SIDE, **data}
    content = {
        "model": {"init_args": {"threats": threats}},
        "data": {"init_args": arguments},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def evaluate(model: Path, imagenet: Path, run: Path, config: Path, *more: str) -> int:
    return run_command(
        [
            *("evaluate", "test", "-c=small", f"-c={config}"),
            f"--model.init_args.model={model}",
            f"--data.init_args.imagenet={imagenet}",
            f"--trainer.default_root_dir={run}",
            *more,
        ]
    )


def noise(path: Path, seed: int) -> None:
    """A lossless image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def records(run: Path, threat: str) -> list[dict]:
    files = sorted((run / "records" / threat).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def table(run: Path) -> list[dict[str, str]]:
    with (run / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def classes3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A val/ of three classes, two images each, and nothing else."""
    root = tmp_path_factory.mktemp("three")
    for label, name in enumerate("abc"):
        for number in range(2):
            noise(root / "val" / name / f"{number}.png", 10 * label + number)
    return root


@pytest.fixture(scope="module")
def model3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_classifier(tmp_path_factory.mktemp("models") / "three", 3)


@pytest.fixture(scope="module")
def imagenet_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    """Model, ImageNet with val/ alone, run folder and configuration of a finished evaluation.

    Two classes are almost one for the network, and of many images those are taken that it is least
    sure of, as images that stand go through all of AutoAttack, which takes long. Four lie in the
    folder of the class that the network sees, two in that of the other.
    """
    root = tmp_path_factory.mktemp("imagenet_alone")
    model = export_tiny_classifier(root / "model", 1000)
    weights = model / "export" / "model.safetensors"
    state = load_file(weights)
    rows = state["fc.weight"]
    generator = torch.Generator().manual_seed(0)
    rows[:2] = 2 * rows[350] + 1e-3 * torch.randn(2, rows.shape[1], generator=generator)
    save_file(state, weights)
    for name in imagenet_classes():
        (root / "imagenet" / "val" / name).mkdir(parents=True)
    for seed in range(64):
        noise(root / "loose" / f"{seed}.png", seed)
    files = sorted((root / "loose").iterdir())
    pixels = torch.stack([to_pixels(read_image(file), SIDE, SIDE) for file in files]) / 255
    with torch.no_grad():
        logits = load_classifier(model)(pixels)
        state["fc.bias"][1] += (logits[:, 0] - logits[:, 1]).median()
        save_file(state, weights)
        logits = load_classifier(model)(pixels)
    assert set(logits.argmax(1).tolist()) <= {0, 1}
    unsure = (logits[:, 0] - logits[:, 1]).abs().argsort()
    for number, index in enumerate(unsure[:6].tolist()):
        seen = int(logits[index].argmax())
        name = imagenet_classes()[seen if number < 4 else 1 - seen]
        files[index].rename(root / "imagenet" / "val" / name / files[index].name)
    config = overlay(root, {"clean": 6, "linf_4": 6})
    assert evaluate(model, root / "imagenet", root / "run", config) == 0
    return model, root / "imagenet", root / "run", config


def test_val_alone_is_attacked(imagenet_run: tuple[Path, Path, Path, Path]) -> None:
    model, _, run, _ = imagenet_run
    summary = json.loads((run / "summary.json").read_text())
    assert summary["model"] == str(model)
    assert [(row["name"], row["n"]) for row in summary["threats"]] == [("clean", 6), ("linf_4", 6)]
    assert summary["threats"][0]["accuracy"] == pytest.approx(4 / 6)
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    assert tuple(vocabulary["objects"]) == imagenet_classes()
    assert vocabulary["parts"] == []


def test_the_csv_line_is_that_of_the_records(
    imagenet_run: tuple[Path, Path, Path, Path],
) -> None:
    model, _, run, _ = imagenet_run
    (line,) = table(run)
    rows = records(run, "linf_4")
    assert [line[name] for name in ("model", "architecture", "dataset", "norm", "eps")] == [
        str(model),
        "resnet10t",
        "imagenet",
        "linf",
        "4/255",
    ]
    assert line["images"] == "6"
    robust = sum(row["robust"] for row in rows)
    for name, right in (("clean", 4), ("autoattack", robust)):
        interval = binomtest(right, 6).proportion_ci(method="wilson")
        found = [float(line[name + end]) for end in ("", "_low", "_high")]
        assert found == pytest.approx([right / 6, interval.low, interval.high], abs=1e-6)


def test_robustbenchs_keys_and_nothing_invented(
    imagenet_run: tuple[Path, Path, Path, Path],
) -> None:
    _, _, run, _ = imagenet_run
    described = json.loads((run / "robustbench.json").read_text())
    footnote = described.pop("footnote")
    assert list(described) == list(PUBLISHED)
    assert [described[name] for name in OF_PERSONS] == [""] * len(OF_PERSONS)
    measured = {name: value for name, value in described.items() if name not in OF_PERSONS}
    assert all(isinstance(value, PUBLISHED[name]) for name, value in measured.items())
    robust = sum(row["robust"] for row in records(run, "linf_4"))
    assert measured == {
        "number_forward_passes": 1,
        "dataset": "imagenet",
        "architecture": "resnet10t",
        "eps": "4/255",
        "clean_acc": "66.67",
        "autoattack_acc": f"{100 * robust / 6:.2f}",
    }
    assert footnote == "Measured on 6 val images that are not RobustBench's 5,000."


def test_percentages_and_images_of_robustbench() -> None:
    clean, robust = (0.6402, 0.62, 0.66), (0.3496, 0.33, 0.37)
    row = AutoAttackRow("m", "resnet50", "imagenet", "linf", "4/255", *clean, *robust, 5000)
    assert is_ranked(row)
    others = ({"norm": "l2", "eps": "3"}, {"eps": "8/255"}, {"dataset": "/data/pets"})
    assert not any(is_ranked(replace(row, **other)) for other in (*others, {"autoattack": None}))
    described = describe(row, ["n01440764/x.JPEG"])
    assert (described["clean_acc"], described["autoattack_acc"]) == ("64.02", "34.96")
    assert "5,000 val images that are not" in described["footnote"]
    assert describe(replace(row, architecture=""), [])["number_forward_passes"] == ""


def test_the_footnote_is_not_there_on_robustbenchs_own_images(shared: Path) -> None:
    file = shared / "imagenet_meta" / "imagenet_test_1k_aa.txt"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    row = AutoAttackRow("m", "", "imagenet", "linf", "4/255", *[0.5] * 3, *[0.25] * 3, 5000)
    keys = [line.split()[0] for line in file.read_text().splitlines()]
    assert describe(row, keys)["footnote"] == ""
    assert describe(row, keys[1:])["footnote"] != ""


@pytest.mark.parametrize(
    ("norm", "eps", "text"),
    [
        ("linf", 4 / 255, "4/255"),
        ("linf", 0.0157, "0.0157"),
        ("l2", 2.0, "2"),
        ("l1", 75.0, "75"),
    ],
)
def test_radii_are_written_as_people_write_them(norm: str, eps: float, text: str) -> None:
    assert eps_text(norm, eps) == text


def test_what_a_person_filled_in_is_kept(
    imagenet_run: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    model, imagenet, finished, config = imagenet_run
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = json.loads((run / "robustbench.json").read_text())
    filled = before | {"link": "https://example.org", "additional_data": False, "clean_acc": "99"}
    (run / "robustbench.json").write_text(json.dumps(filled))
    (run / "summary.json").unlink()  # else the run is complete
    assert evaluate(model, imagenet, run, config) == 0
    kept = {"link": "https://example.org", "additional_data": False}
    assert json.loads((run / "robustbench.json").read_text()) == before | kept


def test_other_attacks_and_classes_are_no_entry_of_robustbench(
    model3: Path, classes3: Path, tmp_path: Path
) -> None:
    config = overlay(tmp_path, {"clean": 6, "pgd": 3})
    assert evaluate(model3, classes3, tmp_path / "run", config) == 0
    assert not (tmp_path / "run" / "robustbench.json").exists()
    (line,) = table(tmp_path / "run")
    right = sum(r["clean_prediction"] == r["label"] for r in records(tmp_path / "run", "clean"))
    assert float(line["clean"]) == pytest.approx(right / 6, abs=1e-6)
    assert (line["autoattack"], line["eps"], line["images"]) == ("", "", "6")
    assert line["dataset"] == str((classes3 / "val").resolve())


def test_train_folders_are_the_classes_where_there_are_any(
    model3: Path, classes3: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(classes3, tmp_path / "imagenet"))
    shutil.rmtree(root / "val" / "b")
    for name in "abc":
        (root / "train" / name).mkdir(parents=True)
    assert evaluate(model3, root, tmp_path / "run", overlay(tmp_path, {"clean": 4})) == 0
    labels = {row["key"][0]: row["label"] for row in records(tmp_path / "run", "clean")}
    assert labels == {"a": 0, "c": 2}


def test_another_number_of_classes_is_refused(
    classes3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = export_tiny_classifier(tmp_path / "model", 4)
    assert evaluate(model, classes3, tmp_path / "run", overlay(tmp_path, {"clean": 6})) == 1
    assert f"model {model} has 4 classes, the data has 3 object categories" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_classes_of_other_names_are_refused(
    model3: Path, classes3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(model3, tmp_path / "model"))
    config = json.loads((model / "export" / "config.json").read_text())
    names = ["a", "bee", "c"]
    (model / "export" / "config.json").write_text(json.dumps(config | {"label_names": names}))
    run = tmp_path / "run"
    assert evaluate(model, classes3, run, overlay(tmp_path, {"clean": 6})) == 1
    assert "other classes (class 1 is bee, of the data b)" in capsys.readouterr().err
    assert not (run / "records").exists()
    (model / "export" / "config.json").write_text(json.dumps(config))
    vocabulary = {"objects": ["a", "b", "d"], "parts": [], "inclusions": []}
    (model / "vocabulary.json").write_text(json.dumps(vocabulary))
    assert evaluate(model, classes3, run, overlay(tmp_path, {"clean": 6})) == 1
    assert "other classes (class 2 is d, of the data c)" in capsys.readouterr().err
    (model / "vocabulary.json").write_text(json.dumps(vocabulary | {"objects": ["a", "b", "c"]}))
    shutil.rmtree(run, ignore_errors=True)
    assert evaluate(model, classes3, run, overlay(tmp_path, {"clean": 6})) == 0


@pytest.mark.parametrize("structure", ["bypass", "downsampled"])
def test_a_model_with_parts_needs_annotations(
    structure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "model", structure)  # type: ignore[arg-type]
    for label, name in enumerate("ab"):
        noise(tmp_path / "val" / name / "1.png", label)
    config = overlay(tmp_path, {"clean": 2})
    assert evaluate(tmp_path / "model", tmp_path, tmp_path / "run", config) == 1
    assert f"model {tmp_path / 'model'} has parts: set PINPP=" in capsys.readouterr().err
    args = ["generalisation", "test", "-c=small", f"--model.init_args.model={tmp_path / 'model'}"]
    sources = {"sketch": {"class_path": "ClassFolders", "init_args": {"name": "sketch"}}}
    args += [f"--data.init_args.imagenet={tmp_path}"]
    args += [f"--data.init_args.sources={json.dumps(sources)}"]
    assert run_command([*args, f"--trainer.default_root_dir={tmp_path / 'other'}"]) == 1
    assert "has parts: set PINPP=" in capsys.readouterr().err


def test_part_maps_need_annotations(
    model3: Path, classes3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = overlay(tmp_path, {"clean": 6}, part_annotations=str(tmp_path))
    assert evaluate(model3, classes3, tmp_path / "run", config) == 1
    assert "part_annotations (PINPP_VAL=) need pinpp (PINPP=)" in capsys.readouterr().err


def test_any_images_with_a_list(
    model3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(4):
        noise(tmp_path / "photos" / "some where" / f"{seed}.png", seed)
    lines = [f"some where/{seed}.png {seed % 3}\n" for seed in range(4)]
    (tmp_path / "list.txt").write_text("".join(lines))
    config = overlay(tmp_path, {"clean": 4, "pgd": 2}, list_file=str(tmp_path / "list.txt"))
    assert evaluate(model3, tmp_path / "photos", tmp_path / "run", config) == 0
    found = sorted((row["key"], row["label"]) for row in records(tmp_path / "run", "clean"))
    assert found == [(f"some where/{seed}.png", seed % 3) for seed in range(4)]
    (tmp_path / "list.txt").write_text(lines[0] + "some where/3.png 5\n")
    assert evaluate(model3, tmp_path / "photos", tmp_path / "other", config) == 1
    said = capsys.readouterr().err
    assert f"the list has label 5, model {model3} has 3 classes" in said
    assert not (tmp_path / "other" / "records").exists()


def test_answers_beyond_a_list_are_told_by_their_number(tmp_path: Path) -> None:
    for seed in range(4):
        noise(tmp_path / "photos" / f"{seed}.png", seed)
    (tmp_path / "list.txt").write_text("".join(f"{n}.png {n % 2}\n" for n in range(4)))
    config = overlay(tmp_path, {"clean": 4, "pgd": 4}, list_file=str(tmp_path / "list.txt"))
    model = export_tiny_classifier(tmp_path / "models" / "forty", 40)
    run = tmp_path / "runs" / "evaluate" / "forty"
    assert evaluate(model, tmp_path / "photos", run, config) == 0
    rows = {row["key"]: row for row in records(run, "pgd")}
    assert max(row["clean_prediction"] for row in rows.values()) > 1
    told = {pair.key: pair.clean_prediction for pair in read_examples(run)}
    assert told == {key: str(rows[key]["clean_prediction"]) for key in told}
    assert run_command(["report", f"--runs={tmp_path / 'runs'}"]) == 0
    browse(run)
    for one in content_of(tmp_path / "runs" / "browse" / "forty")["images"]:
        row = rows[one["drawn"]["key"]]
        recorded = one["outcomes"]["pgd"]
        assert recorded["clean"] == one["drawn"]["clean"] == str(row["clean_prediction"])
        assert recorded["attacked"] == str(row["adversarial_prediction"])
        assert one["truth"] == str(row["label"])


def test_a_word_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = named_models.PACKAGED["efficientnet_lite0"].package
    pytest.importorskip(package, reason="the extra `pretrained` is not installed")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    noise(tmp_path / "photos" / "1.png", 1)
    (tmp_path / "list.txt").write_text("1.png 285\n")
    data = {"image_size": 32, "resize": 32, "list_file": str(tmp_path / "list.txt")}
    config = overlay(tmp_path, {"clean": 1, "pgd": 1}, **data)
    word, photos = Path("efficientnet_lite0"), tmp_path / "photos"
    assert evaluate(word, photos, tmp_path / "run", config) == 0
    (line,) = table(tmp_path / "run")
    assert (line["model"], line["architecture"]) == (str(word), "tf_efficientnet_lite0")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    capsys.readouterr()
    assert evaluate(Path("resnet18.a1_in1k"), photos, tmp_path / "other", config) == 1
    said = capsys.readouterr().err
    assert "error: the weights of resnet18.a1_in1k cannot be downloaded (no connection)" in said
    assert not (tmp_path / "other").exists()


def test_generalisation_of_val_alone_and_of_a_list(
    model3: Path, classes3: Path, tmp_path: Path
) -> None:
    sources = {
        "corruptions": {"class_path": "Corruptions"},
        "val": {
            "class_path": "ClassFolders",
            "init_args": {"name": "again", "folder": str(classes3 / "val")},
        },
    }
    (tmp_path / "list.txt").write_text("b/1.png\nc/0.png 2\n")
    for name, more in (
        ("all", []),
        ("listed", [f"--data.init_args.list_file={tmp_path / 'list.txt'}"]),
    ):
        args = ["generalisation", "test", "-c=small", f"--model.init_args.model={model3}"]
        args += [f"--data.init_args.imagenet={classes3}", "--trainer.accelerator=cpu"]
        args += ["--data.init_args.image_size=32", "--data.init_args.resize=32"]
        args += [f"--data.init_args.sources={json.dumps(sources)}", *more]
        args += ["--trainer.enable_progress_bar=false"]
        assert run_command([*args, f"--trainer.default_root_dir={tmp_path / name}"]) == 0
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        numbers = {row["name"]: row["n"] for row in summary["sets"]}
        assert numbers["brightness/1"] == (6 if name == "all" else 2)
        assert numbers["again"] == 6
    listed = records(tmp_path / "listed", "brightness/1")
    assert [(row["key"], row["label"]) for row in listed] == [("b/1.png", 1), ("c/0.png", 2)]


@pytest.mark.parametrize("target", ["evaluate", "generalisation"])
def test_make_needs_imagenet_alone(target: str) -> None:
    command = ["make", "-n", target, "MODEL=efficientnet_lite0", "IMAGENET=/data/images"]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pinpp" not in done.stdout
    assert "list_file" not in done.stdout
    command += ["PINPP=/data/parts", "LIST=authors_aa"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert "--data.init_args.pinpp='/data/parts'" in done.stdout
    assert "--data.init_args.list_file='authors_aa'" in done.stdout
    del command[4:]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert "set IMAGENET=" in done.stderr
