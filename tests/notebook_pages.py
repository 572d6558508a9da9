"""A notebook as a reader meets it: JupyterLab in a real browser, Run All, and each control moved with the keyboard.

The notebooks run in a copy of the course, with settings of their own, so nothing is written to the clone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Crowding, skip_browser
from helpers import AT_ONCE, LECTURES, ROOT, loopback_works
from jupyter_client import BlockingKernelClient

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-test.txt")
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, TimeoutError, expect  # noqa: E402

TOKEN = "course"
RUN_ALL_LIMIT = 900  # seconds
REDRAW_LIMIT = 15  # seconds, for a machine that is busy with something else
BROWSER_TEST = "test_notebook_in_the_browser"

# Measures, in the browser: from the key press until the new figure is decoded and painted.
STOPWATCH = """
() => {
  const alarms = () => document.querySelectorAll("[data-mime-type$='jupyter.stderr']").length;
  window.wait = () => { window.pressed = null; window.painted = []; window.alarmed = alarms(); };
  window.seen = () => window.painted.length || alarms() > window.alarmed;
  window.wait();
  document.addEventListener("keydown", () => { window.pressed = performance.now(); }, true);
  new MutationObserver(records => {
    for (const record of records) for (const node of [record.target, ...record.addedNodes]) {
      const image = node.localName === "img" ? node : node.querySelector?.(":scope > img");
      if (!image?.closest(".jp-OutputArea-output") || window.pressed === null) continue;
      const began = window.pressed; window.pressed = null;
      image.decode().then(() => requestAnimationFrame(() => setTimeout(() => window.painted.push(performance.now() - began))));
    }
  }).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ["src"]});
}
"""

# The k-th interactive figure is described by the outputs before its controls: ..., figure, text, controls.
SHOWN = """
controls => {
  const item = controls.closest(".jp-OutputArea-child"), area = item.parentElement;
  const items = [...area.children].filter(e => e.matches(".jp-OutputArea-child")), here = items.indexOf(item);
  const text = items[here - 1].querySelector(".jp-OutputArea-output"), image = items[here - 2].querySelector("img");
  return {text: text.textContent.trimEnd(), image: image?.src ?? "", alarm: text.dataset.mimeType?.includes("stderr") ?? false};
}
"""

# What the figure's function gives for the present values of its controls, asked in the kernel.
DRAWN = "(lambda f, close: (f[0](**{{n: i.value for n, i in f[1].items()}})[1], close('all'))[0])"
DRAWN += "({figure}, __import__('matplotlib.pyplot').pyplot.close)"


class Lab:
    """A running JupyterLab, and a way to ask its kernels."""

    def __init__(self, folder: Path, prepare: Callable[[Path], None]) -> None:
        """``prepare`` may change the notebooks of the copy, whose folder it is given, before the server starts."""
        self.folder, self.log = folder, folder / "lab.log"
        self.course = folder / "the course"  # a path with a space
        skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        for part in ("notebooks", "course_utils"):
            shutil.copytree(ROOT / part, self.course / part, ignore=skip)
        (self.course / "data").symlink_to(ROOT / "data", target_is_directory=True)
        prepare(self.course / "notebooks")
        self._settings("apputils-extension/notification", fetchNews="false", checkForUpdates=False)
        self._settings("notebook-extension/tracker", windowingMode="none")  # keep outputs that are scrolled out of view
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        places = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
        places |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        readme = (ROOT / "README.md").read_text(encoding="utf-8")  # as its first command says
        words = re.search(r"-m jupyterlab (.*)", readme)[1].split()
        command = [sys.executable, "-m", "jupyterlab", *words, "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0", "--LabApp.news_url=None"]
        threads = str(max(1, (os.cpu_count() or 2) // 2))  # two notebooks run side by side
        environment = {**os.environ, **places, "COURSE_STRICT": "0", "OMP_NUM_THREADS": threads}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, f"--IdentityProvider.token={TOKEN}"],
                cwd=self.course,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.kernels = Path(places["JUPYTER_RUNTIME_DIR"])

    def _settings(self, plugin: str, **values: object) -> None:
        file = self.folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def ask(self, path: str, method: str = "GET") -> object:
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def wait(self) -> None:
        for _ in range(240):
            try:
                self.ask("status")
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.5)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A module that uses it says by its function ``prepare`` what it changes in the notebooks before they are opened."""
    if not loopback_works():
        skip_browser("this machine cannot connect to itself (127.0.0.1), so JupyterLab cannot be opened in a browser")
    server = Lab(tmp_path_factory.mktemp("lab"), request.module.prepare)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


