"""Grading with nbgrader: this folder is the course directory and ``notebooks`` the assignment (see the README)."""

import sys
from pathlib import Path

from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat.v4 import new_code_cell
from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import OverwriteCells

sys.path.insert(0, str(Path(__file__).resolve().parent))
from course_utils.exercises import STUB


class RestoreCells(OverwriteCells):
    """Brings back check cells that a student has deleted, even if the solution cell before them is gone as well."""

    def add_missing_grade_cells(self, nb, resources):
        known = {cell.metadata.get("nbgrader", {}).get("grade_id") for cell in nb.cells}
        for lost in self.gradebook.find_notebook(self.notebook_id, self.assignment_id).solution_cells:
            if lost.name not in known:  # nbgrader itself would fail, and the student get no points at all
                empty = {"grade_id": lost.name, "solution": True, "grade": False, "locked": False, "task": False}
                nb.cells.append(new_code_cell(metadata={"nbgrader": {**empty, "schema_version": 3}}))
        return super().add_missing_grade_cells(nb, resources)


c = get_config()  # noqa: F821  (nbgrader defines it)
c.CourseDirectory.course_id = "spectral_normalization"
c.CourseDirectory.source_directory = "."

# A released notebook has the same holes, and lacks the same cells, as the one in notebooks/exercises.
c.ClearSolutions.code_stub = {"python": STUB}
c.TagRemovePreprocessor.remove_cell_tags = {"lecturer", "heavy"}
c.TagRemovePreprocessor.enabled = True
c.GenerateAssignment.preprocessors = [TagRemovePreprocessor, *GenerateAssignment.preprocessors.default()]

# An endless loop in a function is stopped by the check, one in a cell by this (seconds); then grading goes on.
c.Execute.timeout = 120
c.OverwriteCells.add_missing_cells = True
c.Autograde.sanitize_preprocessors = [
    RestoreCells if step is OverwriteCells else step for step in Autograde.sanitize_preprocessors.default()
]
