"""The page in a real browser from the disk, where one is installed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.drawing.dark_mode import GROUND_DARK
from tests.browser import BROWSER, look_at
from tests.pipeline.browse.conftest import Browsed

DARK = "--blink-settings=preferredColorScheme=0"
# written into the document that the browser prints
CHECK = """<script>
addEventListener("load", async () => {
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const show = (id) => document.getElementById(id);
  const keys = () => [...document.querySelectorAll("article code")].map((one) => one.textContent);
  const set = (values) => {
    show("filters").reset();
    for (const [id, value] of Object.entries(values)) show(id).value = value;
    show("filters").dispatchEvent(new Event("input", {bubbles: true}));
    return {values, keys: keys(), count: show("count").textContent};
  };
  const options = (id) => [...show(id).options].map((one) => [one.value, one.textContent]);
  for (const one of document.images) one.loading = "eager";
  await Promise.all([...document.images].map((one) => one.complete || new Promise((resolve) => {
    one.onload = one.onerror = resolve;
  })));
  const found = {
    all: keys(), options: {},
    images: [...document.images].map((one) => [one.alt, one.naturalWidth]),
    ground: getComputedStyle(document.body).backgroundColor,
    more: !show("more").hidden, tried: [],
  };
  show("more").click();
  found.afterMore = keys();
  found.moreLeft = !show("more").hidden;
  for (const id of ["truth", "split", "outcome", "measure", "order"]) {
    found.options[id] = options(id);
    for (const [value] of options(id)) found.tried.push(set({[id]: value}));
  }
  for (const text of ["CAR_1", "nothing"]) found.tried.push(set({text}));
  for (const measure of ["pseudo", "parts"]) found.tried.push(set({measure, most: "0.1"}));
  show("filters").reset();
  await wait(50);
  found.cleared = show("count").textContent;
  const source = document.documentElement.outerHTML.replace(/<script[^]*?<\\/script>/g, "");
  const measure = (width) => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.style = `border: 0; width: ${width}px; height: 900px`;
    frame.srcdoc = source;
    frame.onload = () => {
      const root = frame.contentDocument.documentElement;
      const cells = [...root.querySelectorAll("article")[0].querySelectorAll(".six > div")];
      const tops = new Set(cells.map((one) => one.offsetTop));
      resolve({over: root.scrollWidth - root.clientWidth, rows: tops.size});
      frame.remove();
    };
    document.body.append(frame);
  });
  found.desk = await measure(1100);
  found.phone = await measure(390);
  const pre = document.createElement("pre");
  pre.id = "check";
  pre.textContent = JSON.stringify(found);
  document.body.append(pre);
});
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser, such as chromium")


@pytest.fixture(scope="module")
def copied(browsed: Browsed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page in another place, as it is copied to another machine."""
    folder = tmp_path_factory.mktemp("copied") / "my page & it's"
    shutil.copytree(browsed.page, folder)
    page = folder / "index.html"
    page.write_text(page.read_text().replace("</body>", f"{CHECK}</body>"))
    return page


@pytest.fixture(scope="module")
def looked(copied: Path) -> tuple[dict[str, Any], list[str]]:
    return look_at(copied, copied.parent.parent / "light")


def keys_where(content: dict[str, Any], values: dict[str, str]) -> list[str]:
    """Keys of the images that one filter leaves, in the page's order."""
    ((name, value),) = [(n, v) for n, v in values.items() if n != "measure"] or [("", "")]
    kept = []
    for one in content["images"]:
        drawn = one["drawn"]
        if name == "outcome" and value:
            threat, kind = json.loads(value)
            broken_by = one["outcomes"].get(threat, {}).get("broken_by")
            if kind == "broken":
                keep = broken_by not in (None, "", "clean")
            else:
                keep = broken_by == {"stands": "", "wrong": "clean"}.get(kind, kind[3:])
        elif name == "most":
            keep = drawn["iou"].get(values["measure"], 2) <= float(value)
        else:
            found = {"truth": one["truth"], "split": drawn["split"]}.get(name, value)
            keep = value in ("", found)
            if name == "text":
                keep = value.lower() in drawn["key"]
        if keep:
            kept.append(one)
    if name == "order" and value == "name":
        kept.sort(key=lambda one: one["drawn"]["key"])
    if name == "order" and value == "iou":
        kept.sort(key=lambda one: one["drawn"]["iou"].get("pseudo", 2))
    return [one["drawn"]["key"] for one in kept]


def test_nothing_on_the_console(looked: tuple[dict[str, Any], list[str]]) -> None:
    assert looked[1] == []


def test_all_pictures_are_shown(looked: tuple[dict[str, Any], list[str]], browsed: Browsed) -> None:
    found, _ = looked
    drawn = [one["drawn"] for one in browsed.content["images"]]
    assert found["all"] == [one["key"] for one in drawn]
    assert not found["more"]
    assert len(found["images"]) == sum(len(one["pictures"]) for one in drawn)
    assert all(alt and width == 224 for alt, width in found["images"])


def test_every_filter_shows_its_images(
    looked: tuple[dict[str, Any], list[str]], browsed: Browsed
) -> None:
    found, _ = looked
    total = len(browsed.content["images"])
    for one in found["tried"]:
        keys = keys_where(browsed.content, one["values"])
        assert one["keys"] == keys, one["values"]
        assert one["count"] == f"{len(keys)} of {total} images"
    assert found["cleared"] == f"{total} of {total} images"
    names = {text.rpartition(" (")[0] for _, text in found["options"]["outcome"]}
    assert names >= {"broken by apgd-ce", "broken by square", "right under attack", "broken"}
    numbers = dict(found["options"]["outcome"])
    for value, text in numbers.items():
        if value:
            assert text.endswith(f"({len(keys_where(browsed.content, {'outcome': value}))})")


def test_it_fits_wide_and_narrow_windows(looked: tuple[dict[str, Any], list[str]]) -> None:
    found, _ = looked
    assert found["desk"] == {"over": 0, "rows": 1}
    assert found["phone"] == {"over": 0, "rows": 2}


def test_dark_where_the_reader_has_it_so(
    looked: tuple[dict[str, Any], list[str]], copied: Path
) -> None:
    dark, console = look_at(copied, copied.parent.parent / "dark", DARK)
    assert console == []
    ground = tuple(bytes.fromhex(GROUND_DARK[1:]))
    assert dark["ground"] == f"rgb{ground}"
    assert looked[0]["ground"] == "rgb(255, 255, 255)"
