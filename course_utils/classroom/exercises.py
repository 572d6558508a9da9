"""Generate the exercise notebooks from the lectures: ``python -m course_utils exercises`` (``--check`` only compares).

A notebook in which somebody has worked is left alone, unless ``--force`` is given.

The lectures in ``notebooks/`` are the single source. An exercise notebook is the lecture without the solutions
(nbgrader's markers), without the cells tagged ``lecturer``, and without outputs. Code tagged ``heavy``, long computations
with their figures, is not repeated: its text stays, and a cell shows what is stored in the lecture. A list of the
exercises stands at the top. The same lecture gives the same bytes.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor
from nbgrader.preprocessors import ClearSolutions, LockCells

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
STUB = "raise NotImplementedError()  # your code here"
NOTE = """*This is [the lecture](../{name}) with holes. Fill one, run its cell and the check below it, and you are told
at once how it went; a hole left open stops nothing, and neither does a variable of yours, whatever you call it. The file is
generated from the lecture and written anew when that changes: do not edit it, but save a copy beside it under another name
(File, Save Notebook As) and work in that.*

| exercise | | minutes |
|:--|:--|--:|
{rows}
| together | | {total} |"""
ROW = re.compile(r"^### Exercise (.+?) · ([●○]{3}) · (\d+) min ·", re.MULTILINE)
HEADING = re.compile(r"^### Exercise (\d+\.\d+): ", re.MULTILINE)
HEAVY = (
    "*This takes long to compute: below is what is stored in [the lecture](../{name}#cell-id={id}){controls}.*{shows}"
)
NO_OUTPUT = "*The code behind what follows is in [the lecture](../{name}#cell-id={id}).*"
IMPORT = "\nfrom course_utils.classroom.stored import show_stored"

# What every notebook says of its language; a kernel adds its version. Without the ending nbconvert would write .txt.
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


def lectures():
    """Paths of the lecture notebooks, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def numbered(nb):
    """``nb``, a lecture, with the ids and nbgrader's metadata of its exercises as their printed numbers say.

    After a heading "### Exercise 3.2: ..." the cell with the solution is called solve-3-2, the one with ``check("3.2", ...)``
    check-3-2, the heading's own ex-3-2. Nobody has to write that by hand; points that are there are kept, 2 are given else.
    """
    number = ""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            if found := HEADING.search(cell.source):
                number = found[1]
                cell.id = f"ex-{number.replace('.', '-')}"
            continue
        solution, grade = "### BEGIN SOLUTION" in cell.source, cell.source.startswith(f'check("{number}"')
        if number and (solution or grade):
            cell.id = f"{'solve' if solution else 'check'}-{number.replace('.', '-')}"
            points = {"points": cell.metadata.get("nbgrader", {}).get("points", 2)} if grade else {}
            roles = {"grade": grade, "locked": grade, "solution": solution, "task": False, "schema_version": 3}
            cell.metadata["nbgrader"] = nbformat.from_dict({"grade_id": cell.id, **roles, **points})
    return nb


def exercise_notebook(lecture):
    """The exercise notebook (a NotebookNode) of the lecture at the path ``lecture``."""
    nb, name = nbformat.read(lecture, as_version=4), Path(lecture).name
    nb.cells = for_students(nb.cells, name)
    for cell in nb.cells:
        if cell.cell_type == "markdown" and not cell.id.startswith("without-"):  # this notebook lies one folder deeper
            cell.source = cell.source.replace("](../", "](../../")
    steps = [
        ClearSolutions(enforce_metadata=False, code_stub={"python": STUB}),
        LockCells(),
        ClearOutputPreprocessor(),
    ]
    for step in steps:
        nb, _ = step.preprocess(nb, {})
    for cell in nb.cells:
        kept = {
            key: cell.metadata[key] for key in ("nbgrader", "deletable", "editable", "jupyter") if key in cell.metadata
        }
        cell.metadata = nbformat.from_dict(kept)  # slides and test settings belong to the lecture
    nb.cells.insert(0, nbformat.v4.new_markdown_cell(note(nb, name), id="generated"))
    nb.metadata = nbformat.from_dict({"kernelspec": nb.metadata.kernelspec, "language_info": LANGUAGE_INFO})
    nbformat.validate(nb)
    return nb