class Kernel:
    """The kernel behind the open notebook, asked directly what the interactive figures should show."""

    def __init__(self, lab: Lab, path: str) -> None:
        (number,) = [session["kernel"]["id"] for session in lab.ask("sessions") if session["path"] == path]
        self.client = BlockingKernelClient(connection_file=str(lab.kernels / f"kernel-{number}.json"))
        self.client.load_connection_file()
        self.client.start_channels()

    def value(self, expression: str) -> object:
        """Value of an expression, in the kernel, that can be written as JSON."""
        code = f"__import__('json').dumps({expression})"
        reply = self.client.execute("", silent=True, user_expressions={"x": code}, reply=True, timeout=60)
        answer = reply["content"]["user_expressions"]["x"]
        assert answer["status"] == "ok", f"{expression}: {answer}"
        return json.loads(eval(answer["data"]["text/plain"]))

    def close(self) -> None:
        self.client.stop_channels()


class OpenNotebook:
    """A notebook opened in JupyterLab. As a context manager it ends the kernel and reports errors of page and console."""

    def __init__(self, browser: Browser, lab: Lab, path: str) -> None:
        self.lab, self.path, self.errors = lab, path, []
        self.page: Page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.page.on("pageerror", lambda error: self.errors.append(f"error in the page: {error}"))
        self.page.on("console", self._console)
        self.log_began = lab.log.stat().st_size

    def _console(self, message: ConsoleMessage) -> None:
        # The browser itself reports what the server answered with 404: JupyterLab asks for settings that may not exist.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(f"console: {message.text}")

    def __enter__(self) -> OpenNotebook:
        self.page.goto(f"{self.lab.url}/lab/tree/{self.path}?token={TOKEN}&reset")
        self.page.locator(".jp-Notebook").wait_for(timeout=90_000)
        self.page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=90_000)
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        for session in self.lab.ask("sessions"):
            if session["path"] == self.path:
                self.lab.ask(f"sessions/{session['id']}", method="DELETE")

    def menu(self, name: str, item: str) -> None:
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def run_all(self) -> None:
        """Run All, from a page without outputs."""
        self.page.bring_to_front()
        self.menu("Edit", "Clear Outputs of All Cells")
        self.menu("Run", "Run All Cells")
        self.began = time.monotonic()

    def has_run(self) -> bool:
        """Whether every code cell has its number. Fails when an error shows up, or when it takes too long."""
        prompts = self.page.evaluate("""() => [...document.querySelectorAll(".jp-CodeCell")]
            .filter(cell => cell.querySelector(".cm-content")?.textContent.trim())  // a collapsed cell has none
            .map(cell => cell.querySelector(".jp-InputPrompt").textContent.trim())""")
        self.no_errors()
        if all(prompt.strip("[]:").isdigit() for prompt in prompts):
            self.page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=60_000)
            self.no_errors()
            self.seconds = time.monotonic() - self.began
            return True
        assert time.monotonic() < self.began + RUN_ALL_LIMIT, f"{self.path}: Run All takes over {RUN_ALL_LIMIT} s"
        return False

    def printed(self) -> list[str]:
        """The text of each output on the page."""
        return self.page.locator(".jp-OutputArea-output").all_inner_texts()

    def no_errors(self) -> None:
        """Neither the page, nor an output, nor the console, nor the log of server and kernel tells of an error."""
        bad = ", ".join(
            f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{k}"]' for k in ("error", "stderr")
        )
        seen = [f"on the page: {text}" for text in self.page.locator(bad).all_inner_texts()]
        seen += [f"on the page: {text}" for text in self.page.get_by_text("Error displaying widget").all_inner_texts()]
        log = self.lab.log.read_text(errors="replace")[self.log_began :]
        seen += [f"log of server and kernel: {log}"] if "Traceback" in log else []
        assert not seen + self.errors, f"{self.path}:\n" + "\n".join(seen + self.errors)


