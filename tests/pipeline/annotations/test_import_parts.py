import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import MissingInputError, UserError
from datamodules.masks.part_labels import ImageParts, decode_masks
from pipeline.annotations.check_data import check_data
from pipeline.annotations.import_parts import main, panoptic_parts, pascal_part
from tests.datamodules.annotations.part_sources import (
    SIDS,
    Truth,
    panoptic_source,
    pascal_source,
    tiff_of,
    write_ids,
    write_mat,
)
from tests.pipeline.commands import run

SMALL = ["--workers", "1", "--min_pixels", "20"]
VEHICLE = ["windows", "wheels", "lights", "license plate", "chassis"]
PART_NAMES = {24: ["torso", "head", "arms", "legs"], 26: VEHICLE}


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Truth]]]:
    root = tmp_path_factory.mktemp("voc") / "VOC2010"
    return root, pascal_source(root)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("street") / "cityscapes"
    return root, panoptic_source(root)


def imported(out: Path) -> tuple[PartVocabulary, dict[str, list[ImageParts]]]:
    """What the stages read of an import, by split; its images must be there and all be sound."""
    found = check_data(out / "imagenet", out / "pinpp", out / "val_parts", workers=1)
    assert [p for p in found.problems if p.affects_training] == []
    words = PartVocabulary.from_pinpp(out / "pinpp", out / "imagenet")
    return words, {
        split: read_annotations(out / folder, words, out / "imagenet" / split)
        for split, folder in (("train", "pinpp"), ("val", "val_parts"))
    }


def masks_by_part(words: PartVocabulary, image: ImageParts) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for one, mask in zip(image.instances, decode_masks(image), strict=True):
        found.setdefault(words.parts[one.part - 1], []).append(mask.astype(bool))
    return found


def expected_parts(truth: Truth) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for name, mask in truth.parts:
        if mask.any():
            plain = re.sub(r"_\d+$", "", name)
            found.setdefault(f"{truth.name}:{plain}", []).append(mask)
    return found


def assert_same(found: dict[str, list[np.ndarray]], expected: dict[str, list[np.ndarray]]) -> None:
    assert found.keys() == expected.keys()
    for name, masks in expected.items():
        assert all(np.array_equal(*pair) for pair in zip(found[name], masks, strict=True))


def counts_add_up(summary: dict[str, Any], of_parts: tuple[str, ...] = ()) -> None:
    dropped = sum(
        sum(names.values())
        for reason, names in summary["dropped"].items()
        if reason not in of_parts
    )
    assert sum(summary["images"].values()) + dropped == summary["annotated_objects"]