def for_students(cells, name):
    """The cells of the lecture called ``name`` without those for the lecturer, and with what is stored of the heavy ones."""
    kept, run = [], []
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if "heavy" in tags and "lecturer" not in tags and cell.cell_type == "code":
            run.append(cell)
        elif "lecturer" not in tags:
            kept += [*stored(run, name), cell]
            run = []
    kept += stored(run, name)
    if any(cell.source.startswith("show_stored(") for cell in kept):
        next(cell for cell in kept if cell.id == "setup").source += IMPORT
    return kept


def note(nb, name):
    """The text at the top of an exercise notebook: where it comes from, and its exercises with their minutes."""
    found = [row for cell in nb.cells if cell.cell_type == "markdown" for row in ROW.findall(cell.source)]
    rows = "\n".join(f"| {title} | {difficulty} | {minutes} |" for title, difficulty, minutes in found)
    return NOTE.format(name=name, rows=rows, total=sum(int(minutes) for *_, minutes in found))


def stored(run, name):
    """The cells that stand for ``run``, consecutive heavy code cells of the lecture called ``name``: a line that says
    what they show, in the words of their figures, and a cell that shows it."""
    if not run:
        return []
    ids = [cell.id for cell in run if cell.outputs]
    alts = [about.get("alt", "") for cell in run for out in cell.outputs for about in out.get("metadata", {}).values()]
    shows = "\n" + "".join(f"\n- {alt}" for alt in alts if alt)
    controls = ", where its controls work" if any("explore(" in cell.source for cell in run) else ""
    line = (HEAVY if ids else NO_OUTPUT).format(name=name, id=run[0].id, shows=shows, controls=controls).rstrip()
    cells = [nbformat.v4.new_markdown_cell(line, id=f"without-{run[0].id}"[:64])]
    if ids:
        arguments = ", ".join(f'"{text}"' for text in (name, *ids))
        cells.append(nbformat.v4.new_code_cell(f"show_stored({arguments})", id=f"stored-{run[0].id}"[:64]))
    return cells


def worked_in(path, generated):
    """Whether somebody has worked in the notebook at ``path``: a hole is filled, or a cell was run.

    generated: what the lecture gives. A file that is no notebook counts as work: who knows what it is.
    """
    if not path.exists():
        return False
    try:
        cells = nbformat.read(path, as_version=4).cells
    except (ValueError, AttributeError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return True
    holes = {cell.id: cell.source.count(STUB) for cell in generated.cells}
    filled = (
        cell.source.count(STUB) < holes.get(cell.id, 1)
        for cell in cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    )
    return any(filled) or any(cell.get("execution_count") or cell.get("outputs") for cell in cells)


def main(arguments):
    """Write the exercise notebooks, or with ``--check`` list those that differ; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_utils exercises",
        description="Generate the exercise notebooks from the lectures, whose exercises get the ids of their numbers.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; list the notebooks that differ")
    parser.add_argument("--force", action="store_true", help="write anew what somebody has worked in, too")
    options = parser.parse_args(arguments)
    folder, status = NOTEBOOKS / "exercises", 0
    try:
        for lecture in lectures():
            before = lecture.read_text(encoding="utf-8")
            after = nbformat.writes(numbered(nbformat.reads(before, as_version=4))) + "\n"
            if after != before and options.check:
                status = 1
                print(
                    f"{lecture.name}: ids of its exercises differ from their numbers: run python -m course_utils exercises"
                )
            elif after != before:
                lecture.write_text(after, encoding="utf-8", newline="\n")
                print("numbered", lecture.name)
            path, generated = folder / lecture.name, exercise_notebook(lecture)
            text = nbformat.writes(generated) + "\n"
            if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
                continue
            if options.check:
                status = 1
                print(f"{path.name} differs from what its lecture generates: run python -m course_utils exercises")
            elif worked_in(path, generated) and not options.force:
                status = 1
                print(f"{path.name} is left as it is: somebody has worked in it (--force writes it anew)")
            else:
                folder.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
                print("wrote", path.name)
    except OSError as error:
        print(f"error: the exercise notebooks cannot be written ({error})", file=sys.stderr)
        return 1
    return status
