import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.evaluation.attack_batches import UnitDataset, to_part_map, to_pixels
from datamodules.evaluation.class_subsets import ClassSubsets
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.images.image_lists import balanced_order, read_image_list, sizes_hash
from datamodules.images.imagenet_folder import list_objects
from datamodules.robustness import RobustnessDataModule

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data"
IMAGES = [(f"{name}/{i}.jpg", label) for label, name in enumerate("abc") for i in range(7)]


@pytest.mark.parametrize("number", range(1, 22))
def test_every_prefix_is_balanced(number: int) -> None:
    counts = Counter(label for _, label in balanced_order(IMAGES, 0)[:number])
    assert max(counts.values()) - min(counts[label] for label in range(3)) <= 1


def test_order_depends_on_seed_and_keys_only() -> None:
    order = balanced_order(IMAGES, 0)
    assert sorted(order) == sorted(IMAGES)
    assert balanced_order(IMAGES[::-1], 0) == order
    assert balanced_order(IMAGES, 1) != order
    rest = [pair for pair in IMAGES if pair[0] != "a/3.jpg"]
    within = [pair for pair in order if pair[1] == 0 and pair in rest]
    assert [pair for pair in balanced_order(rest, 0) if pair[1] == 0] == within


def test_exhausted_class_leaves_the_turn_to_the_others() -> None:
    order = balanced_order([*IMAGES[:7], IMAGES[7]], 0)
    assert len(order) == 8
    assert IMAGES[7] in order[:2]


def test_pixels_are_pils_bicubic_resize_and_centre_crop() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    resized = image.resize((30, 20), Image.Resampling.BICUBIC)
    wanted = np.asarray(resized)[2:18, 7:23]
    pixels = to_pixels(image, 20, 16)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted)


def make_sets(root: Path, **changes: object) -> RobustnessDataModule:
    arguments: dict = {"images": {"clean": 9, "pgd": 5}, "chunk_size": 4}
    arguments |= {"image_size": 16, "resize": 16} | changes
    return RobustnessDataModule(root / "imagenet", root / "pinpp", **arguments)


def test_units_and_batches(shapes_root: Path) -> None:
    sets = make_sets(shapes_root)
    assert [(u.threat, u.chunk, len(u.images)) for u in sets.units] == [
        ("clean", 0, 4),
        ("clean", 1, 4),
        ("clean", 2, 1),
        ("pgd", 0, 4),
        ("pgd", 1, 1),
    ]
    assert len({unit.seed for unit in sets.units}) == 5
    assert sets.units[0].images == sets.units[3].images
    more = make_sets(shapes_root, images={"pgd": 9})
    assert more.units[0] == sets.units[3]
    batch = UnitDataset(sets.units, sets.split, 16, 16)[4]
    assert batch["image"].shape == (1, 3, 16, 16)
    assert batch["position"].tolist() == [4]
    assert (batch["threat"], batch["chunk"]) == ("pgd", 1)
    key, label = sets.image_list[4]
    assert batch["key"] == [key]
    assert batch["label"].tolist() == [label]
    assert sets.vocabulary.objects[label] == key.partition("/")[0]
    assert sets.object_parts.shape[0] == len(sets.vocabulary.objects)


def test_ten_images_a_class_unless_told(shapes_root: Path) -> None:
    sets = make_sets(shapes_root, images={"clean": None, "pgd": 2})
    assert sets.images == {"clean": 30, "pgd": 2}
    assert len(sets.subset) == 12  # all there are


