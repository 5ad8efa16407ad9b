import json
from pathlib import Path

import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.annotations.reports import ObjectReport
from pipeline.annotations.statistics import density, main, statistics
from pipeline.published import TABLE_1, TABLE_S1


def test_density_uses_the_bins_of_the_table() -> None:
    by_number = {0: 50, 1: 3, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 30: 1}
    assert density(by_number) == {"1-2": 40.0, "3-4": 20.0, "5-6": 20.0, "7+": 20.0}
    assert density({}) == dict.fromkeys(TABLE_S1, 0)
    assert sum(TABLE_S1.values()) == pytest.approx(100)
    assert TABLE_1[-1].parts == 3308


def test_counts_of_reports() -> None:
    figures = statistics(
        [
            ObjectReport("cat", (), (2, 0), (("head", 1), ("tail", 1)), (("tail", "head"),) * 2),
            ObjectReport("flatworm", (), (1,), (("flatworm", 1),)),
            ObjectReport("dog"),
        ]
    )
    sizes = {key: figures[key] for key in ("objects", "parts", "images", "masks")}
    assert sizes == {"objects": 2, "parts": 3, "images": 3, "masks": 3}
    assert figures["images_without_masks"] == 1
    assert figures["single_part_objects"] == 1
    assert (figures["inclusion_relations"], figures["objects_with_relations"]) == (1, 1)
    assert figures["per_object"]["cat"]["parts"] == {"head": 1, "tail": 1}
    assert "dog" not in figures["per_object"]


def test_figures_are_those_of_the_reader(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imagenet, pinpp = shapes_root / "imagenet", shapes_root / "pinpp"
    main(imagenet, pinpp, tmp_path / "out", workers=1)
    figures = json.loads((tmp_path / "out" / "statistics.json").read_text())
    vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
    rows = read_annotations(pinpp, vocabulary)
    assert figures["objects"] == len(vocabulary.objects)
    assert figures["parts"] == vocabulary.num_parts
    assert figures["images"] == len(rows)
    assert figures["masks"] == sum(len(row.instances) for row in rows)
    assert figures["inclusion_relations"] == len(vocabulary.inclusions)
    for name, content in figures["per_object"].items():
        for part, masks in content["parts"].items():
            part_id = vocabulary.part_id(name, part)
            assert masks == sum(p.part == part_id for row in rows for p in row.instances)
    printed = capsys.readouterr().out
    assert "PartImageNet++" in printed
    assert "46.27" in printed
    assert "published" in printed
    with Image.open(tmp_path / "out" / "statistics.png") as picture:
        assert picture.width > 800
