import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from scipy.optimize import minimize

from pipeline.drawing.charts import svg_drawing
from pipeline.drawing.line_labels import LineLabel, label_lines, room_for, spread


def test_places_keep_apart_within_bounds_and_in_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = rng.uniform(-5, 105, rng.integers(1, 12))
        places = spread(wanted, 8.0, 0.0, 100.0)
        ordered = places[np.argsort(wanted, kind="stable")]
        assert (np.diff(ordered) >= 8 - 1e-9).all()
        assert places.min() >= -1e-9
        assert places.max() <= 100 + 1e-9


def test_places_are_the_nearest_that_keep_apart() -> None:
    wanted = np.array([10.0, 50.0, 52.0, 51.0, 90.0])
    order = np.argsort(wanted)
    apart = {"type": "ineq", "fun": lambda x: np.diff(x) - 5}
    best = minimize(lambda x: ((x - wanted[order]) ** 2).sum(), wanted[order], constraints=apart)
    assert spread(wanted, 5.0, 0.0, 100.0)[order] == pytest.approx(best.x, abs=1e-3)
    far = np.array([3.0, 40.0])
    assert (spread(far, 5.0, 0.0, 100.0) == far).all()


def test_too_many_reach_below() -> None:
    assert (spread(np.zeros(3), 10.0, 0.0, 10.0) == [-10.0, 0.0, 10.0]).all()


@pytest.mark.parametrize("ends", [[50.0] * 8, [0.0, 0.1, 99.9, 100.0, 50.0], [7.0]])
def test_names_do_not_overlap_and_stay_in_the_picture(ends: list[float]) -> None:
    with svg_drawing(4, 2.4) as drawing:
        panels: list[Axes] = list(drawing.figure.subplots(1, 2))
        for panel in panels:
            panel.plot([0, 1], [0, 100])
        labels = [
            LineLabel(1, end, f"a rather long name {i}", "#d55e00") for i, end in enumerate(ends)
        ]
        drawn = [label_lines(panel, labels) for panel in panels]
    # of the text alone, an annotation's own box holds its line, too
    boxes = [Text.get_window_extent(text) for texts in drawn for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    width, height = drawing.figure.bbox.size
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= width + 1
        assert box.y0 >= -1
        assert box.y1 <= height + 1
    for panel, texts in zip(panels, drawn, strict=True):
        right = panel.get_window_extent().x1
        assert all(Text.get_window_extent(text).x0 >= right for text in texts)
        assert [text.get_text() for text in texts] == [one.text for one in labels]


def test_no_labels_are_none() -> None:
    with svg_drawing(2, 2) as drawing:
        assert label_lines(drawing.figure.subplots(), []) == []


def test_a_figure_with_room_for_its_names_keeps_its_axes() -> None:
    texts = [f"stage3_mpm_of_seed_{place}, AutoAttack l∞ 8/255" for place in range(20)]
    wide, high = room_for(texts)
    with svg_drawing(2 + wide, 0.7 + high) as drawing:
        panel = drawing.figure.subplots()
        panel.plot([0, 1], [0, 1])
        drawn = label_lines(panel, [LineLabel(1, 0.5, text, "#d55e00") for text in texts])
    widths = [Text.get_window_extent(text).width for text in drawn]
    assert max(widths) <= wide * drawing.figure.dpi
    axes = panel.get_window_extent()
    assert axes.width >= 1.2 * drawing.figure.dpi
    assert all(Text.get_window_extent(text).y1 <= axes.y1 + 8 for text in drawn)
    assert all(Text.get_window_extent(text).y0 >= axes.y0 - 8 for text in drawn)
