"""What the browser tests share: Chromium, if the machine has one, and how crowded the machine is.

playwright is imported when a browser is asked for: the other tests run without it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
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


class Crowding:
    """How much longer what happens between ``begin`` and ``factor`` takes because other programs compute, too.

    Linux counts, for each thread, how long it has computed and how long it was ready and had to wait for a processor.
    Counted are the main threads of the processes that these tests have started by now (the browser's, the page's, the
    server's, the kernel's) and of this one: they take turns on the way from a key to a figure. A thread that sleeps
    does neither, so a slow figure remains slow. Elsewhere a computation in this process has to stand for all.
    """

    def __init__(self) -> None:
        self.pids = [os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))]

    def begin(self) -> None:
        self.before = self._counted()

    def factor(self) -> float:
        if (after := self._counted()) is None:
            clock, processor = time.perf_counter(), time.process_time()
            while (spent := time.process_time() - processor) < 0.06:  # about as long as the drawing of a figure
                sum(range(10_000))
            return (time.perf_counter() - clock) / spent
        computed, waited = (now - then for now, then in zip(after, self.before))
        return 1 + waited / computed if computed else 1.0

    def _counted(self) -> tuple[int, int] | None:
        """Nanoseconds computed, and waited; None where the system does not tell."""
        if not Path("/proc/self/schedstat").exists():
            return None
        found = [Path(f"/proc/{pid}/schedstat") for pid in self.pids]
        numbers = [tuple(map(int, path.read_text().split()[:2])) for path in found if path.exists()]
        return sum(computed for computed, _ in numbers), sum(waited for _, waited in numbers)
