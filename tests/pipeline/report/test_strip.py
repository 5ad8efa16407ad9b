from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.masks.part_masks import composite
from pipeline.drawing.samples import Sample
from pipeline.report.build import build_report
from pipeline.report.part_maps import attack_parts, predict_parts
from pipeline.report.reading.evaluations import read_evaluation
from pipeline.report.reading.runs import Runs, read_runs
from pipeline.report.strip import MISSING, TITLES, choose_images, draw_strip
from pipeline.report.strip_images import TRAIN, VAL, StripImages, strip_images
from tests.pipeline.report.report_runs import write_runs


@pytest.fixture
def vocabulary(shapes_root: Path) -> PartVocabulary:
    return PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")


@pytest.fixture
def finished(finished_runs: Path) -> Runs:
    return read_runs(finished_runs)


def sample(key: str, human: bool = True, pseudo: bool = True) -> Sample:
    mask = np.zeros((8, 8), np.int32)
    image = np.zeros((8, 8, 3), np.uint8)
    return Sample(key, image, mask if human else None, mask if pseudo else None)


def test_images_with_all_parts_of_different_objects_are_chosen() -> None:
    given = [
        sample("a/1", human=False),
        sample("a/2"),
        sample("a/3"),
        sample("b/1", pseudo=False),
        sample("c/1"),
        sample("d/1", human=False, pseudo=False),
    ]
    assert [one.key for one in choose_images(given, 2)] == ["a/2", "c/1"]
    assert [one.key for one in choose_images(given, 3)] == ["a/2", "b/1", "c/1"]
    assert choose_images([]) == []


def test_val_images_go_through_the_whole_pipeline(
    finished: Runs, shapes_root: Path, vocabulary: PartVocabulary
) -> None:
    val, annotations = shapes_root / "imagenet" / "val", shapes_root / "val_parts"
    images = strip_images([], vocabulary, finished, val, annotations, 0.0)
    assert (images.split, images.note) == (VAL, "")
    known = {parts.key: parts for parts in read_annotations(annotations, vocabulary, val)}
    assert [one.key.split("/")[0] for one in images.samples] == list(vocabulary.objects)
    for one in images.samples:
        assert one.human is not None
        assert np.array_equal(one.human, composite(known[one.key], vocabulary.inclusions))
        assert one.pseudo is not None
        assert one.pseudo.shape == one.image.shape[:2]
        own = {0, *vocabulary.parts_of(known[one.key].label)}
        assert {int(part) for part in np.unique(one.pseudo)} <= own  # the category filter
    strip = draw_strip(images, vocabulary, finished.folder, finished.evaluations[0])
    assert strip.note == ""
    for key, cells, _ in strip.rows:
        assert len(cells) == len(TITLES)
        assert all(cell.uri.startswith("data:image/jpeg") for cell in cells)
        for cell in cells[3:]:
            assert cell.is_right == (cell.note == key.split("/")[0])


def test_the_attack_stays_near_and_maps_are_those_of_the_model(
    finished: Runs, shapes_root: Path
) -> None:
    model = finished.folder / "stage3_mpm"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    found = attack_parts(model, images, torch.tensor([0, 1]), 8 / 255)
    assert np.array_equal(found.clean, predict_parts(model, pixels))
    assert found.attacked.shape == found.clean.shape
    still = attack_parts(model, images, torch.tensor([0, 1]), 0.0)
    assert np.array_equal(still.attacked, still.clean)
    assert np.array_equal(still.attacked_class, still.clean_class)
    with pytest.raises(UserError, match=r"stage3_mpm has 3 classes, the images are of 8$"):
        attack_parts(model, images, torch.tensor([0, 7]), 0.0)


def test_what_is_missing_says_why(
    shapes_root: Path, vocabulary: PartVocabulary, tmp_path: Path
) -> None:
    folder = write_runs(tmp_path, shapes_root)
    runs = read_runs(folder)
    train = [sample(f"{vocabulary.objects[0]}/1.jpg", human=False, pseudo=False)]
    val = shapes_root / "imagenet" / "val"
    images = strip_images(train, vocabulary, runs, val, None, 0.0)
    assert images == StripImages(train, TRAIN)
    gone = strip_images(train, vocabulary, runs, val, tmp_path / "gone", 0.0)
    assert gone.samples is train
    assert gone.note.startswith(f"No val images: {tmp_path / 'gone' / 'json'} holds no annotation")
    no_segmenter = strip_images(train, vocabulary, runs, val, shapes_root / "val_parts", 0.0)
    assert [one.pseudo for one in no_segmenter.samples] == [None] * 3
    assert no_segmenter.note.startswith("No pseudo labels: ")
    evaluation = read_evaluation(folder / "evaluate" / "stage3_mpm")
    strip = draw_strip(images, vocabulary, folder, evaluation)
    ((_, cells, _),) = strip.rows
    assert [cell.note for cell in cells] == list(MISSING)
    assert strip.note.startswith("No part maps: ")
    assert "make evaluate" in draw_strip(images, vocabulary, folder, None).note


def test_the_page_shows_the_strip(finished: Runs, shapes_root: Path, tmp_path: Path) -> None:
    folders = {"imagenet": shapes_root / "imagenet", "pinpp": shapes_root / "pinpp"}
    out = tmp_path / "page.html"
    page = build_report(finished.folder, out, **folders, pinpp_val=shapes_root / "val_parts")
    text = page.read_text()
    for title in TITLES[-2:]:  # the gallery has the others, too
        assert text.count(f', {title}">') == 3
    assert VAL.replace("'", "&#39;") in text
    assert TRAIN in build_report(finished.folder, out, **folders).read_text()