def figures_of(notebook: OpenNotebook, kernel: Kernel) -> list[list[str]]:
    """The names of the controls of each interactive figure; the page's stopwatch is set up."""
    notebook.page.evaluate(STOPWATCH)
    names = kernel.value("[list(items) for draw, items in __import__('course_utils.interactive').interactive.FIGURES]")
    expect(notebook.page.locator(".course-controls")).to_have_count(len(names))
    return names


def move_controls(
    notebook: OpenNotebook, kernel: Kernel, number: int, controls: list[str]
) -> list[tuple[float, float]]:
    """Move each control of the figure with this number to both ends and back; figure and text must follow.

    Returns for each move the milliseconds until the new figure, and how crowded the machine was meanwhile.
    """
    page, crowding, measured = notebook.page, Crowding(), []
    figure = f"__import__('course_utils.interactive').interactive.FIGURES[{number}]"
    box = page.locator(".course-controls").nth(number)
    box.scroll_into_view_if_needed()
    rows = box.locator(".widget-inline-hbox:has(.noUi-handle), .widget-checkbox")
    expect(rows).to_have_count(len(controls))
    cut = box.locator(".widget-label").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.title)"
    )
    assert not cut, f"{notebook.path}: too long for the space beside a control: {cut}"

    def settled(what: str) -> dict:
        """What is shown, as soon as it is what draw gives for the controls' values."""
        truth = kernel.value(DRAWN.format(figure=figure)).rstrip()
        limit = time.monotonic() + REDRAW_LIMIT
        while True:
            shown = box.evaluate(SHOWN)
            assert not shown["alarm"], f"{notebook.path}, {what}: {shown['text']}"
            if shown["text"] == truth and shown["image"]:
                return shown
            assert time.monotonic() < limit, f"{notebook.path}, {what}: shows\n{shown['text']}\ninstead of\n{truth}"
            page.wait_for_timeout(30)

    first = settled("before any move")
    for name, row in zip(controls, [rows.nth(i) for i in range(len(controls))]):
        what = f"figure {number + 1}, control {name!r}"
        seen = [first]
        for move in moves(page, row, kernel, f"{figure}[1][{name!r}]"):
            page.evaluate("window.wait()")
            crowding.begin()
            move()
            with contextlib.suppress(TimeoutError):
                page.wait_for_function("window.seen()", timeout=REDRAW_LIMIT * 1000)
            crowd = crowding.factor()
            shown, painted = box.evaluate(SHOWN), page.evaluate("window.painted")
            assert not shown["alarm"], f"{notebook.path}, {what}: {shown['text']}"
            assert painted, f"{notebook.path}, {what}: no new figure after a key press"
            measured.append((painted[0], crowd))
            seen.append(settled(what))
        assert len({s["text"] for s in seen}) > 1, f"{notebook.path}, {what}: the text never changes: {first['text']}"
        images = len({s["image"] for s in seen[1:]})
        assert images > 1 or row.locator("input[type=checkbox]").count(), (
            f"{notebook.path}, {what}: the figure never changes"
        )
        assert seen[-1]["text"] == first["text"], f"{notebook.path}, {what}: not as before, back at the default value"
    return measured


