import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.labels.coco import from_coco, relations, to_coco
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks, encode_mask

VOCABULARY = PartVocabulary(("ant", "bee"), ("ant:head", "bee:leg", "bee:wing"), ((2, 3),))


def rows() -> list[ImageParts]:
    rng = np.random.default_rng(0)
    float32 = rng.random((4, 5)).astype(np.float32).tolist()
    parts = [
        PartInstance(2 + i % 2, encode_mask(rng.random((5, 7)) > 0.5), (a, b, a + c, b + d), e)
        for i, (a, b, c, d, e) in enumerate(float32)
    ]
    empty = PartInstance(3, encode_mask(np.zeros((5, 7), bool)), (0, 0, 0, 0), 0.5)
    return [
        ImageParts("bee/1.jpg", 1, 5, 7, (*parts[:3], empty)),
        ImageParts("bee/2.jpg", 1, 4, 9),
        ImageParts("bee/3.jpg", 1, 0, 0, error="damaged"),
        ImageParts("bee/4.jpg", 1, 5, 7, tuple(parts[3:])),
    ]


def written(tmp_path: Path, **changes: Any) -> Path:
    file = tmp_path / "bee.json"
    file.write_text(json.dumps(to_coco(rows(), 1, VOCABULARY) | changes))
    return file


def test_round_trip_keeps_parts_masks_boxes_and_scores(tmp_path: Path) -> None:
    found = from_coco(written(tmp_path), VOCABULARY)
    expected = [row for row in rows() if not row.error]
    assert list(found) == [row.key for row in expected]
    for row in expected:
        again = found[row.key]
        assert (again.label, again.height, again.width) == (1, row.height, row.width)
        for old, new in zip(row.instances, again.instances, strict=True):
            assert (new.part, new.rle, new.score) == (old.part, old.rle, old.score)
            assert np.array_equal(np.float32(new.box), np.float32(old.box))


def test_pycocotools_reads_the_files(tmp_path: Path) -> None:
    coco = COCO(written(tmp_path))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "leg", 2: "wing"}
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    (expected,) = decode_masks(rows()[3])
    assert np.array_equal(coco.annToMask(annotation), expected)
    assert annotation["area"] == expected.sum()


def test_missing_score_and_box_are_filled_in(tmp_path: Path) -> None:
    annotation = {"image_id": 1, "category_id": 2, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]}
    (instance,) = from_coco(written(tmp_path, annotations=[annotation]), VOCABULARY)[
        "bee/1.jpg"
    ].instances
    assert (instance.part, instance.score, instance.box) == (3, 1.0, (1.0, 1.0, 5.0, 4.0))


@pytest.mark.parametrize("name", [{"category_name": "wing"}, {"category": "bee:wing"}])
def test_parts_may_be_named(name: dict[str, str], tmp_path: Path) -> None:
    annotation = {"image_id": 1, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]], **name}
    rows = from_coco(written(tmp_path, annotations=[annotation]), VOCABULARY)
    assert [part.part for part in rows["bee/1.jpg"].instances] == [3]
    wrong = written(tmp_path, annotations=[annotation | dict.fromkeys(name, "horn")])
    with pytest.raises(ValueError, match=r"annotation None: unknown category 'horn'"):
        from_coco(wrong, VOCABULARY)


def test_relations_are_written_per_object() -> None:
    assert relations(VOCABULARY) == {"bee": "leg:wing\n"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 1, "name": "horn"}]}, "unknown part bee:horn"),
        ({"annotations": [{"id": 9, "image_id": 8}]}, "annotation 9: unknown image_id 8"),
        ({"annotations": [{"id": 9, "image_id": 1, "category_id": 7}]}, "unknown category_id 7"),
        (
            {
                "annotations": [
                    {
                        "id": 9,
                        "image_id": 1,
                        "category_id": 1,
                        "segmentation": {"size": [7, 5], "counts": "P1"},
                    }
                ]
            },
            "annotation 9: .*mask is 7x5, its image 5x7",
        ),
        ({"images": [{"id": 1, "file_name": "ant/1.jpg", "height": 5, "width": 7}]}, "ant/1.jpg"),
        ({"images": [{"id": 1, "height": 5, "width": 7}]}, "image 1: its file_name is None"),
        ({"annotations": None}, "no list 'annotations'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        from_coco(written(tmp_path, **changes), VOCABULARY)
    assert "bee.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_parts_of_other_objects_are_refused() -> None:
    row = ImageParts("bee/1.jpg", 1, 2, 2, (PartInstance(1, b"04", (0, 0, 2, 2)),))
    with pytest.raises(ValueError, match=r"bee/1\.jpg has the part ant:head"):
        to_coco([row], 1, VOCABULARY)
