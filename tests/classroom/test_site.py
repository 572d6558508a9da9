"""The website: complete, without what is the lecturer's, no dead link; and in a real browser with the network off."""

from __future__ import annotations

import base64
import io
import json
import mimetypes
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from browser import Crowding
from helpers import LECTURES, ROOT, SHORTER
from PIL import Image

from course_utils.classroom import frames
from course_utils.classroom.site import MAX_SITE, Options, build, main, published, write_sources

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

MOVING = [path for path in LECTURES if path.name[:2] in ("01", "02")]  # whose figures get frames here
ORIGIN = "http://course.test"  # no host has this name: every request is answered from the folder, or refused
MAX_PAGE = 3_000_000  # bytes that a page loads until a control is touched
GOAL = 50  # milliseconds from key to figure, median

# Runs a lecture as the recorder does, with shorter computations, and beside it keeps what each figure's function gives when
# one control is at an end.
WITNESS = """
import inspect, io, json, sys
from pathlib import Path
from course_utils.classroom import frames

class Witness(frames.Recorder):
    def __call__(self, draw, *, alt, labels=None, **controls):
        name = f"{self.cell}-{self.number}"
        super().__call__(draw, alt=alt, labels=labels, **controls)
        start = {n: inspect.signature(draw).parameters[n].default for n in controls}
        places, seen = None, {}
        for control, spec in controls.items():
            low, high = (False, True) if spec is bool else (spec[0], spec[-1]) if isinstance(spec, list) else spec[:2]
            for values in (start, start | {control: low}, start | {control: high}):
                fig, text = draw(**values)
                if places is None:
                    fig.canvas.draw()
                    places = [ax.get_position(original=True) for ax in fig.axes]
                fig.set_layout_engine("none")
                for ax, place in zip(fig.axes, places):
                    ax.set_position(place)
                seen.setdefault(control, []).append([self.picture(fig), text, frames.written(values[control])])
        TRUTH[f"{LECTURE.stem}/{name}"] = {"alt": alt, "seen": seen}

    def picture(self, fig):
        path = WHERE / f"{len(list(WHERE.iterdir()))}.png"
        fig.savefig(path)
        frames.plotting.mpl.pyplot.close(fig)
        return path.name

def shorter(shell, source, run=frames.InteractiveShell.run_cell):
    for old, new in SHORTER:
        source = source.replace(old, new)
    return run(shell, source)

FOLDER, WHERE, TRUTH = Path(sys.argv[1]), Path(sys.argv[2]), {}
LECTURE, SHORTER = Path(sys.argv[3]), json.loads(sys.argv[4])
frames.Recorder, frames.InteractiveShell.run_cell = Witness, shorter
frames.record(LECTURE, FOLDER, 12)
(FOLDER / f"{LECTURE.stem}.truth").write_text(json.dumps(TRUTH))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the site, with frames of the lectures in MOVING; ``frames`` and ``truth`` lie beside it."""
    place = tmp_path_factory.mktemp("web") / "my course"
    (place / "truth").mkdir(parents=True)
    for lecture in MOVING:
        places = map(str, (place / "frames", place / "truth", lecture))
        command = [sys.executable, "-c", WITNESS, *places, json.dumps(SHORTER.get(lecture.name[:2], []))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "COURSE_PROFILE": "cpu"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert main([str(place / "site"), "--frames-folder", str(place / "frames")]) == 0
    return place


@pytest.fixture(scope="module")
def site(folder: Path) -> Path:
    return folder / "site"


# --- what is there -------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """Addresses in a page, those it loads apart from those it names, and the ids to which an address can point."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids |= {values.get("id"), values.get("name")}
        if values.get("class") == "anchor-link":  # beside the headings of decks, never shown
            return
        if tag == "a" or (tag == "link" and values.get("rel") in ("next", "prev", "search", "index", "author")):
            self.links += [values["href"]] if values.get("href") else []
        else:
            self.loads += [values[key] for key in ("src", "href", "data-frames") if values.get(key)]


def dead_links(site: Path) -> list[str]:
    """Links of a site's pages that lead nowhere, and what the pages would load from elsewhere."""
    pages = {page: Links(page) for page in site.rglob("*.html") if "_static" not in page.parts}
    found = []
    for page, here in pages.items():
        where = page.relative_to(site)
        for link in {*here.links, *here.loads}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in here.loads and parts.scheme != "data":
                    found.append(f"{where} loads {link}")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file() and not target.with_name(target.name + ".js").is_file():
                found.append(f"{where}: {link} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{where}: {link} has no such place")
    return found


def test_no_link_is_dead_and_nothing_comes_from_elsewhere(site: Path) -> None:
    assert dead_links(site) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html">1</a><a href="b.html#there">2</a><a href="#here">3</a><a href="c.html">4</a>'
        '<a href="https://example.org">5</a><img src="https://example.org/x.png"><img src="data:image/png;base64,AA==">'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    assert sorted(dead_links(tmp_path)) == [
        "a.html loads https://example.org/x.png",
        "a.html: #here has no such place",
        "a.html: c.html leads nowhere",
    ]


def test_everything_is_there(site: Path) -> None:
    for path in LECTURES:
        page = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        for link in (f"../slides/{path.stem}.html", f"exercises/{path.stem}.html", f"../downloads/{path.name}"):
            assert f'href="{link}"' in page
        assert (site / "notebooks/exercises" / f"{path.stem}.html").is_file()
        nbformat.validate(nbformat.read(site / "downloads" / path.name, as_version=4))
        assert "prev-next" in page and "theme-switch" in page and "search" in page
        nb = nbformat.read(path, as_version=4)
        text = re.sub(r"\s+", " ", page)
        outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
        alts = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
        assert alts and not [alt for alt in alts if f'alt="{html_of(alt)}"' not in page]
        prose = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
        tags = re.findall(r"\\tag\{[^}]+\}", prose)
        assert [text.count(tag) for tag in set(tags)] == [tags.count(tag) for tag in set(tags)]
        assert (
            f"<h1>{nb.cells[0].source.splitlines()[0][2:]}" in page
            and page.count("<h2>") >= len(re.findall(r"^## \d", prose, re.MULTILINE)) > 0
        )
        assert page.count("<details") >= sum("hide-input" in cell.metadata.get("tags", []) for cell in nb.cells)
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < MAX_SITE


def html_of(text: str) -> str:
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#x27;")
    )