def moves(page: Page, row: Locator, kernel: Kernel, item: str) -> Iterator[Callable[[], None]]:
    """Key presses that bring one control to its ends and back the shorter way, each of which changes its value."""

    def press(key: str) -> Callable[[], None]:
        return lambda: page.keyboard.press(key)

    def value() -> object:
        return kernel.value(f"{item}.value")

    default = value()
    if row.locator("input[type=checkbox]").count():
        row.locator("input[type=checkbox]").focus()
        yield press("Space")
        assert value() is not default
        yield press("Space")
    else:
        handle = row.locator(".noUi-handle")
        handle.focus()
        options = kernel.value(f"list({item}.options) if hasattr({item}, 'options') else None")
        low, high = (options[0], options[-1]) if options else kernel.value(f"[{item}.min, {item}.max]")
        step = None if options else kernel.value(f"{item}.step")
        above = options.index(default) if options else round((default - low) / step)
        below = len(options) - 1 - above if options else round((high - default) / step)
        ends = [("End", high), ("Home", low)] if above <= below else [("Home", low), ("End", high)]
        for key, end in ends:
            yield press(key)
            assert value() == pytest.approx(end), f"{key} moves to {value()}, not to {end}"
        for _ in range(min(above, below)):
            yield press("ArrowRight" if above <= below else "ArrowLeft")
        assert value() == pytest.approx(default)


def run_side_by_side(notebooks: list[OpenNotebook]) -> dict[str, AssertionError]:
    """Run All in each, at the same time. Returns what went wrong, by path."""
    failures: dict[str, AssertionError] = {}
    for notebook in notebooks:
        notebook.run_all()
    waiting = list(notebooks)
    while waiting:
        for notebook in list(waiting):
            try:
                if notebook.has_run():
                    waiting.remove(notebook)
            except AssertionError as error:
                failures[notebook.path] = error
                waiting.remove(notebook)
            notebook.page.wait_for_timeout(2000)  # looking costs the page time, too
    return failures


@contextlib.contextmanager
def kernel_of(notebook: OpenNotebook) -> Iterator[Kernel]:
    """The kernel of a notebook that has run; its page comes to the front."""
    notebook.page.bring_to_front()
    kernel = Kernel(notebook.lab, notebook.path)
    try:
        yield kernel
    finally:
        kernel.close()


def move_every_control(notebook: OpenNotebook) -> list[tuple[float, float]]:
    """``move_controls`` in each figure of a notebook that has run."""
    with kernel_of(notebook) as kernel:
        measured = []
        for number, controls in enumerate(figures_of(notebook, kernel)):
            measured += move_controls(notebook, kernel, number, controls)
            notebook.no_errors()
        return measured


def chosen_notebooks(items: list[pytest.Item]) -> list[Path]:
    """The notebooks to be opened in this run, among all its tests (nbval's, which are cells of notebooks, too)."""
    functions = [item for item in items if isinstance(item, pytest.Function)]
    return [item.callspec.params["path"] for item in functions if item.originalname == BROWSER_TEST]


@pytest.fixture(scope="module")
def shelf(request: pytest.FixtureRequest, chromium: Browser, lab: Lab) -> Iterator[Callable]:
    """Opens as many lectures as these tests have cores, one for each; the controls are tried when all are done."""
    chosen = chosen_notebooks(request.session.items)
    groups = [LECTURES[i : i + AT_ONCE] for i in range(0, len(LECTURES), AT_ONCE)]
    with contextlib.ExitStack() as stack:
        opened: dict[Path, OpenNotebook] = {}
        failures: dict[str, AssertionError] = {}

        def take(path: Path) -> OpenNotebook:
            if path not in opened:
                stack.close()
                opened.clear()
                for each in next(group for group in groups if path in group):
                    if each in chosen:
                        name = each.relative_to(ROOT).as_posix()
                        opened[each] = stack.enter_context(OpenNotebook(chromium, lab, name))
                failures.update(run_side_by_side(list(opened.values())))
            if opened[path].path in failures:
                raise failures[opened[path].path]
            return opened[path]

        yield take


def tried(notebook: OpenNotebook) -> tuple[str, list[tuple[float, float]]]:
    """A line on the notebook, and what ``move_every_control`` has measured in it."""
    began = time.monotonic()
    measured = move_every_control(notebook)
    seconds = time.monotonic() - began
    line = f"{notebook.path}: Run All {notebook.seconds:.0f} s, {len(measured)} moves of controls {seconds:.0f} s"
    return line, measured