def test_whole_images_of_pascal_part_keep_the_masks_of_their_largest_object(
    voc: tuple[Path, dict[str, list[Truth]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, truth = voc
    out = tmp_path / "out"
    main(["import_parts", "pascal_part", "--source", str(root), "--out", str(out), *SMALL])
    words, by_split = imported(out)
    assert words.objects == ("car", "dog")
    assert [len(images) for images in by_split.values()] == [8, 4]
    for split, images in by_split.items():
        for image in images:
            name, file = image.key.split("/")
            largest = max(truth[Path(file).stem], key=lambda one: one.mask.sum())
            assert name == largest.name
            assert_same(masks_by_part(words, image), expected_parts(largest))
            copy = out / "imagenet" / split / image.key
            assert copy.read_bytes() == (root / "JPEGImages" / file).read_bytes()
    summary = json.loads((out / "import.json").read_text())
    counts_add_up(summary)
    assert summary["dropped"] == {"not_largest": {"car": 6, "dog": 6}}
    assert "left out, not_largest: 12 (car 6, dog 6)" in capsys.readouterr().out


def test_crops_of_pascal_part_equal_their_source_pixel_by_pixel(
    voc: tuple[Path, dict[str, list[Truth]]], tmp_path: Path
) -> None:
    root, truth = voc
    pascal_part(root, tmp_path / "out", "crop", margin=0.25, workers=2)
    words, by_split = imported(tmp_path / "out")
    assert [len(images) for images in by_split.values()] == [16, 8]
    for split, images in by_split.items():
        for image in images:
            name, file = image.key.split("/")
            stem, _, number = Path(file).stem.rpartition("_")
            one = truth[stem][int(number) - 1]
            assert name == one.name
            rows, columns = np.nonzero(one.mask)
            pad = round(0.25 * max(np.ptp(rows) + 1, np.ptp(columns) + 1))
            window = (
                slice(max(rows.min() - pad, 0), rows.max() + 1 + pad),
                slice(max(columns.min() - pad, 0), columns.max() + 1 + pad),
            )
            expected = {k: [m[window] for m in v] for k, v in expected_parts(one).items()}
            assert_same(masks_by_part(words, image), expected)
            source = np.asarray(Image.open(root / "JPEGImages" / f"{stem}.jpg"))
            crop = np.asarray(Image.open(tmp_path / "out" / "imagenet" / split / image.key))
            assert np.array_equal(crop, source[window])


def test_crops_of_street_scenes_equal_their_ids_pixel_by_pixel(
    cityscapes: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    root, ids = cityscapes
    out = tmp_path / "out"
    args = ["panoptic_parts", "--source", str(root), "--out", str(out), "--margin=0"]
    main(["import_parts", *args, *SMALL])
    words, by_split = imported(out)
    assert words.objects == ("car", "person")
    assert [len(images) for images in by_split.values()] == [12, 4]
    for split, images in by_split.items():
        for image in images:
            name, file = image.key.split("/")
            stem, _, number = Path(file).stem.rpartition("_")
            scene = ids[f"{split}/{stem}"]
            texts = np.char.mod("%d", scene)
            own = np.char.startswith(texts, number) & (scene > 1000)
            rows, columns = np.nonzero(own)
            window = (
                slice(rows.min(), rows.max() + 1),
                slice(columns.min(), columns.max() + 1),
            )
            sid = SIDS[name][0]
            expected = {}
            for part, part_name in enumerate(PART_NAMES[sid], start=1):
                mask = (scene == int(number) * 100 + part)[window]
                if mask.any():
                    expected[f"{name}:{part_name}"] = [mask]
            assert_same(masks_by_part(words, image), expected)
            folder = root / "leftImg8bit" / split / "aachen"
            source = np.asarray(Image.open(folder / f"{stem}_leftImg8bit.png"))
            crop = np.asarray(Image.open(out / "imagenet" / split / image.key))
            assert np.array_equal(crop, source[window])
    summary = json.loads((out / "import.json").read_text())
    counts_add_up(summary)
    assert summary["dropped"] == {"no_instance": {"bicycle": 8}}


def test_groupings_make_coarse_categories_and_count_what_they_lack(
    voc: tuple[Path, dict[str, list[Truth]]],
    cityscapes: tuple[Path, dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    panoptic_parts(
        cityscapes[0], tmp_path / "street", grouping="sitawarin", min_pixels=20, copy=True
    )
    words, _ = imported(tmp_path / "street")
    assert words.objects == ("human", "vehicle")
    table = tmp_path / "mine.yaml"
    table.write_text("car: {parts: {wheels: [wheel]}}")
    pascal_part(voc[0], tmp_path / "cars", "crop", grouping=str(table))
    words, by_split = imported(tmp_path / "cars")
    assert words.parts == ("car:wheels",)
    assert all(len(image.instances) == 1 for image in by_split["train"])
    summary = json.loads((tmp_path / "cars" / "import.json").read_text())
    assert summary["dropped"] == {
        "class_not_in_grouping": {"dog": 12},
        "part_not_in_grouping": {"car:frontside": 12},
    }
    counts_add_up(summary, of_parts=("part_not_in_grouping",))
    truth = {name: next(o for o in ones if o.name == "car") for name, ones in voc[1].items()}
    for image in by_split["train"]:
        stem = Path(image.key).stem.rpartition("_")[0].rpartition("/")[2]
        wheels = np.logical_or(*(mask for name, mask in truth[stem].parts if "wheel" in name))
        assert decode_masks(image).sum() == wheels.sum()


def test_whole_street_scenes_are_copied_on_request(
    cityscapes: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    for copy in (False, True):
        out = tmp_path / str(copy)
        panoptic_parts(cityscapes[0], out, "largest", max_other=None, min_pixels=1, copy=copy)
        (first, *_) = sorted((out / "imagenet" / "train").glob("*/*"))
        assert first.is_symlink() != copy
        source = cityscapes[0] / "leftImg8bit" / "train" / "aachen"
        name = f"{first.stem}_leftImg8bit.png"
        assert first.read_bytes() == (source / name).read_bytes()


def test_categories_and_parts_of_val_alone(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    truth = pascal_source(root, train=4, val=2)
    mask = truth["2008_000004"][1].mask
    rest = [("leye", mask)]
    name = truth["2008_000004"][1].name
    write_mat(
        root / "Annotations_Part" / "2008_000004.mat", "2008_000004", [Truth(name, mask, rest)]
    )
    write_mat(
        root / "Annotations_Part" / "2008_000005.mat",
        "2008_000005",
        [Truth("cow", mask, [("head", mask)])],
    )
    pascal_part(root, tmp_path / "out")
    words, by_split = imported(tmp_path / "out")
    assert words.objects == ("car", "dog")
    assert f"{name}:leye" in words.parts  # a part that no image of train shows
    assert [len(images) for images in by_split.values()] == [4, 1]
    summary = json.loads((tmp_path / "out" / "import.json").read_text())
    assert summary["dropped"]["only_in_val"] == {"cow": 1}
    assert not (tmp_path / "out" / "imagenet" / "val" / "cow").exists()
    counts_add_up(summary)


def test_lists_can_be_given(voc: tuple[Path, dict[str, list[Truth]]], tmp_path: Path) -> None:
    names = sorted(voc[1])
    mine = tmp_path / "mine.txt"
    mine.write_text("".join(f"{name}  1\n" for name in names[:4]))
    pascal_part(voc[0], tmp_path / "out", train=mine)
    assert len(list((tmp_path / "out" / "imagenet" / "train").glob("*/*"))) == 4
    assert not (tmp_path / "out" / "val_parts").exists()
    with pytest.raises(UserError, match=rf"{names[0]} is listed twice, also in .*mine\.txt"):
        pascal_part(voc[0], tmp_path / "again", train=mine, val=mine)


def test_what_is_there_is_never_overwritten(
    voc: tuple[Path, dict[str, list[Truth]]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pascal_part(voc[0], out, workers=1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{out} is not an empty folder"):
        pascal_part(voc[0], out, workers=1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_val_without_a_category_of_train_is_no_split(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    truth = pascal_source(root, train=3, val=1)
    mask = truth["2008_000003"][1].mask
    cow = [Truth("cow", mask, [("head", mask)])]
    write_mat(root / "Annotations_Part" / "2008_000003.mat", "2008_000003", cow)
    pascal_part(root, tmp_path / "out")
    assert not (tmp_path / "out" / "val_parts").exists()
    assert [path.name for path in (tmp_path / "out" / "imagenet").iterdir()] == ["train"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_leaves_nothing_that_looks_complete(
    voc: tuple[Path, dict[str, list[Truth]]],
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def stop_at_the_fifth(*_: object) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.annotations.object_data_set.PinppWriter.add", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        pascal_part(voc[0], tmp_path / "out", "crop", workers=workers)
    assert list(tmp_path.iterdir()) == []


def broken_voc(root: Path, what: str) -> None:
    pascal_source(root, train=3, val=1)
    mat = root / "Annotations_Part" / "2008_000002.mat"
    if what == "missing mat":
        mat.unlink()
    elif what == "missing image":
        (root / "JPEGImages" / "2008_000002.jpg").unlink()
    elif what == "missing list":
        (root / "ImageSets" / "Main" / "val.txt").unlink()
    elif what == "other size":
        Image.new("RGB", (80, 61)).save(root / "JPEGImages" / "2008_000002.jpg")
    elif what == "unknown class":
        write_mat(mat, mat.stem, [Truth("zebra", np.ones((60, 80), bool))])


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (
            "missing mat",
            MissingInputError,
            r"annotation .*2008_000002\.mat of 2008_000002 does not",
        ),
        ("missing image", MissingInputError, r"image .*2008_000002\.jpg of 2008_000002 does not"),
        ("missing list", MissingInputError, r"val\.txt does not exist: set SOURCE"),
        ("other size", UserError, r"2008_000002\.mat: .*its mask is 60x80, its image 61x80"),
        ("unknown class", UserError, r"2008_000002\.mat: object 1 \(zebra\) is of no category"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_broken_pascal_part_leaves_nothing_behind(
    what: str, kind: type[Exception], message: str, workers: int, tmp_path: Path
) -> None:
    broken_voc(tmp_path / "voc", what)
    with pytest.raises(kind, match=message):
        pascal_part(tmp_path / "voc", tmp_path / "out", "crop", workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["voc"]


def test_broken_street_scenes_leave_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "street"
    ids = panoptic_source(root, train=2, val=1)
    name = "aachen_000001_train"
    file = tiff_of(root, "train", name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{file.name} cannot be decoded"):
        panoptic_parts(root, tmp_path / "out", min_pixels=20)
    write_ids(file, ids[f"train/{name}"][:, 1:].copy())
    with pytest.raises(UserError, match="is 64x95, its image 64x96"):
        panoptic_parts(root, tmp_path / "out", min_pixels=20)
    write_ids(file, ids[f"train/{name}"])
    with pytest.raises(UserError, match="no image of train is left of 9 objects; left out: "):
        panoptic_parts(root, tmp_path / "out", min_pixels=10**6)
    (root / "leftImg8bit" / "train" / "aachen" / f"{name}_leftImg8bit.png").unlink()
    with pytest.raises(MissingInputError, match=rf"{name}_leftImg8bit.png of {name} does not"):
        panoptic_parts(root, tmp_path / "out", min_pixels=20)
    with pytest.raises(MissingInputError, match="train is not a folder: set SOURCE"):
        panoptic_parts(tmp_path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["street"]


def test_the_command_says_errors_in_one_line(tmp_path: Path) -> None:
    command = ["import_parts", "panoptic_parts", "--source", str(tmp_path), "--out", "x"]
    status, output = run(command)
    assert status == 1
    assert output == (
        f"error: {tmp_path}/gtFinePanopticParts/train is not a folder: set SOURCE to the one "
        "above\n"
    )
