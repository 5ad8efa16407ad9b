"""ObjectNet in the layout of its release: mappings of five objects, images with a red border."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from timm.data import ImageNetInfo

from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.evaluation.objectnet import ObjectNet, classes_of_folders
from datamodules.generalisation import GeneralisationDataModule
from modules.generalisation_evaluator import GeneralisationEvaluator
from modules.weights.classifier_folder import load_classifier
from pipeline.evaluation.generalisation_records import GeneralisationRecords
from pipeline.evaluation.summaries import GeneralisationSummary
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.evaluation.evaluation_runs import quiet_trainer

INFO = ImageNetInfo("imagenet-1k")
WNIDS = tuple(INFO.label_names())
# positions among the sorted WNIDs
CLOCKS, CHAIRS, BANANA = (409, 530), (423, 559, 765), (954,)
FOLDERS = {
    "alarm_clock": "Alarm clock",
    "air_freshener": "Air freshener",  # no class of ImageNet
    "banana": "Banana",
    "chair": "Chair",
}


def write_release(root: Path) -> Path:
    """`objectnet-1.0` with two images of each folder; ILSVRC's numbers run backwards."""
    mappings = root / "mappings"
    mappings.mkdir(parents=True)
    lines = [f"class {999 - number}" for number in range(1000)]
    positions = {str(position): 999 - position for position in range(1000)}
    classes = {
        "Alarm clock": "; ".join(f"class {place}" for place in CLOCKS),
        "Banana": f"class {BANANA[0]}",
        "Chair": "; ".join(f"class {place}" for place in CHAIRS),
    }
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    for name, content in (
        ("pytorch_to_imagenet_2012_id.json", positions),
        ("folder_to_objectnet_label.json", FOLDERS),
        ("objectnet_to_imagenet_1k.json", classes),
    ):
        (mappings / name).write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    for folder in FOLDERS:
        (root / "images" / folder).mkdir(parents=True)
        for number in range(2):
            image = Image.fromarray(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8))
            ImageDraw.Draw(image).rectangle((0, 0, 35, 23), outline=(255, 0, 0), width=2)
            image.save(root / "images" / folder / f"{number}.png")
    return root


def change(root: Path, name: str, **entries: object) -> None:
    file = root / "mappings" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "objectnet-1.0")


def setting(objects: tuple[str, ...] = WNIDS) -> EvaluationSetting:
    return EvaluationSetting(Path("imagenet"), None, objects, 16, 16, 0)


def test_folders_are_mapped_through_names_and_numbers(release: Path) -> None:
    found = classes_of_folders(release / "mappings")
    wanted = {"alarm_clock": CLOCKS, "banana": BANANA, "chair": CHAIRS}
    assert found == {name: list(places) for name, places in wanted.items()}


@pytest.mark.parametrize("mask", [False, True])
def test_any_class_of_an_object_is_right(release: Path, mask: bool) -> None:
    (found,) = ObjectNet(release, mask).sets(setting())
    assert (found.name, found.table, found.missing) == ("objectnet", "ood", "")
    objects = ("alarm_clock", "banana", "chair")
    assert found.group_names[:3] == objects
    assert len(found.items()) == 6  # without the air fresheners
    assert {key.split("/")[0]: label for key, label in found.items()} == {
        name: place for place, name in enumerate(objects)
    }
    assert found.groups is not None
    groups = found.groups.tolist()
    assert all(groups[place] == 2 for place in CHAIRS)
    assert groups[BANANA[0]] == 1
    assert groups.count(-1 if mask else 3) == 1000 - 6
    assert len(found.group_names) == (3 if mask else 4)


def test_the_border_is_cut_first(release: Path) -> None:
    (found,) = ObjectNet(release).sets(setting())
    key = "banana/1.png"
    with Image.open(release / "images" / key) as image:
        inside = Image.fromarray(np.array(image)[2:-2, 2:-2])
    assert torch.equal(found.image(key), to_pixels(inside, 16, 16))
    Image.new("RGB", (4, 9)).save(release / "images" / key)
    with pytest.raises(ValueError, match=r"1\.png has 4x9 pixels, nothing inside its border"):
        found.image(key)