def test_nothing_of_the_lecturer_is_published(site: Path) -> None:
    """Neither on a page nor in the search index, the decks, or the notebooks to download.

    Of a solution its longest line is looked for, unless another cell shows that, too.
    """
    files = [
        path for path in site.rglob("*") if path.suffix in (".html", ".js", ".ipynb") and "_static" not in path.parts
    ]
    files.remove(site / "CONTRIBUTING.html")  # it tells authors what these marks are for
    assert len(files) > 4 * len(LECTURES)
    cells = [cell for path in LECTURES for cell in nbformat.read(path, as_version=4).cells]
    solutions = [s for c in cells for s in re.findall(r"### BEGIN SOLUTION\n(.*?)### END", c.source, re.DOTALL)]
    others = [re.sub(r"### BEGIN SOLUTION.*?### END SOLUTION", "", cell.source, flags=re.DOTALL) for cell in cells]
    others += [str(cell.outputs) for cell in cells if cell.cell_type == "code" and "nbgrader" not in cell.metadata]
    lines = [max((line.strip() for line in solution.splitlines()), key=len) for solution in solutions]
    secrets = {line for line in lines if len(line) > 30 and line not in "\n".join(others)}
    secrets |= {"For the lecturer", "BEGIN SOLUTION"}
    assert len(secrets) > 30
    for path in files:
        text = path.read_text(encoding="utf-8")
        plain = text.replace('\\"', '"') if path.suffix == ".ipynb" else re.sub(r"<[^>]+>", "", text)
        found = [secret for secret in secrets if secret in plain or html_of(secret) in plain]
        assert not found, f"{path.relative_to(site)}: {found}"