def test_list_file_is_the_subset_in_balanced_order(shapes_root: Path, tmp_path: Path) -> None:
    everything = make_sets(shapes_root)
    chosen = sorted(everything.image_list)[3:10]
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{key} {label}\n" for key, label in chosen) + "\n")
    sets = make_sets(shapes_root, list_file=path)
    assert sorted(sets.image_list) == chosen
    assert sets.settings["image_list"] != everything.settings["image_list"]
    written = tmp_path / "subset.txt"
    written.write_text(sets.subset_lines())
    assert make_sets(shapes_root, list_file=written).settings == sets.settings
    path.write_text(f"{everything.vocabulary.objects[1]}/none.jpg 1\n")
    with pytest.raises(FileNotFoundError, match=r"lists .*none.jpg"):
        make_sets(shapes_root, list_file=path)


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"^image {tmp_path}/gone.png does not exist$"):
        sizes_hash(tmp_path, ["gone.png"])


def test_authors_list_is_read() -> None:
    path = SHARED / "imagenet_meta" / "imagenet_test_1k_aa.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with (path.parent / "imagenet1k.csv").open(newline="") as file:
        objects = sorted(row["wnid"] for row in csv.DictReader(file))
    images = read_image_list(path, objects)  # labels are checked against the folder names
    assert len(images) == len(path.read_text().splitlines())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("c/1.jpg", r":1: 'c/1.jpg' is not `path label`"),
        ("a/1.jpg 0\na/2.jpg -1", r":2: 'a/2.jpg -1' is not"),
        ("a/1.jpg 7", r":1: label 7 of a/1.jpg, the data has 2"),
        ("b/1.jpg 0", r":1: label 0 of b/1.jpg, in the data it is 1"),
        ("a/1.jpg 0\na/1.jpg 0", r":2: a/1.jpg is listed twice"),
        ("\n", "lists no images"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(lines)
    with pytest.raises(ValueError, match=message):
        read_image_list(path, ["a", "b"])


def test_without_annotations_classes_are_the_folders(shapes_root: Path) -> None:
    sets = RobustnessDataModule(shapes_root / "imagenet", None, {"clean": 3})
    assert sets.vocabulary.objects == make_sets(shapes_root).vocabulary.objects
    assert sets.object_parts.shape == (3, 1)
    with pytest.raises(ValueError, match="need pinpp"):
        RobustnessDataModule(
            shapes_root / "imagenet", None, {"clean": 3}, part_annotations=shapes_root / "val_parts"
        )


def test_part_maps_are_cropped_with_the_image(shapes_root: Path) -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 20:40] = 7
    picture = Image.fromarray(np.repeat((labels * 30).astype(np.uint8)[..., None], 3, 2))
    pixels, parts = to_pixels(picture, 20, 16), to_part_map(labels, 20, 16)
    assert (parts > 0).sum() == 100
    assert ((pixels[0] > 105) == (parts == 7)).float().mean() > 0.95  # bicubic blurs the edge
    sets = make_sets(shapes_root, part_annotations=shapes_root / "val_parts", resize=20)
    unit = sets.units[0]
    dataset = UnitDataset([unit], sets.split, 20, 16, sets.annotations)
    part_map = dataset[0]["part_map"]
    assert part_map.shape == (4, 16, 16)
    for (_, label), found in zip(unit.images, part_map, strict=True):
        assert found.max() > 0
        assert {0, *sets.vocabulary.parts_of(label)} >= set(found.unique().tolist())


def test_wrong_numbers_are_refused(shapes_root: Path) -> None:
    with pytest.raises(ValueError, match="pgd: 0"):
        make_sets(shapes_root, images={"clean": 1, "pgd": 0})
    with pytest.raises(ValueError, match="image_size=32"):
        make_sets(shapes_root, image_size=32)
    with pytest.raises(ValueError, match=r"stop_width=1\.5"):
        make_sets(shapes_root, stop_width=1.5)
    with pytest.raises(FileNotFoundError, match="IMAGENET"):
        RobustnessDataModule(shapes_root / "nowhere", shapes_root / "pinpp", {"clean": 1})


@pytest.fixture
def subsets(shapes_root: Path, tmp_path: Path) -> Path:
    first, second, third = list_objects(shapes_root / "imagenet")
    content = {
        "grouped": {first: "b", third: "a", "n00000000": "c"},
        "single": [second, "n00000000"],
        "every": [first, second, third],
    }
    path = tmp_path / "subsets.json"
    path.write_text(json.dumps(content))
    return path


