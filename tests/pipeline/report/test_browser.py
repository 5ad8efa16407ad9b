"""The report in a real browser, where one is installed."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.build import build_report
from tests.browser import BROWSER, look_at
from tests.pipeline.report.report_runs import write_runs

# written into the document that the browser prints
CHECK = """<script>
addEventListener("load", async () => {
  await Promise.all([...document.images].map((one) => one.decode().catch(() => {})));
  const source = document.documentElement.outerHTML.replace(/<script[^]*?<\\/script>/g, "");
  const over = (one) => one.scrollWidth - one.clientWidth;
  const measure = (width) => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.style = `border: 0; width: ${width}px; height: 900px`;
    frame.srcdoc = source;
    frame.onload = () => {
      const root = frame.contentDocument.documentElement;
      const box = root.querySelector(".headline .scroll");
      const wide = [...root.querySelectorAll("h3 + .scroll")].map(over);
      resolve({page: over(root), headline: over(box), widest: Math.max(...wide)});
      frame.remove();
    };
    document.body.append(frame);
  });
  const frames = {desk: await measure(1100), phone: await measure(390)};
  const table = document.querySelector("table.sortable");
  const click = (place) => {
    table.tHead.rows[0].cells[place].querySelector("button").click();
    return [...table.tBodies].map((body) =>
      [...body.rows].map((row) => row.cells[place]?.dataset.value ?? null));
  };
  const found = {
    tables: [...document.querySelectorAll("h3 + .scroll > table caption")].map(
      (c) => c.textContent),
    rows: [...document.querySelectorAll("table.sortable")].map((t) => t.tBodies[0].rows.length),
    images: [...document.images].map((one) => [one.alt, one.naturalWidth, one.naturalHeight]),
    links: [...document.querySelectorAll("a[download]")].length,
    anchors: [...document.querySelectorAll("nav a")].map(
      (a) => document.querySelector(a.hash) !== null),
    down: click(1), up: click(1), names: click(0), last: click(3),
    sorted: table.tHead.rows[0].cells[3].getAttribute("aria-sort"),
    frames,
  };
  const pre = document.createElement("pre");
  pre.id = "check";
  pre.textContent = JSON.stringify(found);
  document.body.append(pre);
});
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser, such as chromium")


def numbers(values: list[str | None]) -> list[float]:
    return [float(value) for value in values if value is not None]


@pytest.fixture(scope="module")
def looked(
    shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[str]]:
    folder = tmp_path_factory.mktemp("browser")
    runs = write_runs(folder / "runs", shapes_root)
    data = {"imagenet": shapes_root / "imagenet", "pinpp": shapes_root / "pinpp"}
    page = build_report(runs, folder / "index.html", **data)
    page.write_text(page.read_text().replace("</body>", f"{CHECK}</body>"))
    return look_at(page, folder / "profile")


def test_nothing_on_the_console(looked: tuple[dict[str, Any], list[str]]) -> None:
    assert looked[1] == []


def test_tables_and_links_are_there(looked: tuple[dict[str, Any], list[str]]) -> None:
    found, _ = looked
    assert len(found["tables"]) >= 12
    assert all(found["tables"])
    assert all(found["rows"])
    assert found["links"] == 3 * (len(found["rows"]) - 1)  # the headline is a part of table 2
    assert len(found["anchors"]) >= 8
    assert all(found["anchors"])


@pytest.mark.parametrize("frame", ["desk", "phone"])
def test_only_wide_tables_scroll(looked: tuple[dict[str, Any], list[str]], frame: str) -> None:
    widths = looked[0]["frames"][frame]
    assert widths["page"] <= 0
    assert widths["headline"] <= 0
    assert widths["widest"] > 0  # they scroll by themselves


def test_images_decode(looked: tuple[dict[str, Any], list[str]]) -> None:
    images = looked[0]["images"]
    assert all(alt and width > 0 and height > 0 for alt, width, height in images)
    titles = {alt for alt, _, _ in images}
    assert titles >= {
        *("Robust accuracy against eps", "Robust against clean accuracy", "clean image"),
        *("Images standing after each attack", "Accuracy under each corruption"),
        *("adversarial image", "amplified difference", "learning curves of stage3_mpm"),
    }


def test_headings_sort(looked: tuple[dict[str, Any], list[str]]) -> None:
    found, _ = looked
    for place, body in enumerate(found["down"]):
        values = numbers(body)
        assert values == sorted(values, reverse=True)
        assert numbers(found["up"][place]) == sorted(values)
    assert found["names"][0] == ["stage3_mpm", "stage3_vanilla"]
    assert found["names"][2] == sorted(found["names"][2], key=str.casefold)
    assert found["sorted"] == "descending"
    # published rows are no part of the measured ones, and their heading stays above them
    assert [len(body) for body in found["down"]] == [2, 1, 7]


def test_an_error_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text('<body><pre id="check">{}</pre><script>notThere()</script></body>')
    _, console = look_at(page, tmp_path / "profile")
    assert any("notThere is not defined" in line for line in console)
