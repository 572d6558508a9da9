"""Grading with nbgrader: this folder is the course directory and ``notebooks`` the assignment (see the README)."""

import sys
from pathlib import Path

from nbclient.exceptions import DeadKernelError
from nbclient.util import ensure_async
from nbformat.v4 import new_code_cell, new_output
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import DeduplicateIds, Execute, NbGraderPreprocessor, OverwriteCells

sys.path.insert(0, str(Path(__file__).resolve().parent))
from course_utils.classroom.exercises import STUB, for_students

# Runs before each check: what the notebook has bound to `check`, or set in the environment, must not give points.
BEFORE_CHECK = 'import os\nfrom course_utils.checks import check\nos.environ["NBGRADER_EXECUTION"] = "autograde"\n'
MOST_DEATHS = 5  # of kernels in one notebook; what comes after the last of them is left out
PATIENCE = 10  # seconds in which a kernel must answer once its cell has been interrupted


class ForStudents(NbGraderPreprocessor):
    """Leaves out what the notebooks in ``notebooks/exercises`` leave out, and shows what they show instead."""

    def preprocess(self, nb, resources):
        nb.cells = for_students(nb.cells, resources["nbgrader"]["notebook"] + ".ipynb")
        return nb, resources


class RestoreCells(OverwriteCells):
    """Undoes what happens to graded notebooks by accident: cells are copied, edited, moved, deleted or tagged.

    Afterwards the first code cell is the setup as it was released (a changed one follows as an ordinary cell), and each
    check is there once, not before its solution. Copies run as ordinary cells.
    """

    def preprocess(self, nb, resources):
        names = resources["nbgrader"]
        with Gradebook(names["db_url"]) as gradebook:
            released = gradebook.find_notebook(names["notebook"], names["assignment"])
            sources = {cell.name: cell.source for cell in released.source_cells}
            points = {cell.name: cell.max_score for cell in released.grade_cells}
            solutions = {cell.name for cell in released.solution_cells}
        chosen = {}  # of copies the last check and the first solution
        for cell in nb.cells:
            name = _name(cell)
            if name in sources and (name in points or name not in chosen):
                chosen[name] = cell
        for cell in nb.cells:
            name = _name(cell)
            cell.metadata.pop("nbgrader", None)
            if name in chosen and cell is chosen[name]:
                cell.metadata.pop("tags", None)  # one of them lets a cell be skipped
                cell.metadata["nbgrader"] = _metadata(name, points.get(name), name in solutions)
        for name in sources.keys() - points.keys() - solutions:
            _put_first(nb, name, sources[name])
        for name in points:
            if name in chosen and nb.cells.index(chosen[name]) < (place := _behind_solution(nb, name, 0)):
                nb.cells.insert(place, chosen[name])
                del nb.cells[nb.cells.index(chosen[name])]  # the first of the two
        return super().preprocess(nb, resources)

    def add_missing_grade_cells(self, nb, resources):
        """A lost check comes back behind its solution; if that is lost as well, at the end, where all else has run."""
        known = {_name(cell) for cell in nb.cells}
        released = self.gradebook.find_notebook(self.notebook_id, self.assignment_id)
        sources = {cell.name: cell for cell in released.source_cells}
        for lost in released.grade_cells:
            if lost.name not in known:
                self.log.warning("The check %s is missing and comes back", lost.name)
                cell = self.missing_cell_transform(sources[lost.name], lost.max_score)
                nb.cells.insert(_behind_solution(nb, lost.name, len(nb.cells)), cell)
        return nb, resources


def _name(cell):
    return (cell.metadata.get("nbgrader") or {}).get("grade_id")


def _metadata(name, points, solution):
    """nbgrader's for a check (which has points), a solution, or a cell that is only locked."""
    worth = {} if points is None else {"points": points}
    roles = {"grade": points is not None, "solution": solution, "locked": not solution, "task": False}
    return {"grade_id": name, **roles, **worth, "schema_version": 3}


def _put_first(nb, name, source):
    """Make the released cell ``name`` the first code cell; what a student has made of it stays as an ordinary cell."""
    for cell in [cell for cell in nb.cells if _name(cell) == name]:
        del cell.metadata["nbgrader"]
        if cell.source == source:
            nb.cells.remove(cell)
    restored = new_code_cell(source, metadata={"nbgrader": _metadata(name, None, False)})
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        del restored["id"]
    nb.cells.insert(next((i for i, cell in enumerate(nb.cells) if cell.cell_type == "code"), 0), restored)


def _behind_solution(nb, check, otherwise):
    """The place behind the solution that belongs to a check; ``otherwise`` if it is not there."""
    solution = "solve-" + check.removeprefix("check-")
    return next((i + 1 for i, cell in enumerate(nb.cells) if _name(cell) == solution), otherwise)


class ExecuteToTheEnd(Execute):
    """Runs a notebook to its end though a cell kills the kernel or hangs in it: again from the top, without that cell."""

    def preprocess(self, nb, resources=None, km=None):
        self.left_out, deaths = {}, 0
        while True:
            self.running = None
            try:
                return super().preprocess(nb, resources, km)
            except Exception as error:
                if self.running is None:  # no cell is to blame
                    raise
                deaths += 1
                message = f"The kernel was lost in cell {self.running + 1} ({error}); it is left out."
                self.log.error(message)
                last = len(nb.cells) if deaths >= MOST_DEATHS else self.running + 1
                self.left_out |= dict.fromkeys(range(self.running, last), message)

    def preprocess_cell(self, cell, resources, index):
        if index in self.left_out and cell.cell_type == "code":
            text = self.left_out[index]
            cell.outputs = [new_output("error", ename="KernelLost", evalue=text, traceback=[text])]
            return cell, resources
        self.running, source = index, cell.source
        if not utils.is_grade(cell):
            return super().preprocess_cell(cell, resources, index)
        cell.source = BEFORE_CHECK + source
        try:
            return super().preprocess_cell(cell, resources, index)
        finally:
            cell.source = source
            # A check that does not say "right" raises; what else comes through stderr must not cost its points.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]

    async def _async_handle_timeout(self, timeout, cell=None):
        reply = await super()._async_handle_timeout(timeout, cell)
        asked = self.kc.kernel_info()
        try:
            while (await ensure_async(self.kc.get_shell_msg(timeout=PATIENCE)))["parent_header"].get("msg_id") != asked:
                pass
        except Exception:  # queue.Empty
            raise DeadKernelError("it ran too long and could not be interrupted") from None
        return reply


c = get_config()  # noqa: F821  (nbgrader defines it)
c.CourseDirectory.course_id = "spectral_normalization"
c.CourseDirectory.source_directory = "."

# A released notebook has the same holes, and the same cells, as the one in notebooks/exercises.
c.ClearSolutions.code_stub = {"python": STUB}
c.GenerateAssignment.preprocessors = [ForStudents, *GenerateAssignment.preprocessors.default()]

# An endless loop in a function is stopped by the check, one in a cell by this (seconds); then grading goes on.
c.Execute.timeout = 120
c.OverwriteCells.add_missing_cells = True
c.Autograde.sanitize_preprocessors = [
    RestoreCells if step is OverwriteCells else step
    for step in Autograde.sanitize_preprocessors.default()
    if step is not DeduplicateIds  # RestoreCells chooses among copies
]
c.Autograde.autograde_preprocessors = [
    ExecuteToTheEnd if step is Execute else step for step in Autograde.autograde_preprocessors.default()
]
