"""A real browser that looks at a page on the disk, where one is installed."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--virtual-time-budget=20000", "--enable-logging=stderr", "--v=0", "--dump-dom"),
)


def look_at(page: Path, profile: Path, *more: str) -> tuple[dict[str, Any], list[str]]:
    """What a script in the page wrote as JSON into `<pre id="check">`, and the console's lines.

    Args:
        page: HTML file.
        profile: how the folders begin that the browser keeps its state in.
        more: options of the browser.
    """
    for attempt in range(4):  # a busy machine's browser may print before all pictures are decoded
        command = [str(BROWSER), *OPTIONS, *more, f"--user-data-dir={profile}{attempt}"]
        done = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        if found := re.search(r'<pre id="check">(.*?)</pre>', done.stdout, re.DOTALL):
            console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
            return json.loads(html.unescape(found[1])), console
    raise AssertionError("the script in the page did not run to its end")
