import json
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts, PartInstance, encode_mask
from pipeline.annotations.agreement import compare_images, compare_objects, covered_fraction
from pipeline.annotations.compare_annotations import align_colours, compare_annotations, main
from pipeline.annotations.import_part_imagenet import import_part_imagenet
from pipeline.drawing.palette import part_colours
from tests.pipeline.annotations.test_import_part_imagenet import coco_of

BOX = (0.0, 0.0, 1.0, 1.0)


def parts_of(
    masks: np.ndarray, ids: list[int], label: int = 0, key: str = "cat/1.jpg"
) -> ImageParts:
    instances = tuple(
        PartInstance(part, encode_mask(mask), BOX) for part, mask in zip(ids, masks, strict=True)
    )
    return ImageParts(key, label, *masks.shape[1:], instances)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


@pytest.mark.parametrize("seed", range(5))
def test_agreement_equals_a_search_over_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = np.zeros((3, 20, 24), bool), np.zeros((4, 20, 24), bool)
    for mask in (*a, *b):
        top, left = rng.integers(0, 12), rng.integers(0, 12)
        mask[top : top + rng.integers(3, 8), left : left + rng.integers(3, 12)] = True
    found = compare_images(parts_of(a, [1, 2, 3]), parts_of(b, [1, 1, 2, 3]))
    best = max(
        (sum(iou(a[i], b[j]) for i, j in enumerate(order)), order)
        for order in permutations(range(4), 3)
    )
    partners = [value for i, j in enumerate(best[1]) if (value := iou(a[i], b[j])) > 0]
    assert sum(value for _, _, value in found.pairs) == pytest.approx(best[0])
    assert found.mask_iou == pytest.approx(np.mean(partners) if partners else 0)
    assert found.matched == pytest.approx(2 * len(partners) / 7)
    assert found.object_iou == pytest.approx(iou(a.any(axis=0), b.any(axis=0)))
    assert covered_fraction(parts_of(a, [1, 2, 3])) == pytest.approx(a.any(axis=0).mean())


def test_images_of_other_sizes_are_named() -> None:
    a, b = (parts_of(np.ones((1, *size), bool), [1]) for size in ((4, 6), (6, 4)))
    with pytest.raises(ValueError, match=r"cat/1\.jpg is 4x6 in one annotation and 6x4"):
        compare_images(a, b)
    words = PartVocabulary(("cat",), ("cat:head",))
    objects, problems = compare_objects(([a], [b]), (words, words))
    assert objects[0].common == ()
    assert len(problems) == 1


def test_objects_without_common_images_keep_their_own_figures() -> None:
    words = PartVocabulary(("cat", "dog"), ("cat:head", "cat:tail", "dog:head"))
    half = np.zeros((2, 4, 4), bool)
    half[0, :2], half[1, 2:3] = True, True
    a = [parts_of(half, [1, 2], key="cat/1.jpg"), parts_of(half, [3, 3], 1, "dog/1.jpg")]
    b = [parts_of(half[:1], [1], key="cat/2.jpg")]
    ((cat,), problems) = compare_objects((a, b), (words, words))
    assert problems == []
    assert (cat.name, cat.images, cat.common) == ("cat", (1, 1), ())
    assert cat.masks == (2, 1)
    assert cat.covered == (0.75, 0.5)
    assert cat.mean("object_iou") is None
    assert cat.parts == (["head", "tail"], ["head", "tail"])


