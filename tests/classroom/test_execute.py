"""Executing lectures by a command: what is stored, what stays, and whose figures are of an older style."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from helpers import TEMPLATE

from course_utils import plotting
from course_utils.classroom import execute
from course_utils.methods import METHODS


def test_the_stored_figures_are_in_todays_style(capsys: pytest.CaptureFixture) -> None:
    assert execute.main(["--check"]) == 0, (
        f"{capsys.readouterr().out}\nThese commands draw the figures anew and note the style; look at them, then run "
        "python -m course_utils exercises and python -m course_utils readme. (nbval compares no pictures.)"
    )


CHANGES = {
    "settings": lambda patch: patch.setitem(plotting.STYLE, "font.size", 13),
    "BLUE": lambda patch: patch.setattr(plotting, "BLUE", "#0000FF"),
    "spectral_norm": lambda patch: patch.setitem(
        METHODS, "spectral_norm", replace(METHODS["spectral_norm"], marker="x")
    ),
    "none": lambda patch: patch.setattr(execute, "METHODS", {k: v for k, v in METHODS.items() if k != "none"}),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_changed_style_is_noticed(part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    CHANGES[part](monkeypatch)
    assert execute.main(["--check", "00"]) == 1
    assert f"old figures in 00_start_here ({part}): run python -m course_utils execute 00" in capsys.readouterr().out


def test_a_new_method_or_colour_and_another_comment_make_no_figure_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "new", replace(METHODS["none"], label="new"))
    monkeypatch.setattr(plotting, "PINK", "#FF00FF", raising=False)
    assert execute.main(["--check"]) == 0


def drawn(width: int) -> None:
    """One docstring."""
    return width + 1


SAME = 'def drawn(width: int) -> None:\n    """Another docstring."""\n    return (\n        width + 1  # a comment\n    )\n'


def test_words_about_the_code_are_not_its_style(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "DRAWING", (drawn,))
    before = execute.style()
    for source, same in ((SAME, True), (SAME.replace("+ 1", "+ 2"), False)):
        monkeypatch.setattr(execute.inspect, "getsource", lambda function, source=source: source)
        assert (execute.style() == before) is same


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template as lecture 00 of a folder of its own, inside which the module is found."""
    for folder in ("data", "notebooks"):
        (tmp_path / folder).mkdir()
    shutil.copytree(execute.ROOT / "course_utils", tmp_path / "course_utils")
    shutil.copy(TEMPLATE, tmp_path / "notebooks" / "00_a.ipynb")
    (tmp_path / "data" / "figure_styles.json").write_text("{}")
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(execute, "STYLES", tmp_path / "data" / "figure_styles.json")
    return tmp_path / "notebooks" / "00_a.ipynb"


def test_a_second_run_changes_nothing_and_a_changed_cell_its_output(
    course: Path, capsys: pytest.CaptureFixture
) -> None:
    assert execute.main(["--check"]) == 1 and "never executed by this command" in capsys.readouterr().out
    before = course.read_bytes()
    assert execute.main(["00"]) == 0 and execute.main(["--check"]) == 0
    assert course.read_bytes() == before
    nb = nbformat.read(course, as_version=4)
    next(cell for cell in nb.cells if cell.id == "line-check").source += "\nprint(6 * 7)"
    course.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    assert execute.main([]) == 0
    after = nbformat.read(course, as_version=4)
    changed = [cell.id for cell, old in zip(after.cells, nb.cells) if cell.get("outputs") != old.get("outputs")]
    assert changed == ["line-check"] and "widgets" not in after.metadata and after.metadata == nb.metadata


def test_a_lecture_that_fails_is_left_as_it_was(course: Path, capsys: pytest.CaptureFixture) -> None:
    nb = nbformat.read(course, as_version=4)
    next(cell for cell in nb.cells if cell.id == "line-check").source += "\nassert y.max() == 2"
    course.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    before = course.read_bytes()
    assert execute.main(["00"]) == 1 and course.read_bytes() == before
    assert "00_a.ipynb is left as it was" in capsys.readouterr().err
    assert json.loads(execute.STYLES.read_text()) == {}


def test_an_unknown_lecture_is_named(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        execute.main(["77"])
    assert "no lecture in notebooks/ begins with 77" in capsys.readouterr().err


def test_a_changed_label_of_a_control_is_noticed() -> None:
    """A widget has a new name at each run; what stands in its place without a kernel is what counts."""
    view = "application/vnd.jupyter.widget-view+json"
    one, again, other = (
        nbformat.v4.new_output("display_data", {view: {"model_id": name}, "text/plain": text})
        for name, text in (("a1", "[interactive: step]"), ("b2", "[interactive: step]"), ("c3", "[interactive: size]"))
    )
    assert execute._said([one]) == execute._said([again]) != execute._said([other])
