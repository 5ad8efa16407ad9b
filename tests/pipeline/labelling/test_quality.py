import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts, PartInstance, encode_mask
from pipeline.labelling.quality import main, pseudo_label_miou

SIZE = (12, 15)
BOX = (0.0, 0.0, 1.0, 1.0)


def image(key: str, *instances: tuple[int, np.ndarray, float]) -> ImageParts:
    parts = tuple(PartInstance(part, encode_mask(mask), BOX, s) for part, mask, s in instances)
    return ImageParts(key, 0, *SIZE, parts)


def disjoint(key: str, rng: np.random.Generator) -> tuple[ImageParts, np.ndarray]:
    """Random label map and the record that shows it."""
    labels = rng.integers(0, 4, SIZE)
    return image(key, *[(p, labels == p, 0.5) for p in (1, 2, 3) if (labels == p).any()]), labels


def plain_miou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """IoU from sets of pixels, one class after the other."""
    values = []
    for part in sorted({int(v) for _, truth in pairs for v in truth.ravel()} - {0}):
        guess, truth = (
            {
                (n, i, j)
                for n, pair in enumerate(pairs)
                for i in range(SIZE[0])
                for j in range(SIZE[1])
                if pair[side][i, j] == part
            }
            for side in (0, 1)
        )
        values.append(len(guess & truth) / len(guess | truth))
    return sum(values) / len(values)


def test_miou_equals_plain_counting() -> None:
    rng = np.random.default_rng(0)
    guesses = [disjoint(f"ant/{n}.jpg", rng) for n in range(3)]
    truths = [disjoint(f"ant/{n}.jpg", rng) for n in range(3)]
    expected = plain_miou([(g[1], t[1]) for g, t in zip(guesses, truths, strict=True)])
    other = image("ant/unannotated.jpg", (1, np.ones(SIZE, bool), 1.0))
    found = pseudo_label_miou([*(g[0] for g in guesses), other], [t[0] for t in truths], ())
    assert found == pytest.approx(expected)
    assert 0 < found < 1


def test_perfect_missing_and_foreign_parts() -> None:
    left = np.zeros(SIZE, bool)
    left[:, :6] = True
    truth = [image("ant/0.jpg", (1, left, 1.0), (2, ~left, 1.0))]
    assert pseudo_label_miou(truth, truth, ()) == 1.0
    assert pseudo_label_miou([image("ant/0.jpg", (1, left, 0.3))], truth, ()) == 0.5
    foreign = image("ant/0.jpg", (1, left, 0.3), (9, ~left, 0.3))
    assert pseudo_label_miou([foreign], truth, ()) == 0.5
    failed = ImageParts("ant/0.jpg", 0, 0, 0, error="cannot be decoded")
    assert pseudo_label_miou([failed], truth, ()) == 0.0


def test_included_part_and_score_threshold_decide_the_composite() -> None:
    whole = np.ones(SIZE, bool)
    inner = np.zeros(SIZE, bool)
    inner[3:6, 3:6] = True
    truth = [image("ant/0.jpg", (1, whole, 1.0), (2, inner, 1.0))]
    guess = [image("ant/0.jpg", (2, inner, 0.2), (1, whole, 0.9))]
    assert pseudo_label_miou(guess, truth, [(2, 1)]) == 1.0
    covered = (whole.sum() - inner.sum()) / whole.sum() / 2
    assert pseudo_label_miou(guess, truth, ()) == pytest.approx(covered)
    assert pseudo_label_miou(guess, truth, [(2, 1)], min_score=0.5) == pytest.approx(covered)


def test_refusals_name_the_image() -> None:
    truth = [image("ant/0.jpg", (1, np.ones(SIZE, bool), 1.0))]
    with pytest.raises(ValueError, match=r"ant/0.jpg is not among the labelled images"):
        pseudo_label_miou([], truth, ())
    with pytest.raises(ValueError, match=r"ant/0.jpg is 3x4"):
        pseudo_label_miou([ImageParts("ant/0.jpg", 0, 3, 4)], truth, ())
    with pytest.raises(ValueError, match="shows no part"):
        pseudo_label_miou([], [], ())


def test_main_prints_figures_of_run_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = np.zeros(SIZE, bool)
    left[:, :6] = True
    run = tmp_path / "run"
    (run / "labels").mkdir(parents=True)
    PartVocabulary(("ant",), ("ant:head",)).save(run / "vocabulary.json")
    rows = [image("ant/0.png", (1, left, 0.9)), ImageParts("ant/1.png", 0, 0, 0, error="broken")]
    pq.write_table(to_table(rows), run / "labels/00000.parquet")
    polygon = [[0, 0, 6, 0, 6, 12, 0, 12]]
    content = {
        "images": [{"id": 1, "file_name": "ant/0.png", "height": 12, "width": 15}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": polygon}],
        "categories": [{"id": 7, "name": "head"}],
    }
    (tmp_path / "truth/json").mkdir(parents=True)
    (tmp_path / "truth/json/ant.json").write_text(json.dumps(content))
    main(run, tmp_path / "truth")
    assert json.loads(capsys.readouterr().out) == {
        str(run): {"miou": 1.0, "images": 2, "compared": 1, "labelled": 1, "errors": 1}
    }
