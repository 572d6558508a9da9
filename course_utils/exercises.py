"""Generate the exercise notebooks from the lectures: ``python -m course_utils.exercises`` (``--check`` only compares).

The lectures in ``notebooks/`` are the single source. An exercise notebook is the lecture without the solutions
(nbgrader's markers), without the cells tagged ``lecturer``, and without outputs; one line stands for each run of cells
tagged ``heavy``, long computations with their figures. The same lecture gives the same bytes.
"""

import sys
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor
from nbgrader.preprocessors import ClearSolutions, LockCells

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
STUB = "raise NotImplementedError()  # your code here"
NOTE = """*This is [the lecture](../{name}) with holes. Fill one, run its cell and the check below it, and you are told
at once how it went; a hole left open stops nothing. The file is generated from the lecture and written anew when that
changes: do not edit it, but save a copy beside it under another name (File, Save Notebook As) and work in that.*"""
HEAVY = "*A long computation and what it shows are left out here: see [this place in the lecture](../{name}).*"


def lectures():
    """Paths of the lecture notebooks, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def exercise_notebook(lecture):
    """The exercise notebook (a NotebookNode) of the lecture at the path ``lecture``."""
    nb, name = nbformat.read(lecture, as_version=4), Path(lecture).name
    cells, nb.cells = nb.cells, []
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if "lecturer" in tags:
            continue
        if "heavy" not in tags:
            if cell.cell_type == "markdown":  # this notebook lies one folder deeper
                cell.source = cell.source.replace("](../", "](../../")
            nb.cells.append(cell)
        elif nb.cells[-1].source != HEAVY.format(name=name):
            nb.cells.append(nbformat.v4.new_markdown_cell(HEAVY.format(name=name), id=f"without-{cell.id}"[:64]))
    steps = [
        ClearSolutions(enforce_metadata=False, code_stub={"python": STUB}),
        LockCells(),
        ClearOutputPreprocessor(),
    ]
    for step in steps:
        nb, _ = step.preprocess(nb, {})
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in ("nbgrader", "deletable", "editable") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)  # slides and test settings belong to the lecture
    note = nbformat.v4.new_markdown_cell(NOTE.format(name=name), id="generated")
    nb.cells.insert(0, note)
    nb.metadata = nbformat.from_dict({"kernelspec": nb.metadata.kernelspec, "language_info": {"name": "python"}})
    nbformat.validate(nb)
    return nb


def main(arguments):
    """Write the exercise notebooks, or with ``--check`` list those that differ; return the exit status."""
    folder = NOTEBOOKS / "exercises"
    differ = 0
    for lecture in lectures():
        path, text = folder / lecture.name, nbformat.writes(exercise_notebook(lecture)) + "\n"
        if arguments != ["--check"]:
            try:
                folder.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            except OSError as error:
                print(
                    f"error: {path} could not be written ({error.strerror}): is the course's folder read-only?",
                    file=sys.stderr,
                )
                return 1
            print("wrote", path.name)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            differ += 1
            print(f"{path.name} differs from what its lecture generates: run python -m course_utils.exercises")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
