"""Grading with nbgrader, for real: the lecturer's commands, on a copy of the folder, with four students."""

import contextlib
import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_core.application import NoStart
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderApp

from course_utils.classroom import exercises

LECTURE = "03_power_iteration"
pytestmark = pytest.mark.filterwarnings("ignore")  # of nbgrader's own making

ENDLESS = "while True:\n    pass"
# What never ends need not have the whole patience of the course. What does end has it, however busy the machine.
NO_WAITING = 'c.Execute.timeout_func = lambda cell: 5 if cell.source.startswith("while True") else c.Execute.timeout\n'


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course, and the environment that a lecturer has."""
    folder = tmp_path_factory.mktemp("course")
    root = exercises.NOTEBOOKS.parent
    settings = (root / "nbgrader_config.py").read_text(encoding="utf-8")
    (folder / "nbgrader_config.py").write_text(settings + NO_WAITING, encoding="utf-8")
    shutil.copytree(
        root / "course_utils", folder / "course_utils", ignore=shutil.ignore_patterns("tests", "__pycache__")
    )
    (folder / "notebooks").mkdir()
    for lecture in exercises.lectures():
        shutil.copy(lecture, folder / "notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("COURSE_STRICT", raising=False)
        tools = str(Path(sys.executable).parent)  # nbgrader calls alembic, which lies there
        patch.setenv("PATH", tools + os.pathsep + os.environ["PATH"])
        yield folder


def nbgrader(*arguments):
    """Run ``nbgrader ...`` in this process (so that the settings of the tests for kernels hold)."""
    app = NbGraderApp()
    app.initialize(list(arguments))
    with contextlib.suppress(NoStart):  # its way to say that a subcommand has run
        app.start()
    type(app.subapp).clear_instance()


def nbgrader_cells(nb, kind):
    return {
        cell.metadata.nbgrader.grade_id[6:]: cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get(kind)
    }


def submit(course, student, change):
    """Write a student's notebook: the released one without the cells that are not graded (to save time), changed."""
    nb = nbformat.read(course / "release" / "notebooks" / f"{LECTURE}.ipynb", as_version=4)
    nb.cells = [cell for cell in nb.cells if "nbgrader" in cell.metadata or cell.id == "setup"]
    change(nb, nbgrader_cells(nb, "solution"), nbgrader_cells(nb, "grade"))
    path = course / "submitted" / student / "notebooks" / f"{LECTURE}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nb, path)


