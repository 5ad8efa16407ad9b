import numpy as np

from datamodules.masks.part_labels import ImageParts, PartInstance, encode_mask
from datamodules.masks.part_masks import LabelRuns, composite


def rectangle(
    part: int, score: float, top: int, left: int, bottom: int, right: int
) -> PartInstance:
    mask = np.zeros((6, 8), bool)
    mask[top:bottom, left:right] = True
    return PartInstance(part, encode_mask(mask), (left, top, right, bottom), score)


def image(*instances: PartInstance) -> ImageParts:
    return ImageParts("cat/1.jpg", 0, 6, 8, instances)


def test_higher_score_is_painted_over_lower() -> None:
    labels = composite(image(rectangle(2, 0.9, 0, 0, 4, 4), rectangle(1, 0.4, 2, 2, 6, 8)), ())
    assert labels[3, 3] == 2
    assert labels[5, 7] == 1
    assert labels[0, 7] == 0


def test_human_annotations_are_painted_in_file_order() -> None:
    labels = composite(image(rectangle(2, 1, 0, 0, 4, 4), rectangle(1, 1, 0, 0, 2, 2)), ())
    assert labels[0, 0] == 1
    assert labels[3, 3] == 2


def test_included_part_stays_visible_on_its_whole_whatever_the_scores() -> None:
    eye, head, face = rectangle(1, 0.2, 1, 1, 2, 2), rectangle(2, 0.9, 0, 0, 4, 4), 3
    whole = rectangle(face, 0.95, 0, 0, 6, 8)
    labels = composite(image(eye, head, whole), [(1, 2), (2, face)])
    assert labels[1, 1] == 1
    assert labels[3, 3] == 2
    assert labels[5, 7] == face


def test_relations_that_form_a_circle_still_paint_every_part() -> None:
    labels = composite(
        image(rectangle(1, 0.2, 0, 0, 2, 2), rectangle(2, 0.3, 4, 4, 6, 6)), [(1, 2), (2, 1)]
    )
    assert set(np.unique(labels)) == {0, 1, 2}


def test_no_instances_is_background() -> None:
    assert not composite(image(), ()).any()


def test_runs_look_up_equals_indexing() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 5, (13, 6)), 3, axis=1).astype(np.int32)
    runs = LabelRuns.encode(labels)
    rows, columns = rng.integers(0, 13, 7), rng.integers(0, 18, 9)
    assert np.array_equal(runs.at(rows, columns), labels[np.ix_(rows, columns)])
    assert len(runs.ends) < labels.size


def test_one_run_longer_than_16_bits() -> None:
    labels = np.zeros((400, 500), np.int32)
    labels[-1, -1] = 7
    runs = LabelRuns.encode(labels)
    assert runs.at(np.array([399]), np.array([498, 499])).tolist() == [[0, 7]]
