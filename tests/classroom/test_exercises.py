"""The exercise notebooks: generated from the lectures, and complete. They are run in ``test_open_exercises.py``."""

import re

import nbformat
import pytest
from helpers import TEMPLATE
from nbconvert import ScriptExporter

from course_utils.checks import core
from course_utils.classroom import exercises

LECTURES = exercises.lectures()
CALL = re.compile(r"""\bcheck\(\s*["']([^"']+)["']""")


def exercise_cells(lecture):
    """For each check cell of a lecture: itself, the solution cell and the text of the exercise."""
    cells = nbformat.read(lecture, as_version=4).cells
    found = []
    for i, cell in enumerate(cells):
        if cell.metadata.get("nbgrader", {}).get("grade"):
            solution = max(j for j in range(i) if cells[j].metadata.get("nbgrader", {}).get("solution"))
            first = max(j for j in range(solution) if "### Exercise" in cells[j].source)
            text = "\n".join(c.source for c in cells[first:i] if c.cell_type == "markdown")
            found.append((cell, cells[solution], text))
    return found


EXERCISES = [(lecture, *cells) for lecture in LECTURES for cells in exercise_cells(lecture)]
OF_TEMPLATE = [(LECTURES[0], *cells) for cells in exercise_cells(TEMPLATE)]  # it borrows the check of lecture 00