def test_notes_and_solutions_are_there_on_request(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    options = Options(notes=True, solutions=True, repository="someone/course")
    write_sources(tmp_path / "source", tmp_path / "site", LECTURES[1:2], options, tmp_path / "frames")
    name = LECTURES[1].name
    page = (tmp_path / "source/notebooks" / name).read_text(encoding="utf-8")
    assert '<div class=\\"lecturer\\">' in page and "BEGIN SOLUTION" in page and "right" in page
    assert "https://colab.research.google.com/github/someone/course/blob/HEAD/notebooks/" + name in page
    assert "https://mybinder.org/v2/gh/someone/course/HEAD?urlpath=lab/tree/notebooks/" + name in page
    deck = (tmp_path / f"site/slides/{LECTURES[1].stem}.html").read_text(encoding="utf-8")
    assert "For the lecturer" in deck
    exercises = (tmp_path / "source/notebooks/exercises" / name).read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in exercises and "For the lecturer" not in exercises


def test_a_solution_is_blanked_with_its_outputs() -> None:
    new = nbformat.v4
    cells = [
        new.new_code_cell("def f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"),
        new.new_code_cell("check('f', f)", metadata={"nbgrader": {"grade": True, "solution": False}}),
        new.new_code_cell("print(1)"),
    ]
    for cell in cells:
        cell.outputs = [new.new_output("stream", text="out\n")]
    nb = published(new.new_notebook(cells=cells), Options())
    assert [len(cell.outputs) for cell in nb.cells] == [0, 0, 1]
    assert nb.cells[0].source == "def f(x):\n    ..."


def test_errors_are_clear(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert main([str(tmp_path / "mine")]) == 1
    assert "is not empty, and holds no site: name another folder" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "site"), "--frames", "77"])
    assert "no lecture in notebooks/ begins with 77" in capsys.readouterr().err
    bad = tmp_path / "09_bad.ipynb"
    cell = nbformat.v4.new_markdown_cell("# Bad\n\n[nowhere](10_nothing.ipynb)", id="a")
    cell.metadata["slideshow"] = {"slide_type": "slide"}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), bad)
    with pytest.raises(RuntimeError, match="10_nothing.ipynb"):
        build(tmp_path / "site", [bad], Options(), tmp_path / "frames")
    assert not (tmp_path / "site").exists() and not list(tmp_path.glob(".site-*"))


def test_small_things_stay_small() -> None:
    folder = ROOT / "course_utils/classroom/site"
    assert len((folder / "site.css").read_text(encoding="utf-8").splitlines()) <= 60
    assert len((folder / "frames.js").read_text(encoding="utf-8").splitlines()) <= 80


def test_binder_installs_what_everybody_installs() -> None:
    lines = (ROOT / ".binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-r ../requirements.txt" in lines
    assert not [line for line in lines if not line.startswith(("#", "-r "))]


# --- in the browser ------------------------------------------------------------------------------------------------

READY = """() => !document.querySelector("script[src*='MathJax.js']")
  || (window.MathJax?.isReady && !MathJax.Hub.queue.pending && !MathJax.Hub.queue.running)"""

LOOK = r"""() => {
  const problems = [], main = document.querySelector("main"), copy = main.cloneNode(true);
  copy.querySelectorAll("pre, code, svg, script, .MathJax_SVG, .MathJax_SVG_Display, .MJX_Assistive_MathML").forEach(e => e.remove());
  const raw = copy.textContent.match(/\$|\\\(|\\\[|\\begin|\\(sigma|frac|bar|lVert|mathrm)/);
  if (raw) problems.push("mathematics not set near: " + copy.textContent.slice(raw.index - 10, raw.index + 40));
  main.querySelectorAll(".MathJax_Error, svg:has(rect[fill='rgb(255, 255, 136)'])").forEach(e => problems.push("MathJax: " + e.textContent.trim()));
  const formulae = main.querySelectorAll(".math").length, set = main.querySelectorAll(".math .MathJax_SVG svg").length;
  if (set < formulae) problems.push(`${set} of ${formulae} formulae were set`);
  for (const image of main.querySelectorAll("img")) {
    if (!(image.complete && image.naturalWidth)) problems.push("an image is broken: " + image.src);
    if (!image.alt.trim()) problems.push("an image without alt text: " + image.src);
  }
  return problems;
}"""

CUT_OFF = """() => [...document.querySelectorAll("main pre")]
  .filter(e => e.scrollWidth > e.clientWidth + 2).map(e => e.textContent.trim().slice(0, 60))"""

# From the key press until the frame is painted.
STOPWATCH = """() => {
  window.painted = []; let pressed = null;
  document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (pressed === null) return;
    const began = pressed; pressed = null;
    requestAnimationFrame(() => setTimeout(() => window.painted.push(performance.now() - began)));
  }).observe(document.body, {subtree: true, attributes: true, attributeFilter: ["data-shown"]});
}"""


class Reader:
    """A page of the site, read with the network off. Collects what is wrong, and how many bytes the page loads."""

    def __init__(self, context: BrowserContext, site: Path, spoil: tuple[str, str] | None = None) -> None:
        self.site, self.spoil, self.problems, self.loaded = site, spoil, [], 0
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"error in the page: {error}"))
        self.page.on("console", lambda m: self.problems.append(f"console: {m.text}") if m.type == "error" else None)
        self.page.route("**/*", self._answer)

    def _answer(self, route: Route) -> None:
        parts = urlsplit(route.request.url)
        path = self.site / unquote(parts.path).lstrip("/")
        if f"{parts.scheme}://{parts.netloc}" != ORIGIN or not path.is_file():
            self.problems.append(f"asks for {route.request.url}")
            route.abort()
            return
        content = path.read_bytes()
        if self.spoil and path.suffix == ".html":
            content = content.decode().replace(*self.spoil).encode()
        self.loaded += len(content)
        route.fulfill(body=content, content_type=mimetypes.guess_type(path.name)[0] or "text/plain")

    def open(self, name: str) -> list[str]:
        """Open a page and look at all of it, wide and narrow; return what is wrong."""
        self.page.set_viewport_size({"width": 1280, "height": 1000})
        self.page.goto(f"{ORIGIN}/{name}")
        self.page.wait_for_function(READY, timeout=120_000)
        self.page.evaluate("document.querySelectorAll('main img').forEach(image => { image.loading = 'eager'; })")
        self.page.wait_for_function("[...document.querySelectorAll('main img')].every(e => e.complete)")
        self.problems += self.page.evaluate(LOOK)
        for width in (1280, 390):
            self.page.set_viewport_size({"width": width, "height": 844})
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                self.problems.append(f"at {width} pixels it is {wide} wide")
        self.page.set_viewport_size({"width": 700, "height": 1000})  # A4 within its margins
        self.page.emulate_media(media="print")
        cut = self.page.evaluate(CUT_OFF)
        self.page.emulate_media(media="screen")
        self.problems += [f"cut off on paper: {what}" for what in cut]
        if self.loaded > MAX_PAGE:
            self.problems.append(f"loads {self.loaded} bytes")
        return [f"{name}: {problem}" for problem in self.problems]

    def close(self) -> None:
        self.page.close()


