"""The lines every setup cell begins with. ``python -m course_utils setup`` writes them into the lectures.

The text stands here once; the imports that follow it are each lecture's own. ``--check`` only compares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

# It runs before anything of the course can be imported, so it cannot be a function of the course.
SETUP = """\
import sys
from pathlib import Path

COURSE = [p for p in (Path.cwd(), *Path.cwd().parents) if (p / "course_utils" / "__init__.py").is_file()]
if not COURSE:
    raise FileNotFoundError(
        f"No course_utils in {Path.cwd()} or above it: the notebook must lie in the course's folder, or in one below it."
    )
sys.path.insert(0, str(COURSE[0]))
"""

# For nbgrader: not graded, but put back when a student has edited or deleted it.
LOCKED = {"grade": False, "grade_id": "setup", "locked": True, "schema_version": 3, "solution": False, "task": False}


def with_setup(source: str) -> str:
    """``source`` of a setup cell, old or new, with SETUP as its first lines and its own imports after them.

    Raises ValueError if no line of it begins with ``sys.path.insert(0``: then it is no setup cell.
    """
    lines = source.splitlines()
    ends = [i for i, line in enumerate(lines) if line.startswith("sys.path.insert(0")]
    if not ends:
        raise ValueError("a setup cell has a line that begins with sys.path.insert(0, this one has none")
    mine = set(SETUP.splitlines())
    imports = [line for line in lines[: ends[0]] if line.startswith(("import ", "from ")) and line not in mine]
    return SETUP + "\n".join([*imports, *lines[ends[0] + 1 :]]).lstrip("\n")


def setup_cell(nb: NotebookNode) -> NotebookNode:
    """The cell with the id ``setup``; ValueError if there is none."""
    for cell in nb.cells:
        if cell.id == "setup":
            return cell
    raise ValueError("no cell has the id setup")


def with_template(folder: Path) -> list[Path]:
    """The lectures in ``folder``, in order, and the template that a new one begins as, if it is there."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb")) + list(folder.glob("_template.ipynb"))


def main(arguments: list[str]) -> int:
    """Write the setup cells, or with ``--check`` list the lectures whose cell differs; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_utils setup", description="Write the first lines of the lectures' setup cells."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; list the lectures that differ")
    only_check = parser.parse_args(arguments).check
    differ = 0
    for path in with_template(NOTEBOOKS):
        nb = nbformat.read(path, as_version=4)
        cell = setup_cell(nb)
        source = with_setup(cell.source)
        if source == cell.source and cell.metadata.get("nbgrader") == LOCKED:
            continue
        differ += 1
        if only_check:
            print(f"{path.name}: its setup cell differs, run python -m course_utils setup")
        else:
            cell.source, cell.metadata["nbgrader"] = source, nbformat.from_dict(LOCKED)
            path.write_text(nbformat.writes(nb) + "\n", encoding="utf-8", newline="\n")
            print("wrote", path.name)
    return 1 if only_check and differ else 0