def test_committed_exercises_are_what_the_lectures_generate(capsys):
    assert LECTURES
    status = exercises.main(["--check"])
    assert status == 0, capsys.readouterr().out
    committed = {path.name for path in (exercises.NOTEBOOKS / "exercises").glob("*.ipynb")}
    assert committed == {path.name for path in LECTURES}


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder of notebooks with the shortest lecture alone; the folder of its exercises."""
    lecture = min(LECTURES, key=lambda path: path.stat().st_size)
    (tmp_path / lecture.name).write_bytes(lecture.read_bytes())
    monkeypatch.setattr(exercises, "NOTEBOOKS", tmp_path)
    return tmp_path / "exercises"


@pytest.mark.parametrize("words", [["--help"], ["--chekc"], ["03"], ["--check", "03"], ["-h"]])
def test_a_word_that_is_no_option_writes_nothing(words, course, capsys):
    with pytest.raises(SystemExit) as stop:
        exercises.main(words)
    assert stop.value.code == (0 if words in (["--help"], ["-h"]) else 2)
    assert not course.exists() and "--check" in "".join(capsys.readouterr())


def test_checking_writes_nothing(course, capsys):
    assert exercises.main(["--check"]) == 1 and not course.exists()
    assert "differs from what its lecture generates" in capsys.readouterr().out


def fill(nb):
    hole = next(cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("solution"))
    hole.source = hole.source.replace(exercises.STUB, "return 42")


def run_a_cell(nb):
    next(cell for cell in nb.cells if cell.cell_type == "code").execution_count = 1


@pytest.mark.parametrize("work", [fill, run_a_cell, None])
def test_what_a_student_did_is_not_written_over(work, course, capsys):
    assert exercises.main([]) == 0
    (path,) = course.iterdir()
    generated = path.read_bytes()
    if work:
        nb = nbformat.read(path, as_version=4)
        work(nb)
        nbformat.write(nb, path)
    else:
        path.write_text("no notebook")
    before = path.read_bytes()
    assert exercises.main([]) == 1 and path.read_bytes() == before
    assert f"{path.name} is left as it is: somebody has worked in it" in capsys.readouterr().out
    assert exercises.main(["--force"]) == 0 and path.read_bytes() == generated


def test_an_old_version_that_nobody_worked_in_is_written_anew(course):
    exercises.main([])
    (path,) = course.iterdir()
    generated = path.read_bytes()
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].source += " (an older text)"
    nbformat.write(nb, path)
    assert exercises.main([]) == 0 and path.read_bytes() == generated


def test_a_folder_that_cannot_be_written_is_named(course, capsys):
    course.write_text("a file in its place")
    assert exercises.main([]) == 1
    assert "error: the exercise notebooks cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("lecture", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_notebooks_become_scripts_of_python(lecture):
    for nb in (nbformat.read(lecture, as_version=4), exercises.exercise_notebook(lecture)):
        _, resources = ScriptExporter().from_notebook_node(nb)
        assert resources["output_extension"] == ".py"


def test_the_same_bytes_each_time():
    for lecture in LECTURES:
        texts = {nbformat.writes(exercises.exercise_notebook(lecture)) for _ in range(2)}
        assert len(texts) == 1


@pytest.mark.parametrize("lecture", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_generated_notebook_has_holes_and_no_outputs(lecture):
    nb = exercises.exercise_notebook(lecture)
    assert len({cell.id for cell in nb.cells}) == len(nb.cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in nb.cells)
    text = "\n".join(cell.source for cell in nb.cells)
    assert "SOLUTION" not in text and "For the lecturer" not in text
    holes = [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert len(holes) == len(exercise_cells(lecture)) > 0
    assert all(exercises.STUB in cell.source and not cell.metadata.deletable for cell in holes)


@pytest.mark.parametrize("lecture", [*LECTURES, TEMPLATE], ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(lecture):
    for folder, nb in [(lecture.parent, nbformat.read(lecture, as_version=4)),
                       (lecture.parent / "exercises", exercises.exercise_notebook(lecture))]:  # fmt: skip
        links = [link for cell in nb.cells for link in re.findall(r"\]\(([^)#:]+\.\w+)[^):]*\)", cell.source)]
        missing = [link for link in links if not (folder / link).exists()]
        assert not missing, f"{lecture.stem} in {folder.name}: {missing}"


@pytest.mark.parametrize(
    ("lecture", "check", "solution", "text"),
    [*EXERCISES, *OF_TEMPLATE],
    ids=[row[1].metadata.nbgrader.grade_id for row in EXERCISES] + ["template"] * len(OF_TEMPLATE),
)
def test_exercise_is_complete(lecture, check, solution, text):
    heading = text[text.index("### Exercise") :].splitlines()[0]
    number, title = re.match(r"### Exercise (\S+): ([^·]+) ·", heading).groups()
    cell_id = number.replace(".", "-")
    assert int(number.split(".")[0]) == int(lecture.name[:2]), "the lecture's number, a point, a number"
    assert check.metadata.nbgrader.locked and check.metadata.nbgrader.points > 0
    assert check.id == check.metadata.nbgrader.grade_id == f"check-{cell_id}"
    assert solution.id == solution.metadata.nbgrader.grade_id == f"solve-{cell_id}"
    assert CALL.findall(check.source) == [number]
    plain = title.replace("$", "").replace("\\sigma", "sigma").replace(" (optional)", "")
    assert core.load()[number].title == plain, "one title, on the page and in the check's answer"
    assert solution.source.count("### BEGIN SOLUTION") == solution.source.count("### END SOLUTION") >= 1
    assert re.fullmatch(r"### Exercise [^·]+ · [●○]{3} · \d+ min · \S[^·]*", heading), "difficulty, minutes, subject"
    hints = re.findall(r"<details>\s*<summary>(.+?)</summary>(\n\n)?", text)
    assert len(hints) == text.count("</details>") == 2, "a hint and a stronger hint"
    assert all(blank for _, blank in hints), "a blank line after </summary>, else Markdown inside is not rendered"


def test_the_numbers_decide_about_ids_and_nbgraders_metadata(course, capsys):
    lecture = next(course.parent.glob("*.ipynb"))
    whole = lecture.read_text(encoding="utf-8")
    nb = nbformat.reads(whole, as_version=4)
    for cell in nb.cells:
        if re.fullmatch(r"(ex|solve|check)-\d-\d", cell.id):
            cell.metadata.pop("nbgrader", None)
            cell.id = f"by-hand-{cell.id}"
    lecture.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    assert exercises.main(["--check"]) == 1 and "ids of its exercises differ" in capsys.readouterr().out
    assert exercises.main([]) == 0
    ids = [cell.id for cell in nbformat.reads(whole, as_version=4).cells]
    made = nbformat.read(lecture, as_version=4).cells
    assert [cell.id for cell in made] == ids
    assert all(cell.metadata.nbgrader.points == 2 for cell in made if re.fullmatch(r"check-\d-\d", cell.id))


def test_each_registered_exercise_is_in_one_lecture():
    in_lectures = [id for _, check, _, _ in EXERCISES for id in CALL.findall(check.source)]
    assert sorted(in_lectures) == sorted(core.load())


def test_there_are_at_least_24_exercises():
    assert len(EXERCISES) >= 24
    assert {row[0].name[:2] for row in EXERCISES} >= {f"{number:02}" for number in range(6)}
