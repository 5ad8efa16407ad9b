"""What starts with a dot is no data: wherever it lies, every reader gives what it gave before."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.evaluation.bias_sets import CueConflict
from datamodules.evaluation.class_subsets import ClassSubsets
from datamodules.evaluation.corruption_sets import Corruptions
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.evaluation.human_decisions import read_decisions
from datamodules.evaluation.human_stimuli import DistortedImages
from datamodules.evaluation.object_groups import known_groups
from datamodules.evaluation.ood_sets import ClassFolders, FolderSet
from datamodules.imagenet_shards import ImageNetShardsDataModule
from datamodules.images.imagenet_folder import list_images, list_objects
from datamodules.labels.label_set import read_labels
from datamodules.labels.pseudo_labels import label_files, write_labels
from datamodules.masks.part_labels import ImageParts
from pipeline.annotations.check_data import check_data
from pipeline.labelling.import_labels import import_labels
from tests.datamodules.annotations.annotated import make_set

HEADER = "subj,Session,trial,rt,object_response,category,condition,imagename\n"
OBJECTS = tuple(sorted(known_groups("human16")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, annotations, labels, evaluation sets and decisions of people, a few files each."""
    root = make_set(tmp_path_factory.mktemp("world"))
    images = root / "imagenet"
    shutil.copytree(images / "train", images / "val")
    shutil.copytree(images / "val", root / "shifted")
    shutil.copytree(images / "val", root / "imagenet_c/noise/gaussian_noise/1")
    for name in ("din/edge/cat/cat1.png", "din/sketch/dnn/dog/dog1.png", "cues/a/cat1-dog2.png"):
        (root / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / name)
    row = "subject-01,1,1,0.5,cat,cat,0.90,0001_nse_s01_0.90_cat_10_n05_1.png\n"
    (root / "people/uniform-noise").mkdir(parents=True)
    (root / "people/uniform-noise/a.csv").write_text(HEADER + row)
    labels = [ImageParts(key, label, 4, 4) for key, label in list_images(images / "train")]
    (root / "run/labels").mkdir(parents=True)
    write_labels(root / "run/labels/00000.parquet", labels)
    return root


def snapshot(root: Path) -> dict[str, Any]:
    """What every reader of folders gives."""
    images, pinpp = root / "imagenet", root / "pinpp"
    vocabulary = PartVocabulary.from_pinpp(pinpp, images)
    checked = check_data(images, pinpp, workers=1)
    here = EvaluationSetting(images, pinpp, vocabulary.objects, 8, 8, 0)
    people = EvaluationSetting(images, pinpp, OBJECTS, 8, 8, 0)
    sets = [
        *ClassFolders("shifted", root / "shifted").sets(here),
        *Corruptions(root / "imagenet_c").sets(here),
        *ClassSubsets().sets(here),
        *DistortedImages(root / "din").sets(people),
        *CueConflict(root / "cues").sets(people),
    ]
    decided = read_decisions(root / "people")
    return {
        "classes": list_objects(images),
        "images": [list_images(images / split) for split in ("train", "val")],
        "vocabulary": vocabulary.content_hash,
        "annotations": read_annotations(pinpp, vocabulary, images / "train"),
        "shards": ImageNetShardsDataModule(images, pinpp).provenance,
        "labels": [path.name for path in label_files(root / "run")],
        "rows": read_labels(root / "run"),
        "problems": checked.problems,
        "sizes": [(s.listing.classes, sorted(s.listing.keys)) for s in checked.splits.values()],
        "missing": [found.name for found in sets if found.missing],
        "sets": [
            (found.name, found.folder.relative_to(root), found.items())
            for found in sets
            if isinstance(found, FolderSet) and not found.missing
        ],
        "people": [[one.images for one in group] for group in decided.values()],
    }


@pytest.fixture(scope="module")
def before(world: Path) -> dict[str, Any]:
    return snapshot(world)


SUFFIXES = ("", ".jpg", ".JPEG", ".png", ".json", ".txt", ".csv", ".parquet", ".webp")
NAMES = st.text("abcxyz019_- .é", max_size=8).filter(lambda name: not name.startswith("."))


def copy(path: Path, to: Path) -> None:
    """Copies a file or a folder, unless there is one."""
    to.parent.mkdir(exist_ok=True)
    if not to.exists():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, to)


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None, database=None, phases=(Phase.generate,))
def test_hidden_files_and_folders_change_nothing(
    world: Path, before: dict[str, Any], data: st.DataObject, tmp_path_factory: Any
) -> None:
    root = tmp_path_factory.mktemp("hidden") / "world"
    shutil.copytree(world, root)
    folders = sorted(path for path in root.rglob("*") if path.is_dir())
    for folder in data.draw(st.lists(st.sampled_from(folders), min_size=1, max_size=6), "folders"):
        name = f".{data.draw(NAMES, 'name')}x{data.draw(st.sampled_from(SUFFIXES), 'suffix')}"
        siblings = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        kind = data.draw(st.sampled_from(["junk", "twin", "backup"]), "kind")
        if kind == "backup":  # a folder that holds what the visible one does
            for path in siblings:
                copy(path, folder / name / path.name)
        elif kind == "twin" and siblings:  # as macOS: ._1.jpg
            twin = data.draw(st.sampled_from(siblings), "twin of")
            copy(twin, folder / f"._{twin.name}")
        elif not (folder / name).is_dir():
            (folder / name).write_bytes(data.draw(st.binary(max_size=20), "content"))
    assert snapshot(root) == before


@pytest.mark.parametrize("layout", ["coco", "png"])
def test_hidden_files_of_labels_from_elsewhere_are_not_imported(
    world: Path, layout: str, tmp_path: Path
) -> None:
    data = {"imagenet": world / "imagenet", "pinpp": world / "pinpp"}
    source = tmp_path / "source"
    if layout == "coco":
        shutil.copytree(world / "pinpp", source)
        (source / "json/._cat.json").write_bytes(b"\0\5\x16\7")
    else:
        (source / "seg/cat").mkdir(parents=True)
        Image.new("I;16", (8, 6)).save(source / "seg/cat/1.png")
        (source / "seg/cat/._1.png").write_bytes(b"\0\5\x16\7")
        (source / "seg/.cache").mkdir()
        shutil.copy(source / "seg/cat/1.png", source / "seg/.cache/1.png")
    import_labels(source, tmp_path / "out", layout, allow_missing=True, **data)
    assert [row.key for row in read_labels(tmp_path / "out")] == [
        key for key, _ in list_images(world / "imagenet/train")
    ]
