"""What the browser tests share: Chromium, if the machine has one.

playwright is imported when a browser is asked for: the other tests run without it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
FLAGS = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    " --disable-dev-shm-usage --disable-background-timer-throttling --disable-renderer-backgrounding"
).split()


def skip_browser(reason: str) -> None:
    """Skip the browser tests and say why; with COURSE_REQUIRE_BROWSER=1 (the machine that guards the course) fail."""
    if os.environ.get("COURSE_REQUIRE_BROWSER", "0") not in ("", "0"):
        pytest.fail(f"COURSE_REQUIRE_BROWSER is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium or Chrome of this machine (not the one that playwright would download)."""
    found = [shutil.which(name) for name in NAMES] + [place for place in PLACES if Path(place).exists()]
    path = next(filter(None, found), None)
    if path is None:
        skip_browser(
            "no Chromium or Chrome was found. To test in a browser install one, on Debian: apt-get install chromium"
        )
    if importlib.util.find_spec("playwright") is None:
        skip_browser("playwright is not installed: pip install -r requirements-test.txt")
    from playwright.sync_api import sync_playwright

    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS + ["--no-sandbox"] * as_root)
        yield browser
        browser.close()
