"""The decks: built from stored outputs, complete without a network, nothing outside the stage, mathematics set."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from helpers import LECTURES, ROOT, TEMPLATE

from course_utils.classroom.slides import copy_mathjax, deck, main

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# What of the slide in view is outside the stage, reaches into the footer or is cut off, in stage pixels; then what is
# wrong with its mathematics.
LOOK = r"""
() => {
  const section = document.querySelector("section.present"), problems = [];
  // The copy of each formula for screen readers is clipped and never seen, but some browsers count it as content.
  section.querySelectorAll(".MJX_Assistive_MathML").forEach(e => e.style.setProperty("display", "none", "important"));
  const stage = document.getElementById("stage").getBoundingClientRect(), scale = stage.width / 1280;
  const footer = section.querySelector("footer").getBoundingClientRect();
  let right = 0, bottom = 0, left = 0, top = 0;
  for (const element of section.querySelectorAll(".content *")) {
    if (element.closest("details:not([open])") && !element.closest("summary")) continue;
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.height === 0) continue;
    right = Math.max(right, (box.right - stage.right) / scale);
    bottom = Math.max(bottom, (box.bottom - footer.top) / scale);
    left = Math.max(left, (stage.left - box.left) / scale);
    top = Math.max(top, (stage.top - box.top) / scale);
    if (element.matches("pre, p, table, .cell") && element.scrollWidth > element.clientWidth + 2)
      problems.push(`<${element.localName}> is wider than the text column by ${element.scrollWidth - element.clientWidth} px`);
    if (element.matches(".input pre")) {
      const style = getComputedStyle(element), lines = element.textContent.replace(/\n$/, "").split("\n").length;
      const height = element.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
      const over = Math.round(height / parseFloat(style.lineHeight)) - lines;
      if (over > 0) problems.push(`lines of code are broken: ${over}`);
    }
    if (element.matches("img") && !(element.complete && element.naturalWidth)) problems.push("an image is broken");
  }
  for (const [side, excess] of Object.entries({right, bottom, left, top}))
    if (excess > 1) problems.push(`${Math.round(excess)} px too far ${side === "bottom" ? "down" : side}`);
  const copy = section.cloneNode(true);
  copy.querySelectorAll("pre, code, svg, script, .MathJax_SVG, .MathJax_SVG_Display").forEach(e => e.remove());
  const raw = copy.textContent.match(/\$|\\\(|\\\[|\\begin|\\(sigma|frac|bar|lVert|mathrm)/);
  if (raw) problems.push("mathematics not set near: " + copy.textContent.slice(raw.index - 10, raw.index + 40));
  const errors = section.querySelectorAll(".MathJax_Error, .MathJax_SVG svg:has(rect[fill='rgb(255, 255, 136)'])");
  errors.forEach(e => problems.push("MathJax: " + e.textContent.trim()));
  if (section.querySelectorAll("script[type^='math/tex']").length > section.querySelectorAll(".MathJax_SVG svg").length)
    problems.push("a formula was not set");
  return problems;
}
"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decks of all lectures and of the template, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("slides") / "my decks"
    assert main(["--out", str(folder)]) == 0
    (folder / f"{TEMPLATE.stem}.html").write_text(deck(nbformat.read(TEMPLATE, as_version=4)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def offline(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(offline=True)
    yield context
    context.close()


def complain(page: Page, say: Callable[[str], None]) -> None:
    """Report errors in the page and whatever it asks for beyond the disk."""
    page.on("pageerror", lambda error: say(f"error in the page: {error}"))
    page.on("console", lambda message: say(f"console: {message.text}") if message.type == "error" else None)
    page.on("request", lambda r: r.url.startswith(("file://", "data:")) or say(f"leaves the disk: {r.url}"))
    page.on("requestfailed", lambda request: say(f"not found: {request.url}"))


def look_at(context: BrowserContext, page_file: Path) -> list[str]:
    """Everything wrong with a deck: each slide visited with the arrow key, and the first ones in a larger window, too.

    A larger window scales the stage as a whole, so a few slides show whether it does.
    """
    problems: list[str] = []
    for width, height, most in ((1280, 720, 1000), (1920, 1080, 4)):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        complain(page, problems.append)
        page.goto(page_file.as_uri())
        page.wait_for_selector("body[data-ready]", state="attached", timeout=60_000)
        number, seen = min(most, page.evaluate("slides.length")), []
        while len(seen) < most and (slide := page.evaluate("slides[current].id")) not in seen:
            while page.evaluate("document.querySelector('section.present .fragment:not(.seen)') !== null"):
                page.keyboard.press("ArrowRight")
            seen.append(slide)
            problems += [
                f"{page_file.stem}, slide {len(seen)} ({slide}), {width}x{height}: {p}" for p in page.evaluate(LOOK)
            ]
            page.keyboard.press("ArrowRight")
        if len(seen) != number:
            problems.append(f"{len(seen)} of {number} slides could be reached")
        page.close()
    return problems


@pytest.mark.parametrize("lecture", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_every_slide_fits_and_sets_its_mathematics(lecture: Path, decks: Path, offline: BrowserContext) -> None:
    problems = look_at(offline, decks / f"{lecture.stem}.html")
    assert not problems, "\n" + "\n".join(problems)


def notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=list(cells))


def markdown(text: str, slide: str = "slide") -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": slide}})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("## Long\n\n" + "A line of text that fills the page.\n\n" * 20, "too far down"),
        ("## Wide\n\n<div style='width: 1400px'>wide</div>", "too far right"),
        ("## Maths\n\n$$\\undefinedmacro x$$", "MathJax"),
        (
            f"## Code\n\n<div class='input'>\n\n```\n{'x' * 104}\n{'x' * 105}\n```\n\n</div>",
            "lines of code are broken: 1",
        ),
        ("## Maths\n\n$$\\frac{1}{2$$", "MathJax"),
    ],
)
def test_the_test_finds_what_is_wrong(text: str, complaint: str, tmp_path: Path, offline: BrowserContext) -> None:
    copy_mathjax(tmp_path / "mathjax")
    (tmp_path / "deck.html").write_text(deck(notebook(markdown("# T\n\n$x^2$"), markdown(text))), encoding="utf-8")
    assert any(complaint in problem for problem in look_at(offline, tmp_path / "deck.html"))


def test_speaker_notes_open_in_their_own_window(decks: Path, offline: BrowserContext) -> None:
    page = offline.new_page()
    page.goto(next(d for d in sorted(decks.glob("*.html")) if "For the lecturer" in d.read_text("utf-8")).as_uri())
    page.wait_for_selector("body[data-ready]", state="attached", timeout=60_000)
    page.evaluate("go(slides.findIndex(s => s.dataset.minutes > 0))")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    popup.value.get_by_text("For the lecturer").first.wait_for()
    popup.value.get_by_text("Planned up to").wait_for()
    before = page.evaluate("current")
    popup.value.keyboard.press("ArrowRight")
    assert page.evaluate("current") == before + 1 or page.evaluate("document.querySelector('.present .fragment.seen')")
    popup.value.close()
    page.close()


@pytest.mark.parametrize("lecture", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_each_section_has_notes_with_its_time(lecture: Path) -> None:
    sections: dict[str, int] = {}
    title = ""
    for cell in nbformat.read(lecture, as_version=4).cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"## +(\d+\..*)", cell.source)):
            title = sections.setdefault(heading[1], 0) or heading[1]
        elif cell.cell_type == "markdown" and cell.source.startswith("## "):
            title = ""
        if "lecturer" in cell.metadata.get("tags", []):
            assert cell.metadata.slideshow.slide_type == "notes", (
                f"{cell.id}: a note for the lecturer belongs to the notes"
            )
            minutes = re.match(r"\*For the lecturer \((\d+) min\)\.\*", cell.source)
            assert minutes, f"{cell.id}: begin with *For the lecturer (N min).*"
            if title:
                sections[title] += int(minutes[1])
    assert sections, "no section is numbered (## 1. ...)"
    assert all(sections.values()), f"without a note for the lecturer: {[t for t, n in sections.items() if not n]}"


def test_solutions_appear_only_when_asked_for() -> None:
    code = nbformat.v4.new_code_cell("def f(x):\n    ### BEGIN SOLUTION\n    return secret(x)\n    ### END SOLUTION")
    code.metadata.slideshow = {"slide_type": "slide"}
    code.outputs = [nbformat.v4.new_output("stream", text="the secret is out")]
    hidden, shown = deck(notebook(code)), deck(notebook(code), solutions=True)
    assert "secret" not in hidden and "f" in hidden
    assert "secret" in shown and "the secret is out" in shown and "BEGIN SOLUTION" not in shown


@pytest.mark.parametrize("lecture", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_no_lecture_shows_a_solution(lecture: Path) -> None:
    assert "SOLUTION" not in deck(nbformat.read(lecture, as_version=4))


def test_hidden_input_and_outputs_of_every_kind() -> None:
    code = nbformat.v4.new_code_cell(
        "draw_it()", metadata={"tags": ["hide-input"], "slideshow": {"slide_type": "slide"}}
    )
    new = nbformat.v4.new_output
    code.outputs = [
        new("display_data", {"image/png": "QUJD"}, metadata={"image/png": {"alt": 'a "fine" figure'}}),
        new("stream", text="1 < 2"),
        new("display_data", {"text/markdown": "```python\nx = 1\n```", "text/plain": "x = 1"}),
        new("display_data", {"text/plain": "[interactive: angle - run the notebook]"}),
        new("error", ename="E", evalue="", traceback=["\x1b[31mwrong\x1b[0m"]),
    ]
    page = deck(notebook(code))
    assert "draw_it" not in page and "[interactive" not in page and "\x1b" not in page
    assert 'alt="a &quot;fine&quot; figure"' in page and "1 &lt; 2" in page and "wrong" in page


def test_errors_are_clear(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="no cell of this notebook begins a slide"):
        deck(notebook(nbformat.v4.new_markdown_cell("text")))
    with pytest.raises(SystemExit):
        main(["77", "--out", str(tmp_path)])
    assert "no lecture in notebooks/ begins with 77" in capsys.readouterr().err


def test_building_executes_nothing_and_opens_no_connection(tmp_path: Path) -> None:
    watch = (
        "import sys; sys.addaudithook(lambda event, args: sys.exit(f'{event} {args}') if event in "
        "('socket.connect', 'subprocess.Popen', 'os.posix_spawn', 'os.fork') else None); "
        "from course_utils.classroom.slides import main; sys.exit(main(['--out', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", watch, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.html"))) == len(LECTURES)
