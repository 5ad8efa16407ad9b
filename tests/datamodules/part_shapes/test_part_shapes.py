import colorsys
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules.part_shapes.drawing import Split, draw_example
from datamodules.part_shapes.objects import OBJECTS, own_hue, part_names
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.__main__ import main

COUNTS = {"train_per_object": 6, "annotated_per_object": 4, "val_per_object": 3, "size": 64}
RELATIONS = {
    name: {(p.part, pieces[p.parent].part) for p in pieces if p.inside}
    for name, pieces in OBJECTS.items()
}


def _decode(segmentation: object, height: int, width: int) -> np.ndarray:
    rle = coco_mask.frPyObjects(segmentation, height, width)  # polygons or uncompressed
    rle = coco_mask.merge(rle) if isinstance(segmentation, list) else rle
    return coco_mask.decode(rle).astype(bool)


def _mask(annotation: dict, height: int, width: int) -> np.ndarray:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation).astype(bool)
    return _decode(segmentation, height, width)


def _digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _draw(name: str, split: Split, n: int, size: int = 128) -> tuple[np.ndarray, list]:
    return draw_example(name, split, size, np.random.default_rng([7, split == "val", n]))


def _has_own_hue(image: np.ndarray, mask: np.ndarray, hue: float) -> bool:
    colour = np.median(image[mask], axis=0) / 255
    return abs((colorsys.rgb_to_hsv(*colour)[0] - hue + 0.5) % 1 - 0.5) < 0.05


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_part_shapes(tmp_path_factory.mktemp("shapes") / "set", **COUNTS)


def test_same_arguments_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = render_part_shapes(tmp_path / "again", **COUNTS, workers=2)
    assert _digest(again) == _digest(root)
    other = render_part_shapes(tmp_path / "other", **COUNTS, num_objects=1, seed=1)
    image = "imagenet/train/fish/fish_0.jpg"
    assert _digest(other)[image] != _digest(root)[image]


def test_an_image_does_not_depend_on_the_counts(root: Path, tmp_path: Path) -> None:
    counts = COUNTS | {"num_objects": 2, "train_per_object": 2, "annotated_per_object": 1}
    small = _digest(render_part_shapes(tmp_path / "small", **counts))
    large = _digest(root)
    for key in ("train/fish/fish_0", "train/car/car_1"):
        assert small[f"imagenet/{key}.jpg"] == large[f"imagenet/{key}.jpg"]
    assert small["imagenet/val/car/car_2.jpg"] == large["imagenet/val/car/car_6.jpg"]


def test_layout(root: Path) -> None:
    for split, count in (("train", 6), ("val", 3)):
        folders = sorted(path.name for path in (root / "imagenet" / split).iterdir())
        assert folders == sorted(OBJECTS)[:10]
        for name in folders:
            images = list((root / "imagenet" / split / name).iterdir())
            assert len(images) == count
            assert all(Image.open(path).size == (64, 64) for path in images)
    seen: set[str] = set()
    for kind, split, count in (
        ("pinpp", "train", 4),
        ("truth", "train", 2),
        ("val_parts", "val", 3),
    ):
        for path in sorted((root / kind / "json").iterdir()):
            content = json.loads(path.read_text())
            assert [image["id"] for image in content["images"]] == list(range(1, count + 1))
            names = [image["file_name"] for image in content["images"]]
            assert all((root / "imagenet" / split / name).is_file() for name in names)
            assert seen.isdisjoint(names)
            seen.update(names)
            assert [category["name"] for category in content["categories"]] == part_names(path.stem)
    assert len(seen) == 10 * 9
    for name in OBJECTS:
        path = root / "pinpp" / "including" / f"{name}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        assert {tuple(line.split(":")) for line in lines} == RELATIONS[name]


def test_annotations_describe_their_masks(root: Path) -> None:
    forms = set()
    for path in root.glob("*/json/*.json"):
        content = json.loads(path.read_text())
        parts = {category["id"]: category["name"] for category in content["categories"]}
        by_image: dict[int, list[tuple[str, np.ndarray]]] = {}
        assert [a["id"] for a in content["annotations"]] == [
            n + 1 for n in range(len(content["annotations"]))
        ]
        for annotation in content["annotations"]:
            mask = _mask(annotation, 64, 64)
            ys, xs = np.nonzero(mask)
            assert annotation["area"] == len(xs) >= 12
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation["bbox"] == box
            assert annotation["iscrowd"] == 0
            segmentation = annotation["segmentation"]
            forms.add(
                list if isinstance(segmentation, list) else type(segmentation["counts"]) is str
            )
            found = by_image.setdefault(annotation["image_id"], [])
            found.append((parts[annotation["category_id"]], mask))
        assert by_image.keys() == {image["id"] for image in content["images"]}
        for instances in by_image.values():
            _check_overlaps(instances, RELATIONS[path.stem])
    assert forms == {list, True, False}