@pytest.fixture(scope="module")
def offline(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(offline=True)
    yield context
    context.close()


PAGES = ["index.html", "data/README.html"] + [
    f"notebooks/{folder}{path.stem}.html" for path in LECTURES for folder in ("", "exercises/")
]


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, site: Path, offline: BrowserContext) -> None:
    reader = Reader(offline, site)
    problems = reader.open(name)
    reader.close()
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("</h1>", '</h1><img alt="x" src="https://example.org/x.png">', "asks for https://example.org/x.png"),
        (
            '<a href="../slides',
            '<b style="display: inline-block; width: 1000px">x</b><a href="../slides',
            "at 390 pixels it is",
        ),
        ("</h1>", "</h1><script>throw new Error('no')</script>", "error in the page: no"),
        ('nohighlight">\\(', 'nohighlight">\\(\\undefinedmacro ', "MathJax"),
        ("mathjax/MathJax.js", "mathjax/README.md", "mathematics not set near"),
        (' alt="', ' title="', "without alt text"),
        ("</h1>", '</h1><pre><b style="display: inline-block; width: 800px">x</b></pre>', "cut off on paper: x"),
    ],
)
def test_the_test_finds_what_is_wrong(old: str, new: str, complaint: str, site: Path, offline: BrowserContext) -> None:
    reader = Reader(offline, site, (old, new))
    problems = reader.open("notebooks/00_start_here.html")
    reader.close()
    assert any(complaint in problem for problem in problems), problems


def test_search_finds_and_light_turns_dark(site: Path, offline: BrowserContext) -> None:
    reader = Reader(offline, site)
    reader.page.goto(f"{ORIGIN}/search.html?q=Lipschitz")
    reader.page.locator(".search li a").first.wait_for()
    assert reader.page.locator(".search li a").count() > 5
    reader.page.goto(f"{ORIGIN}/notebooks/{MOVING[0].stem}.html")
    seen = {}
    for mode in ("dark", "light"):
        reader.page.locator(".theme-switch-button:visible").first.click()
        reader.page.locator(f".theme-change-button[data-mode={mode}]:visible").first.click()
        seen[mode] = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert seen["light"] == "rgb(255, 255, 255)" and max(map(int, re.findall(r"\d+", seen["dark"])[:3])) < 64
    reader.page.locator(".right-next").click()
    reader.page.wait_for_url(f"**/{LECTURES[LECTURES.index(MOVING[0]) + 1].stem}.html")
    assert reader.problems == []
    reader.close()