@pytest.fixture
def coarse(shapes_root: Path, tmp_path: Path) -> Path:
    """The annotations of two objects with one part fewer, and every fish image but one renamed."""
    source = coco_of(shapes_root, tmp_path / "train.json", ("fish", "car"))
    content = json.loads(source.read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    content["annotations"] = [
        one
        for one in content["annotations"]
        if names[one["category_id"]] not in ("Animal Eye", "Thing Window")
    ]
    source.write_text(json.dumps(content))
    import_part_imagenet([source], tmp_path / "coarse")
    return tmp_path / "coarse" / "pinpp"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_comparison_of_a_data_set_with_itself(shapes_root: Path, tmp_path: Path) -> None:
    pinpp = shapes_root / "pinpp"
    content = compare_annotations(pinpp, pinpp, shapes_root / "imagenet", tmp_path / "out")
    assert content["overall"]["common_images"] == 24
    for figure in ("object_iou", "mask_iou", "matched"):
        assert content["overall"][figure] == pytest.approx(1)


def test_page_shows_finer_and_coarser_parts(
    shapes_root: Path, coarse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    page = main(shapes_root / "pinpp", coarse, shapes_root / "imagenet", out, gallery=3)
    assert "fish" in capsys.readouterr().out
    assert page == out / "index.html"
    content = json.loads((out / "comparison.json").read_text())
    assert [row["object"] for row in content["objects"]] == ["car", "fish"]
    fish = content["objects"][1]
    assert [len(names) for names in fish["parts"]] == [4, 3]
    assert fish["common_images"] == 8
    assert fish["masks_per_image"][0] > fish["masks_per_image"][1]
    assert 0 < fish["matched"] < 1
    assert {(p["a"], p["b"]) for p in fish["partners"]} >= {("body", "Body"), ("tail", "Tail")}
    page = Page((out / "index.html").read_text())
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 2 * 3 * 3
    for _, attrs in page.tags:  # nothing but itself
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:"))


def test_partners_share_a_colour(shapes_root: Path, coarse: Path) -> None:
    roots = (shapes_root / "pinpp", coarse)
    words = tuple(PartVocabulary.from_pinpp(root, shapes_root / "imagenet") for root in roots)
    images = tuple(read_annotations(root, w) for root, w in zip(roots, words, strict=True))
    objects, _ = compare_objects(images, words)  # type: ignore[arg-type]
    colours = tuple(part_colours(one) for one in words)
    label = words[0].objects.index("fish")
    align_colours(objects[1], label, words, colours)  # type: ignore[arg-type]
    for part in ("body", "tail", "fin"):
        a, b = words[0].part_id("fish", part), words[1].part_id("fish", part.title())
        assert colours[0][a].tolist() == colours[1][b].tolist()
    used = {tuple(colours[1][part]) for part in words[1].parts_of(label)}
    assert len(used) == 3


def test_folders_without_a_common_object_are_refused(shapes_root: Path, tmp_path: Path) -> None:
    a, b = (import_and_name(shapes_root, tmp_path, name, (name,)) for name in ("fish", "car"))
    with pytest.raises(UserError, match="no object category is annotated by both"):
        main(a, b, shapes_root / "imagenet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def import_and_name(shapes: Path, folder: Path, name: str, objects: tuple[str, ...]) -> Path:
    import_part_imagenet([coco_of(shapes, folder / f"{name}.json", objects)], folder / name)
    return folder / name / "pinpp"


def test_missing_images_leave_a_line_in_the_gallery(
    shapes_root: Path, coarse: Path, tmp_path: Path
) -> None:
    imagenet = tmp_path / "imagenet"
    for name in ("fish", "car", "tree"):
        (imagenet / "train" / name).mkdir(parents=True)
    compare_annotations(shapes_root / "pinpp", coarse, imagenet, tmp_path / "out")
    assert "not shown: image" in (tmp_path / "out" / "index.html").read_text()


def test_objects_without_common_images_show_one_of_each(shapes_root: Path, tmp_path: Path) -> None:
    roots = shapes_root / "pinpp", shapes_root / "truth"  # annotate other images
    content = compare_annotations(*roots, shapes_root / "imagenet", tmp_path / "out")
    assert content["overall"]["objects_with_common_images"] == 0
    assert content["overall"]["mask_iou"] is None
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("<img ") == 2 * 3
    assert text.count("no image in common") == 3
