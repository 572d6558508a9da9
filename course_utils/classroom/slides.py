"""Build the lectures' slide decks: ``python -m course_utils slides`` (then open ``slides/01_....html`` in a browser).

Decks are made from the stored outputs; nothing is executed. They need no network: the mathematics is set by the copy
of MathJax that comes with the package nbclassic. Solutions of exercises are left out unless ``--solutions`` is given.
Keys: arrows, space, Home and End move, S opens the speaker's notes with a clock, F fills the screen, and printing gives
one page per slide.
"""

import argparse
import html
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert.filters import Highlight2HTML, ansi2html, markdown2html
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parents[2]
SOLUTION = re.compile(r"([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)
MINUTES = re.compile(r"\((\d+) min\)")


def deck(notebook: NotebookNode, solutions: bool = False) -> str:
    """The deck of a lecture as one HTML page, which looks for MathJax in the folder ``mathjax`` beside it.

    ``solutions``: show the solutions of the exercises. Raises ValueError if no cell begins a slide.
    """
    slides: list[dict] = []
    section, lecture = "", ""
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if cell.cell_type == "markdown" and (heading := re.search(r"^(#{1,2}) +(.+)$", cell.source, re.MULTILINE)):
            lecture, section = (lecture, heading[2]) if heading[1] == "##" else (heading[2], heading[2])
        if kind in ("slide", "subslide"):
            slides.append({"id": cell.id, "kind": kind, "section": section, "body": [], "notes": []})
        if kind == "notes" and slides:
            slides[-1]["notes"].append(markdown2html(cell.source))
        elif kind in ("slide", "subslide", "fragment", "-") and slides:
            body = markdown2html(cell.source) if cell.cell_type == "markdown" else _code(cell, solutions)
            slides[-1]["body"].append(f'<div class="cell{" fragment" * (kind == "fragment")}">{body}</div>')
    if not slides:
        raise ValueError("no cell of this notebook begins a slide")
    parts = {"title": html.escape(re.sub(r"[*`$]", "", lecture)), "pygments": HtmlFormatter().get_style_defs()}
    parts["slides"] = "\n".join(_section(slide, number) for number, slide in enumerate(slides, 1))
    template = Path(__file__).with_name("slides.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _section(slide: dict, number: int) -> str:
    notes = "\n".join(slide["notes"])
    section = markdown2html(re.sub(r"^(\d+)\.", r"\1\.", slide["section"]))  # "1. The game" would become a list
    minutes = sum(int(n) for n in MINUTES.findall(notes))
    return (
        f'<section class="{slide["kind"]}" id="{slide["id"]}" data-minutes="{minutes}">\n<div class="content">'
        f"{''.join(slide['body'])}</div>\n<footer><span>{section}</span><span>{number}</span></footer>"
        f'\n<aside class="notes">{notes}</aside>\n</section>'
    )


def _code(cell: NotebookNode, solutions: bool) -> str:
    """Input (unless tagged hide-input) and stored outputs of a code cell; a solution is blanked, with its outputs."""
    solved = cell.metadata.get("nbgrader", {}).get("solution", False) or "### BEGIN SOLUTION" in cell.source
    source = cell.source if solutions else SOLUTION.sub(r"\1...", cell.source)
    source = re.sub(r"^[ \t]*### (BEGIN|END) SOLUTION\n?", "", source, flags=re.MULTILINE)
    hidden = "hide-input" in cell.metadata.get("tags", [])
    code = Highlight2HTML(pygments_lexer="python")(source)
    parts = [] if hidden else [f'<div class="input"{_fitted(source)}>{code}</div>']
    return "".join(parts + [_output(output) for output in cell.outputs if solutions or not solved])


def _fitted(text: str) -> str:
    """A smaller type for text with long lines: 104 letters fit at 18 px, the 120 of the formatter at 15.6."""
    longest = max(map(len, text.splitlines()), default=0)
    return f' style="--type: {max(15.6, 18 * 104 / longest):.1f}px"' if longest > 104 else ""


def _output(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return f"<pre{_fitted(output.text)}>{html.escape(output.text)}</pre>"
    if output.output_type == "error":
        return f"<pre>{ansi2html(chr(10).join(output.traceback))}</pre>"
    data = output.data
    if "image/png" in data:
        alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""), quote=True)
        return f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/markdown" in data:
        return f"<div{_fitted(data['text/markdown'])}>{markdown2html(data['text/markdown'])}</div>"
    if "text/html" in data:
        return data["text/html"]
    text = data.get("text/plain", "")
    return "" if text.startswith("[interactive:") else f"<pre>{html.escape(text)}</pre>"  # controls need a kernel


def copy_mathjax(folder: Path) -> None:
    """Put MathJax, as found in the package nbclassic, into ``folder``. Raises FileNotFoundError if it is absent."""
    package = importlib.util.find_spec("nbclassic")
    source = Path(package.origin).parent / "static/components/MathJax" if package else None
    if source is None or not source.is_dir():
        raise FileNotFoundError("the slides need the package nbclassic: python -m pip install -r requirements.txt")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("localization", "a11y", "fonts"), dirs_exist_ok=True)
    for part in ("SVG/fonts", "SVG/autoload"):
        shutil.copytree(source / "jax/output" / part, folder / "jax/output" / part, dirs_exist_ok=True)


def main(arguments: list[str]) -> int:
    """Build the decks that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_utils slides", description="Build the slide decks.")
    parser.add_argument("lecture", nargs="*", help="number or beginning of the name, such as 03; all if none is given")
    parser.add_argument("--solutions", action="store_true", help="show the solutions of the exercises")
    parser.add_argument("--out", type=Path, default=ROOT / "slides", help="folder for the decks (default: slides)")
    options = parser.parse_args(arguments)
    wanted = tuple(options.lecture) or ("",)
    lectures = sorted(path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb") if path.name.startswith(wanted))
    if not lectures:
        parser.error(f"no lecture in notebooks/ begins with {' or '.join(wanted)}")
    try:
        folder = options.out.expanduser()
        copy_mathjax(folder / "mathjax")
        for path in lectures:
            page = folder / f"{path.stem}.html"
            page.write_text(deck(nbformat.read(path, as_version=4), options.solutions), encoding="utf-8")
            print("wrote", page)
    except (OSError, RuntimeError, shutil.Error) as error:  # RuntimeError: a ~ that stands for no home folder
        print(f"error: the decks cannot be made in {options.out} ({error})", file=sys.stderr)
        return 1
    return 0