def _check_overlaps(
    instances: list[tuple[str, np.ndarray]], relations: set[tuple[str, str]]
) -> None:
    for i, (part, mask) in enumerate(instances):
        for other, other_mask in instances[i + 1 :]:
            if (other, part) in relations:
                assert not (other_mask & ~mask).any()
            else:
                assert (part, other) not in relations
                assert not (mask & other_mask).any()


def test_every_object_is_worth_learning() -> None:
    assert len(OBJECTS) >= 10
    assert all(3 <= len(part_names(name)) <= 5 for name in OBJECTS)
    assert sum(bool(relations) for relations in RELATIONS.values()) >= 2


def test_masks_lie_where_the_parts_are_drawn() -> None:
    hits = [
        _has_own_hue(image, mask, own_hue(name, part))
        for name in OBJECTS
        for n in range(20)
        for image, instances in [_draw(name, "train", n)]
        for part, mask in instances
        if mask.sum() > 60 and part not in {whole for _, whole in RELATIONS[name]}
    ]
    assert 0.85 < np.mean(hits) < 0.97


def test_hue_and_background_tell_more_in_train_than_in_val() -> None:
    hue_rate, spread = {}, {}
    for split in ("train", "val"):
        hits, corners = [], []
        for name in OBJECTS:
            backgrounds = []
            for n in range(20):
                image, instances = _draw(name, split, n)
                hits += [_has_own_hue(image, mask, own_hue(name, part)) for part, mask in instances]
                covered = np.any([mask for _, mask in instances], axis=0)
                colour = np.median(image[~covered], axis=0) / 255
                angle = 2 * np.pi * colorsys.rgb_to_hsv(*colour)[0]
                backgrounds.append(np.exp(1j * angle))
            corners.append(abs(np.mean(backgrounds)))
        hue_rate[split], spread[split] = np.mean(hits), np.mean(corners)
    assert hue_rate["train"] > hue_rate["val"] + 0.25
    assert spread["train"] > 0.6
    assert spread["val"] < 0.45


def test_parts_are_sometimes_missing_and_objects_vary_in_size() -> None:
    counts, extents = [], []
    for n in range(120):
        _, instances = _draw("fish", "train", n)
        counts.append(len(instances))
        ys, xs = np.nonzero(np.any([mask for _, mask in instances], axis=0))
        extents.append(max(np.ptp(xs), np.ptp(ys)) / 128)
    assert 0.2 < np.mean(np.array(counts) < 4) < 0.65
    assert np.quantile(extents, 0.02) > 0.2
    assert np.quantile(extents, 0.1) < 0.5
    assert 0.7 < max(extents) <= 0.9


def test_a_finished_folder_is_kept_and_another_one_refused(root: Path, tmp_path: Path) -> None:
    before = (root / "part_shapes.json").stat().st_mtime_ns
    assert render_part_shapes(root, **COUNTS) == root
    assert (root / "part_shapes.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"set was rendered with size 64 instead of 32: remove it"):
        render_part_shapes(root, **COUNTS | {"size": 32})
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not a PartShapes folder"):
        render_part_shapes(tmp_path, **COUNTS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("argument", "value"), [("num_objects", 99), ("annotated_per_object", 7), ("size", 8)]
)
def test_bad_arguments_name_themselves(tmp_path: Path, argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{argument} is {value}: give"):
        render_part_shapes(tmp_path / "set", **COUNTS | {argument: value})
    assert not any(tmp_path.iterdir())


def test_an_interrupted_rendering_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_args: object, **_options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        render_part_shapes(tmp_path / "set", **COUNTS)
    assert not any(tmp_path.iterdir())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--num_objects=1", "--train_per_object=2", "--annotated_per_object=1"]
    arguments += [f"--root={tmp_path / 'set'}", "--val_per_object=1", "--size=32"]
    assert main(["part_shapes", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "part_shapes.json").read_text())["size"] == 32