def test_points(course):
    nbgrader("generate_assignment", "notebooks", f"--notebook={LECTURE}")
    released = nbformat.read(course / "release" / "notebooks" / f"{LECTURE}.ipynb", as_version=4)
    generated = exercises.exercise_notebook(exercises.NOTEBOOKS / f"{LECTURE}.ipynb")
    shared = [cell.id for cell in generated.cells[1:]]  # without the note at the top, which speaks of the folder
    assert [cell.id for cell in released.cells] == shared and any(id.startswith("stored-") for id in shared)
    for kind in ("solution", "grade"):
        sources = [{id: cell.source for id, cell in nbgrader_cells(nb, kind).items()} for nb in (released, generated)]
        assert sources[0] == sources[1]

    lecture = nbformat.read(exercises.NOTEBOOKS / f"{LECTURE}.ipynb", as_version=4)
    answers = {id: cell.source for id, cell in nbgrader_cells(lecture, "solution").items()}
    points = {id: cell.metadata.nbgrader.points for id, cell in nbgrader_cells(lecture, "grade").items()}
    ids = list(points)
    assert len(ids) >= 5

    def solve(some):
        def change(nb, solutions, checks):
            for id in some:
                solutions[id].source = answers[id]

        return change

    def accident(nb, solutions, checks):
        solve(ids)(nb, solutions, checks)
        stubs = {id: cell.source for id, cell in nbgrader_cells(released, "solution").items()}
        solutions[ids[0]].source = stubs[ids[0]].replace(exercises.STUB, "while True: pass")
        solutions[ids[1]].source = stubs[ids[1]].replace(exercises.STUB, "raise ValueError('oops')")
        checks[ids[1]].source = "print('all fine')"  # an edited check is restored,
        nb.cells.remove(checks[ids[2]])  # and so is one that was deleted;
        nb.cells.remove(checks[ids[3]])  # without its solution as well it counts 0, and only that
        nb.cells.remove(solutions[ids[3]])
        last = nb.cells.index(solutions[ids[-1]])
        nb.cells[last:last] = [nbformat.v4.new_code_cell(ENDLESS), nbformat.v4.new_code_cell("1 / 0")]

    expected = {
        "perfect": sum(points.values()),
        "empty": 0,
        "half": sum(points[id] for id in ids[: len(ids) // 2]),
        "accident": sum(points.values()) - points[ids[0]] - points[ids[1]] - points[ids[3]],
    }
    submit(course, "perfect", solve(ids))
    submit(course, "empty", solve([]))
    submit(course, "half", solve(ids[: len(ids) // 2]))
    submit(course, "accident", accident)
    nbgrader("autograde", "notebooks", f"--notebook={LECTURE}")

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        found = {s: gradebook.find_submission_notebook(LECTURE, "notebooks", s) for s in expected}
        assert {s: notebook.score for s, notebook in found.items()} == expected
        assert {notebook.max_score for notebook in found.values()} == {sum(points.values())}
        assert not any(notebook.needs_manual_grade for notebook in found.values())

    nbgrader("generate_assignment", "notebooks", "--notebook=00_start_here")  # the next week changes no points
    nbgrader("generate_feedback", "notebooks", f"--notebook={LECTURE}")
    feedback = (course / "feedback" / "accident" / "notebooks" / f"{LECTURE}.html").read_text(encoding="utf-8")
    assert "endless loop" in feedback and "oops" in feedback
    nbgrader("export")
    with open("grades.csv", newline="", encoding="utf-8") as file:
        assert {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)} == expected


def code(source, **metadata):
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def copied(cell):
    """A cell as JupyterLab pastes it: the metadata comes along."""
    return code(cell.source, **json.loads(json.dumps(cell.metadata)))


def test_accidents_cost_nothing_and_tricks_give_nothing(course):
    nbgrader("generate_assignment", "notebooks", f"--notebook={LECTURE}", "--force")
    lecture = nbformat.read(exercises.NOTEBOOKS / f"{LECTURE}.ipynb", as_version=4)
    answers = {id: cell.source for id, cell in nbgrader_cells(lecture, "solution").items()}
    points = {id: cell.metadata.nbgrader.points for id, cell in nbgrader_cells(lecture, "grade").items()}
    (first, second, third, *_), full = points, sum(points.values())

    def solved(change):
        def both(nb, solutions, checks):
            for id, answer in answers.items():
                solutions[id].source = answer
            change(nb, solutions, checks)

        return both

    def setup(nb):
        return next(cell for cell in nb.cells if cell.id == "setup")

    def before(nb, cell, *new):
        nb.cells[nb.cells.index(cell) : nb.cells.index(cell)] = new

    def copies(nb, solutions, checks):
        before(nb, solutions[first], copied(checks[first]))  # a copy before, one behind, one of a solution,
        nb.cells += [copied(checks[second]), copied(solutions[third]), copied(setup(nb))]
        foreign = {**checks[first].metadata.nbgrader, "grade_id": "check-02-foreign"}
        nb.cells.append(code("check('02-foreign', None)", nbgrader=foreign))  # one from another lecture
        for role in checks[second].metadata.nbgrader, solutions[second].metadata.nbgrader:
            del role["schema_version"]

    def moved(nb, solutions, checks):
        nb.cells.remove(checks[first])
        before(nb, solutions[first], checks[first])
        nb.cells.append(nb.cells.pop(nb.cells.index(setup(nb))))  # the setup at the end
        nb.cells.remove(checks[second])  # lost as the last cells of a notebook may be
        nb.cells.remove(checks[third])

    def edited_setup(nb, solutions, checks):
        setup(nb).source = "import os\nANSWERS = 3\nimport no_such_package"
        solutions[first].source = "assert ANSWERS == 3\n" + solutions[first].source  # what it defines is there

    def deleted_setup(nb, solutions, checks):
        nb.cells.remove(setup(nb))
        nb.nbformat_minor = 4
        for cell in nb.cells:
            del cell["id"]

    def noise(nb, solutions, checks):
        name = re.search(r"def (\w+)", solutions[first].source)[1]
        loud = f"\n_quiet = {name}\ndef {name}(*a, **k):\n    import os\n    os.write(2, b'noise')\n    return _quiet(*a, **k)"
        solutions[first].source += loud
        before(nb, checks[second], code("check = None"))

    def dead(nb, solutions, checks):
        stub = nbgrader_cells(released, "solution")[second].source
        solutions[second].source = stub.replace(exercises.STUB, "import os; os._exit(1)")  # dies in its check
        before(nb, solutions[third], code("import os\nos._exit(1)"))
        deaf = "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
        nb.cells.append(code(deaf))
        nb.cells.append(nb.cells.pop(nb.cells.index(checks[first])))  # still right after all that

    def tricks(nb, solutions, checks):
        before(nb, solutions[first], code("check = print\nimport os\nos.environ.pop('NBGRADER_EXECUTION', None)"))
        for cell in checks.values():
            cell.metadata["tags"] = ["skip-execution"]

    released = nbformat.read(course / "release" / "notebooks" / f"{LECTURE}.ipynb", as_version=4)
    changes = [solved(change) for change in (copies, moved, edited_setup, deleted_setup, noise, dead)] + [tricks]
    students = ["copies", "moved", "edited", "deleted", "noise", "dead", "tricks"]
    for student, change in zip(students, changes):
        submit(course, student, change)
        nbgrader("autograde", "notebooks", f"--notebook={LECTURE}", f"--student={student}")
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        found = {s: gradebook.find_submission_notebook(LECTURE, "notebooks", s).score for s in students}
    assert found == dict.fromkeys(students, full) | {"dead": full - points[second], "tricks": 0}

    nbgrader("generate_feedback", "notebooks", f"--notebook={LECTURE}", "--student=dead")
    page = (course / "feedback" / "dead" / "notebooks" / f"{LECTURE}.html").read_text(encoding="utf-8")
    assert "The kernel was lost in cell" in page