def test_subset_keeps_its_images_and_labels_them_by_group(shapes_root: Path, subsets: Path) -> None:
    whole = make_sets(shapes_root, images={"clean": None})
    sets = make_sets(shapes_root, images={"clean": None}, subset="grouped", subsets=subsets)
    first, _, third = whole.vocabulary.objects
    assert sets.answers == ("a", "b")
    assert sets.groups is not None
    assert sets.groups.tolist() == [1, -1, 0]
    names = {key: key.partition("/")[0] for key, _ in sets.image_list}
    assert sets.image_list == [(key, int(names[key] == first)) for key in names]
    assert names.keys() == {key for key, label in whole.image_list if label in (0, 2)}
    assert all({*list(names.values())[i : i + 2]} == {first, third} for i in range(0, 8, 2))
    assert sets.images == {"clean": 20}  # 10 of each category, not of each group
    batch = UnitDataset(sets.units, sets.split, 16, 16)[0]
    assert batch["label"].tolist() == [label for _, label in sets.image_list[:4]]
    # as the accuracy without an attack has it
    setting = EvaluationSetting(
        shapes_root / "imagenet", shapes_root / "pinpp", whole.vocabulary.objects, 16, 16, 0
    )
    found = next(one for one in ClassSubsets(subsets).sets(setting) if one.name == "grouped")
    assert found.groups is not None
    assert torch.equal(found.groups, sets.groups)
    assert sorted(found.items()) == sorted(sets.image_list)


def test_subset_is_in_the_settings_and_its_list_can_be_read(
    shapes_root: Path, subsets: Path, tmp_path: Path
) -> None:
    whole, every = make_sets(shapes_root), make_sets(shapes_root, subset="every", subsets=subsets)
    assert every.image_list == whole.image_list
    assert every.units == whole.units
    assert whole.settings["subset"] is None
    assert every.settings["subset"].startswith("every sha256:")
    sets = make_sets(shapes_root, images={"clean": 8}, subset="grouped", subsets=subsets)
    written = tmp_path / "subset.txt"
    written.write_text(sets.subset_lines())
    again = make_sets(shapes_root, subset="grouped", subsets=subsets, list_file=written)
    assert again.image_list == sets.image_list


def test_wrong_subsets_are_refused(shapes_root: Path, subsets: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no subset pin12, only pin125, pin11, grouped"):
        make_sets(shapes_root, subset="pin12", subsets=subsets)
    with pytest.raises(ValueError, match=r"subset pin125: .* printed nowhere: set `subsets`"):
        make_sets(shapes_root, subset="pin125")
    with pytest.raises(ValueError, match=r"subset pin11: .* fall into 0 of its 11 groups"):
        make_sets(shapes_root, subset="pin11")
    with pytest.raises(ValueError, match=r"subset single: .* fall into 1 of its 2 groups"):
        make_sets(shapes_root, subset="single", subsets=subsets)
    with pytest.raises(ValueError, match="needs subset, the name of one"):
        make_sets(shapes_root, subsets=subsets)
    with pytest.raises(FileNotFoundError, match=r"none\.json does not exist"):
        make_sets(shapes_root, subset="mine", subsets=tmp_path / "none.json")
    listed = tmp_path / "list.txt"
    listed.write_text(next(line for line in make_lines(shapes_root) if line.endswith(" 1\n")))
    with pytest.raises(ValueError, match=r"no image of .*list\.txt is in subset grouped"):
        make_sets(shapes_root, subset="grouped", subsets=subsets, list_file=listed)


def make_lines(root: Path) -> list[str]:
    return make_sets(root).subset_lines().splitlines(keepends=True)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\ufeffa/1.jpg 0\nb/2.jpg 1\n", encoding="utf-8")
    assert read_image_list(path, ["a", "b"]) == [("a/1.jpg", 0), ("b/2.jpg", 1)]
