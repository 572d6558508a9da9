"""What every lecture's file must keep to: executed, described, small, and the same bytes' names at every build."""

import base64
import copy
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from helpers import LECTURES, ROOT, TEMPLATE
from nbformat import NotebookNode

from course_utils.classroom.exercises import LANGUAGE_INFO
from course_utils.plotting import MAX_BYTES

README = ROOT / "README.md"
MAX_NOTEBOOK = 1_000_000  # bytes
MAX_LINES, MAX_DRAWING = 40, 60  # of a code cell, and of one that only draws (its input is hidden on the slide)
SLIDES = {"slide", "subslide", "fragment", "-", "skip", "notes"}
TAGS = {"nbval-ignore-output", "hide-input", "lecturer", "heavy"}


def problems(nb: NotebookNode) -> list[str]:
    """Everything about a notebook that a reader, a lecturer or the next change would stumble over."""
    found = structure(nb) + headings(nb)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"not executed from top to bottom in a fresh kernel: execution counts {counts}")
    for cell in code:
        lines = cell.source.count("\n") + 1
        limit = MAX_DRAWING if "hide-input" in cell.metadata.get("tags", []) else MAX_LINES
        if lines > limit:
            found.append(f"{cell.id}: {lines} lines of code, at most {limit}")
        found += [f"{cell.id}: {problem}" for output in cell.outputs for problem in output_problems(output)]
    return found


def structure(nb: NotebookNode) -> list[str]:
    found, seen = [], set()
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        return ["cells have no ids: save in notebook format 4.5"]
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    language = {key: value for key, value in nb.metadata.get("language_info", {}).items() if key != "version"}
    if language != LANGUAGE_INFO:
        found.append(f"the metadata language_info must be that of the others, {LANGUAGE_INFO}: got {language}")
    if "widgets" in nb.metadata:
        found.append("the state of widgets is stored; the figures stand on the page without it")
    for cell in nb.cells:
        if cell.id in seen:
            found.append(f"{cell.id}: two cells have this id")
        seen.add(cell.id)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*", cell.id) or re.fullmatch(
            r"[0-9a-f-]{8,}", cell.id
        ):
            found.append(f"{cell.id}: give the cell an id of words, such as power-iteration-rate")
        if cell.metadata.get("slideshow", {}).get("slide_type") not in SLIDES:
            found.append(f"{cell.id}: no slide type")
        if unknown := set(cell.metadata.get("tags", [])) - TAGS:
            found.append(f"{cell.id}: unknown tags {sorted(unknown)}")
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if folded != ("hide-input" in cell.metadata.get("tags", [])):
            found.append(f"{cell.id}: the tag hide-input and the metadata jupyter.source_hidden go together")
        if not cell.source.strip():
            found.append(f"{cell.id}: empty cell")
    return found


def headings(nb: NotebookNode) -> list[str]:
    found, level = [], 0
    for cell in nb.cells:
        text = re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)
        for marks, title in re.findall(r"^(#+) +(.+)$", text, re.MULTILINE) if cell.cell_type == "markdown" else []:
            if len(marks) > level + 1 or (len(marks) == 1 and level):
                found.append(f"{cell.id}: heading {title!r} of level {len(marks)} follows one of level {level}")
            level = len(marks)
    return found if level else ["no heading"]