def test_what_is_missing_says_why(release: Path, tmp_path: Path) -> None:
    for folder, objects, words in (
        (None, WNIDS, "no folder given: set `folder`"),
        (tmp_path / "gone", WNIDS, "gone does not exist (objectnet-1.0"),
        (release, WNIDS[:4], "the 1,000 classes of ImageNet, the model has 4 classes"),
        (release / "images", WNIDS, "images/images does not exist (ObjectNet)"),
    ):
        (found,) = ObjectNet(folder).sets(setting(objects))
        assert words in found.missing
    (release / "mappings" / "objectnet_to_imagenet_1k.json").unlink()
    (found,) = ObjectNet(release).sets(setting())
    assert "objectnet_to_imagenet_1k.json does not exist" in found.missing


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("objectnet_to_imagenet_1k.json", {"Banana": "plantain"}, "Banana is mapped to 'plantain'"),
        (
            "objectnet_to_imagenet_1k.json",
            {"Banana": "class 765"},
            "maps both banana and chair to 'class 765'",
        ),
        ("objectnet_to_imagenet_1k.json", {"Banana": 954}, "the entry of Banana is no text"),
        ("pytorch_to_imagenet_2012_id.json", {"0": 1000}, "says 0: 1000, which is no line"),
        ("pytorch_to_imagenet_2012_id.json", {"0": "999"}, "the entry of 0 is no number"),
    ],
)
def test_mappings_that_do_not_fit_are_refused(
    release: Path, file: str, entries: dict[str, object], message: str
) -> None:
    change(release, file, **entries)
    with pytest.raises(ValueError, match=message):
        ObjectNet(release).sets(setting())


def test_a_name_of_two_classes_says_neither(release: Path) -> None:
    names = release / "mappings" / "imagenet_to_label_2012_v2"
    names.write_text(names.read_text().replace("class 0\n", "class 954\n"))
    with pytest.raises(ValueError, match=r"mapped to 'class 954', which is no line .* or two"):
        ObjectNet(release).sets(setting())


def test_an_unknown_folder_is_refused(release: Path) -> None:
    (release / "images" / "Banana").mkdir()
    with pytest.raises(ValueError, match="images/Banana is no folder that mappings/"):
        ObjectNet(release).sets(setting())


@pytest.mark.parametrize("mask", [False, True])
def test_accuracy_is_that_of_the_best_class(release: Path, tmp_path: Path, mask: bool) -> None:
    model = export_tiny_classifier(tmp_path / "model", num_classes=1000)
    for wnid in WNIDS:
        (tmp_path / "imagenet" / "val" / wnid).mkdir(parents=True)
    network = load_classifier(model)
    images = sorted((release / "images").glob("*/*.png"))
    with torch.no_grad():
        logits = {}
        for file in images:
            with Image.open(file) as image:
                inside = Image.fromarray(np.array(image)[2:-2, 2:-2])
            logits[file] = network(to_pixels(inside, 16, 16)[None].float() / 255)[0]
    # an untrained network answers one or two classes: let the bananas and one chair be right
    best = int(logits[release / "images" / "banana" / "0.png"].argmax())
    assert best not in (*CLOCKS, *CHAIRS)
    change(release, "objectnet_to_imagenet_1k.json", Banana=f"class {best}; class {BANANA[0]}")
    members = {"alarm_clock": CLOCKS, "banana": (best, *BANANA), "chair": CHAIRS}
    known = sorted(place for places in members.values() for place in places)
    right = []
    for file, scores in logits.items():
        if file.parent.name in members:
            asked = known if mask else list(range(1000))
            answer = max(asked, key=lambda place: float(scores[place]))
            right.append(answer in members[file.parent.name])
    sets = GeneralisationDataModule(
        tmp_path / "imagenet",
        None,
        {"objectnet": ObjectNet(release, mask)},
        batch_size=4,
        image_size=16,
        resize=16,
    )
    trainer = quiet_trainer(tmp_path / "run", GeneralisationRecords())
    trainer.test(GeneralisationEvaluator(model), datamodule=sets, verbose=False)
    (row,) = GeneralisationSummary.read(tmp_path / "run").sets
    assert any(right)
    assert (row.n, row.accuracy) == (6, sum(right) / 6)
