"""What the page lists, against the records and the annotations that it was made from."""

import json
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.evaluation.attack_units import answer_name
from datamodules.labels.label_set import read_labels
from datamodules.masks.part_masks import composite
from pipeline.browse.outcomes import spread
from pipeline.browse.paint import SIDE, mean_iou
from pipeline.browse.serve import open_server
from pipeline.report.part_maps import predict_parts
from tests.pipeline.browse.conftest import Browsed

SIZE = 32  # of the evaluated images, tests/configs/evaluate.yaml; files are twice as large


def annotated(folder: Path) -> set[str]:
    """Keys of the annotated images, from the files themselves."""
    return {
        image["file_name"]
        for file in (folder / "json").glob("*.json")
        for image in json.loads(file.read_text())["images"]
    }


def entries(browsed: Browsed, split: str) -> dict[str, dict[str, Any]]:
    images = browsed.content["images"]
    return {one["drawn"]["key"]: one for one in images if one["drawn"]["split"] == split}


def loop_iou(truth: np.ndarray, guess: np.ndarray) -> float | None:
    """Mean IoU over the parts of the truth, a pixel at a time."""
    shares = []
    for part in sorted({int(one) for one in truth.ravel()} - {0}):
        pairs = [
            (int(a) == part, int(b) == part) for a, b in zip(truth.flat, guess.flat, strict=True)
        ]
        shares.append(sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs))
    return sum(shares) / len(shares) if shares else None


def every_second(mask: np.ndarray) -> np.ndarray:
    """A mask of twice the size at the centres of the pixels, as PIL's nearest takes them."""
    image = Image.fromarray(mask.astype(np.int32))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST))


def test_all_images_are_there_with_their_pictures(browsed: Browsed, shapes_root: Path) -> None:
    evaluated, train = entries(browsed, "evaluated"), entries(browsed, "train")
    val = shapes_root / "imagenet" / "val"
    assert evaluated.keys() == {str(path.relative_to(val)) for path in val.glob("*/*")}
    assert train.keys() == annotated(shapes_root / "pinpp")
    known = annotated(shapes_root / "val_parts")
    for key, one in {**evaluated, **train}.items():
        assert one["truth"] == key.split("/")[0]
        pictures = one["drawn"]["pictures"]
        assert ("human" in pictures) == (key in known if key in evaluated else True)
        assert {"image", "pseudo", "parts", "attacked", "attacked_parts"} <= pictures.keys()
        for file in pictures.values():
            with Image.open(browsed.page / file) as picture:
                assert picture.size == (SIDE, SIDE)
    assert {one["drawn"]["labelled_by"] for one in evaluated.values()} == {"this page"}
    assert {one["drawn"]["labelled_by"] for one in train.values()} == {"stage 2"}


def test_outcomes_are_those_of_the_records(browsed: Browsed, shapes_root: Path) -> None:
    names = sorted(path.name for path in (shapes_root / "imagenet" / "train").iterdir())
    evaluated = entries(browsed, "evaluated")
    seen: dict[str, int] = {}
    for file in (browsed.evaluation / "records").glob("*/*.parquet"):
        threat = file.parent.name
        for row in pq.read_table(file).to_pylist():
            found = evaluated[row["key"]]["outcomes"][threat]
            assert found["broken_by"] == row["broken_by"]
            assert found["clean"] == names[row["clean_prediction"]]
            assert found["attacked"] == names[row["adversarial_prediction"]]
            # the page's own look at the clean image is of the same model
            assert evaluated[row["key"]]["drawn"]["clean"] == found["clean"]
            seen[threat] = seen.get(threat, 0) + 1
    assert seen == {"clean": 12, "pgd": 6, "autoattack": 9}
    counted = {one["name"]: one["images"] for one in browsed.content["threats"]}
    assert counted == seen
    assert sum(len(one["outcomes"]) for one in evaluated.values()) == sum(seen.values())
    assert not any(one["outcomes"] for one in entries(browsed, "train").values())


def test_quality_is_that_of_a_loop_over_pixels(
    browsed: Browsed, shapes_root: Path, finished_runs: Path
) -> None:
    vocabulary = PartVocabulary.load(finished_runs / "stage2_pseudolabels" / "vocabulary.json")
    human = {one.key: one for one in read_annotations(shapes_root / "pinpp", vocabulary)}
    pseudo = {one.key: one for one in read_labels(finished_runs / "stage2_pseudolabels")}
    files = shapes_root / "imagenet" / "train"
    train = entries(browsed, "train")
    pixels = []
    for key in train:
        with Image.open(files / key) as image:
            pixels.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
    maps = predict_parts(finished_runs / "stage3_mpm", np.stack(pixels))
    compared = 0
    for (key, one), parts in zip(train.items(), maps, strict=True):
        truth = every_second(composite(human[key], vocabulary.inclusions))
        guess = every_second(composite(pseudo[key], vocabulary.inclusions))
        cell = SIZE // len(parts)
        at_cells = truth[cell // 2 :: cell, cell // 2 :: cell]
        iou = one["drawn"]["iou"]
        assert iou.get("pseudo") == pytest.approx(loop_iou(truth, guess))
        assert iou.get("parts") == pytest.approx(loop_iou(at_cells, parts))
        compared += "pseudo" in iou
    assert compared == len(human)


def test_iou_of_known_masks() -> None:
    truth = np.zeros((8, 8), np.int32)
    truth[:4, :4], truth[4:, 4:] = 1, 2
    assert mean_iou(truth, truth) == 1.0
    half = np.where(np.arange(8) < 2, truth, 0)  # half of part 1, nothing of part 2
    assert mean_iou(truth, half) == pytest.approx(0.25)
    assert mean_iou(truth, np.array([[1, 0], [3, 2]])) == 1.0  # part 3 is nowhere in the truth
    assert mean_iou(np.zeros((8, 8), np.int32), truth) is None


def test_an_image_without_a_certificate_is_of_no_class() -> None:
    assert answer_name(("a", "b"), 1) == "b"
    assert answer_name(("a", "b"), -1) == "abstained"


def test_every_beginning_has_all_kinds() -> None:
    kinds = {f"{i:03d}": ("stands" if i % 10 else "broken", i % 3) for i in range(200)}
    order = spread(kinds, kinds, seed=1)
    assert sorted(order) == sorted(kinds)
    assert sum(kinds[key][0] == "broken" for key in order[:40]) == 20  # all there are
    classes = [kinds[key][1] for key in order[:12] if kinds[key][0] == "stands"]
    assert [classes.count(one) for one in range(3)] == [2, 2, 2]
    assert spread(reversed(order), kinds, seed=1) == order
    assert spread(kinds, kinds, seed=2) != order


def test_the_page_is_served_on_this_machine_alone(browsed: Browsed) -> None:
    with open_server(browsed.page, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        assert server.server_address[0] == "127.0.0.1"
        with urlopen(address) as answer:
            assert answer.read() == (browsed.page / "index.html").read_bytes()
        picture = browsed.content["images"][0]["drawn"]["pictures"]["image"]
        with urlopen(address + picture) as answer:
            assert answer.read() == (browsed.page / picture).read_bytes()
        server.shutdown()