def output_problems(output: NotebookNode) -> list[str]:
    if output.output_type == "error":
        return [f"stored error {output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        return [f"writes to stderr: {output.text[:200]}"] if output.name == "stderr" else []
    found = []
    for kind, content in output.data.items():
        if kind.startswith("image/"):
            size = len(base64.b64decode(content)) if kind == "image/png" else len(content)
            if size > MAX_BYTES:
                found.append(f"an image of {size} bytes, at most {MAX_BYTES}")
            if not output.metadata.get(kind, {}).get("alt", "").strip():
                found.append("a figure without alt text: use course_utils.plotting.show")
    if re.search(r"<[\w.]+ (object )?at 0x[0-9a-f]+>", str(output.data.get("text/plain", ""))):
        found.append("prints an address in memory")
    return found


@pytest.mark.parametrize("path", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_lecture_file(path: Path) -> None:
    found = problems(nbformat.read(path, as_version=nbformat.NO_CONVERT))
    if (size := path.stat().st_size) > MAX_NOTEBOOK:
        found.append(f"{size} bytes, at most {MAX_NOTEBOOK}")
    assert not found, f"{path.name}:\n" + "\n".join(found)


def minutes(path: Path) -> tuple[int, int]:
    """Minutes of a lecture as its first cell promises them, and as the lecturer's notes add up."""
    nb = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    promised = next(
        re.search(r"(\d+) minutes", cell.source) for cell in nb.cells if re.search(r"\d minutes", cell.source)
    )
    notes = [cell.source for cell in nb.cells if "lecturer" in cell.metadata.get("tags", [])]
    return int(promised[1]), sum(int(n) for text in notes for n in re.findall(r"\((\d+) min\)", text))


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_minutes_agree_and_there_is_at_most_one_slide_for_each(path: Path) -> None:
    row = re.search(rf"\(notebooks/{path.name}\) \|.*?\| (\d+) \|", README.read_text(encoding="utf-8"))
    cells = nbformat.read(path, as_version=nbformat.NO_CONVERT).cells
    slides = sum(cell.metadata.slideshow.slide_type in ("slide", "subslide") for cell in cells)
    assert (int(row[1]), int(row[1])) == minutes(path) and slides <= int(row[1])


def test_the_template_keeps_its_time() -> None:
    promised, noted = minutes(TEMPLATE)
    assert promised == noted > 0


def good() -> NotebookNode:
    """A notebook without problems: heading, prose, figure, text."""
    new = nbformat.v4
    png = {"image/png": base64.b64encode(b"png").decode(), "text/plain": "[figure: a line]"}
    cells = [
        new.new_markdown_cell("# Title\n\n## Section\n\n### Part", id="title"),
        new.new_code_cell("show(fig, alt='a line')", id="a-figure", execution_count=1),
        new.new_code_cell("print(1)", id="a-print", execution_count=2),
    ]
    cells[1].outputs = [new.new_output("display_data", png, metadata={"image/png": {"alt": "a line"}})]
    cells[2].outputs = [new.new_output("stream", text="1\n")]
    for cell in cells:
        cell.metadata = nbformat.from_dict({"slideshow": {"slide_type": "slide"}})
    return new.new_notebook(
        cells=cells,
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": LANGUAGE_INFO},
    )


def error_output(nb: NotebookNode) -> None:
    nb.cells[2].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]


RULES: list[tuple[str, Callable[[NotebookNode], object]]] = [
    ("not executed", lambda nb: nb.cells[2].update(execution_count=None)),
    ("not executed", lambda nb: nb.cells[2].update(execution_count=7)),
    ("stored error ValueError", error_output),
    ("stderr", lambda nb: nb.cells[2].outputs[0].update(name="stderr")),
    ("lines of code", lambda nb: nb.cells[2].update(source="x = 1\n" * MAX_LINES + "x")),
    ("an image of", lambda nb: nb.cells[1].outputs[0].data.update({"image/png": "A" * 2 * MAX_BYTES})),
    ("without alt text", lambda nb: nb.cells[1].outputs[0].metadata.clear()),
    ("without alt text", lambda nb: nb.cells[1].outputs[0].metadata["image/png"].update(alt=" ")),
    ("level 3 follows one of level 1", lambda nb: nb.cells[0].update(source="# Title\n\n### Part")),
    ("level 1 follows one of level 1", lambda nb: nb.cells[0].update(source="# Title\n\n# Title")),
    ("no heading", lambda nb: nb.cells[0].update(source="Title")),
    ("two cells have this id", lambda nb: nb.cells[2].update(id="title")),
    ("id of words", lambda nb: nb.cells[2].update(id="3fb4c1d2")),
    ("id of words", lambda nb: nb.cells[2].update(id="3fb4c1d2-64aa-4b1f-9d70-3d1f6f1c2a55")),
    ("no slide type", lambda nb: nb.cells[2].metadata.clear()),
    ("no slide type", lambda nb: nb.cells[0].metadata.slideshow.update(slide_type="wide")),
    ("unknown tags", lambda nb: nb.cells[2].metadata.update(tags=["raises-exception"])),
    ("state of widgets", lambda nb: nb.metadata.update(widgets={})),
    ("not python3", lambda nb: nb.metadata.kernelspec.update(name="venv")),
    ("language_info", lambda nb: nb.metadata.update(language_info={"name": "python"})),
    ("no ids", lambda nb: nb.update(nbformat_minor=4)),
    ("go together", lambda nb: nb.cells[1].metadata.update(tags=["hide-input"])),
    ("go together", lambda nb: nb.cells[1].metadata.update(jupyter={"source_hidden": True})),
    ("empty cell", lambda nb: nb.cells[0].update(source="# T") or nb.cells[2].update(source=" ")),
    ("address in memory", lambda nb: nb.cells[1].outputs[0].data.update({"text/plain": "<Figure object at 0x7f3a>"})),
]


def test_a_good_notebook_has_no_problems() -> None:
    assert problems(good()) == []


@pytest.mark.parametrize(("complaint", "spoil"), RULES, ids=[f"{i}-{text}" for i, (text, _) in enumerate(RULES)])
def test_each_rule_finds_its_problem(complaint: str, spoil: Callable[[NotebookNode], object]) -> None:
    nb = copy.deepcopy(good())
    spoil(nb)
    assert any(complaint in problem for problem in problems(nb)), problems(nb)
