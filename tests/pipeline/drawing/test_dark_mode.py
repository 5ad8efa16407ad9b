import re
from xml.etree import ElementTree

import pytest

from pipeline.drawing.charts import svg_drawing
from pipeline.drawing.dark_mode import (
    GROUND_DARK,
    INK_DARK,
    INK_LIGHT,
    add_dark_mode,
    contrast,
    on_dark,
)
from pipeline.drawing.pages import render_page
from pipeline.drawing.palette import BLUE, GREEN, GREY, ORANGE, SERIES


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#777777") == contrast("#777777", "#ffffff")


@pytest.mark.parametrize("colour", [*SERIES, BLUE, GREEN, GREY, ORANGE, INK_LIGHT, "#2166ac"])
def test_colours_are_seen_on_the_dark_ground(colour: str) -> None:
    assert contrast(on_dark(colour), GROUND_DARK) >= 4.5


def test_ground_and_ink_change_places() -> None:
    assert (on_dark("#ffffff"), on_dark("#000000")) == (GROUND_DARK, INK_DARK)
    assert on_dark(SERIES[9]) == SERIES[9]  # bright as it is


def test_colours_are_those_of_the_pages() -> None:
    page = render_page("page.html.j2", "pipeline.drawing")
    light, dark = re.findall(r"--ink: (#\w+);.*?--ground: (#\w+);", page)[:2]
    assert (light[0], dark) == (INK_LIGHT, (INK_DARK, GROUND_DARK))


def test_every_colour_of_a_chart_has_a_dark_one() -> None:
    with svg_drawing(3, 2) as drawing:
        panel = drawing.figure.subplots()
        panel.plot([0, 1], [0, 1], color=BLUE)
        panel.set_title("title")
    svg = drawing.svg.decode()
    ElementTree.fromstring(svg)
    assert svg.count("<style>@media screen and (prefers-color-scheme:dark)") == 1
    used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg))
    assert used >= {BLUE, INK_LIGHT, "#ffffff"}
    for colour in used:
        assert f'[style*="stroke: {colour}"]{{stroke:{on_dark(colour)}!important}}' in svg
        assert f'[style*="fill: {colour}"]{{fill:{on_dark(colour)}!important}}' in svg
    # words are drawn in ink: black would not be named in the file
    assert svg.count(f"fill: {INK_LIGHT}") > 5


def test_a_file_without_colours_is_still_one() -> None:
    svg = add_dark_mode(b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>')
    ElementTree.fromstring(svg)