def picture(figure: Locator) -> np.ndarray:
    """Pixels of what a figure shows."""
    url = figure.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def move(reader: Reader, figure: Locator, truth: dict, where: Path) -> None:
    """Move each control to both ends and back: picture, text and value are those of the figure's function."""
    page, places = reader.page, []
    inputs = figure.locator("input").all()
    assert len(inputs) == len(truth["seen"])
    for each in inputs:
        places.append(each.evaluate("e => e.type === 'checkbox' ? Number(e.checked) : Number(e.value)"))

    def shows(number: int, place: int, seen: list) -> None:
        now = [*places[:number], place, *places[number + 1 :]]
        figure.and_(page.locator(f"[data-shown='{' '.join(map(str, now))}']")).wait_for(timeout=15_000)
        file, text, value = seen
        assert figure.locator("pre").text_content() == text
        right = np.asarray(Image.open(where / file).convert("RGB"))
        shown = picture(figure)
        assert shown.shape == right.shape and (shown == right).all(), f"{(shown != right).sum()} values differ"
        if inputs[number].get_attribute("type") == "range":
            assert figure.locator("label").nth(number).locator("output").text_content() == value
            assert inputs[number].get_attribute("aria-valuetext") == value

    for number, (control, (default, low, high)) in enumerate(zip(inputs, truth["seen"].values(), strict=True)):
        control.focus()
        if control.get_attribute("type") == "checkbox":
            for place in (1 - places[number], places[number]):
                page.keyboard.press("Space")
                shows(number, place, (low, high)[place])
            continue
        last = int(control.get_attribute("max"))
        for key, place, seen in (("End", last, high), ("Home", 0, low)):
            if control.input_value() != str(place):
                page.keyboard.press(key)
                shows(number, place, seen)
        for step in range(places[number]):
            page.keyboard.press("ArrowRight")
            now = [*places[:number], step + 1, *places[number + 1 :]]
            figure.and_(page.locator(f"[data-shown='{' '.join(map(str, now))}']")).wait_for(timeout=15_000)
        shows(number, places[number], default)
    assert figure.locator("canvas").evaluate("canvas => [canvas.role, canvas.ariaLabel]") == ["img", truth["alt"]]
    labels = figure.locator("label span").all_inner_texts()
    assert all(label.strip() for label in labels) and len(labels) == len(inputs)


@pytest.mark.parametrize("lecture", MOVING, ids=lambda path: path.stem)
def test_figures_move_without_a_kernel(
    lecture: Path, folder: Path, offline: BrowserContext, record_property: Callable
) -> None:
    truth = json.loads((folder / "frames" / f"{lecture.stem}.truth").read_text())
    reader = Reader(offline, folder / "site")
    assert reader.open(f"notebooks/{lecture.stem}.html") == []
    reader.page.evaluate(STOPWATCH)
    figures = reader.page.locator(".explore[data-frames]")
    assert figures.count() == len(truth) > 0
    crowding, crowd = Crowding(), []
    for figure in figures.all():
        name = figure.get_attribute("data-frames").removeprefix("../frames/")
        figure.scroll_into_view_if_needed()
        crowding.begin()
        move(reader, figure, truth[name], folder / "truth")
        crowd.append(crowding.factor())
    latencies, factor = reader.page.evaluate("window.painted"), max(1.0, statistics.median(crowd))
    assert not reader.problems and len(latencies) > 4 * len(truth)
    median = statistics.median(latencies)
    line = f"{lecture.stem} on the web: from key to figure {median:.0f} ms (median of {len(latencies)} moves)"
    record_property("browser", line)
    assert median < GOAL * factor, f"{line}, limit {GOAL} ms times {factor:.2f} for other programs"
    reader.close()


def test_a_control_says_when_its_frames_are_missing(folder: Path, offline: BrowserContext) -> None:
    reader = Reader(offline, folder / "site", ('data-frames="../frames/', 'data-frames="../no-frames/'))
    reader.page.goto(f"{ORIGIN}/notebooks/{MOVING[1].stem}.html")
    figure = reader.page.locator(".explore[data-frames]").first
    figure.locator("input").first.focus()
    reader.page.keyboard.press("ArrowRight")
    figure.get_by_text("The frames of this figure cannot be loaded.").wait_for()
    reader.close()


def test_without_frames_a_figure_says_what_moves_it(site: Path) -> None:
    page = (site / "notebooks" / f"{LECTURES[3].stem}.html").read_text(encoding="utf-8")
    assert not frames.is_complete(LECTURES[3], site.parent / "frames")
    assert "data-frames" not in page and "In a running notebook this figure has controls: " in page
