"""The setup cell: the same first lines in every notebook, at work from the course's folder downwards, a sentence elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.classroom import setup_cell
from course_utils.classroom.setup_cell import LOCKED, NOTEBOOKS, SETUP, with_setup

ROOT = NOTEBOOKS.parent
PAGES = setup_cell.with_template(NOTEBOOKS) + sorted(NOTEBOOKS.glob("exercises/[0-9][0-9]_*.ipynb"))
OLD = """import math
import sys
from pathlib import Path

sys.path.insert(0, str(next(p for p in Path.cwd().resolve().parents if (p / "course_utils").is_dir())))
import torch
"""


def run(folder: Path, source: str = SETUP) -> subprocess.CompletedProcess:
    """The setup cell in a fresh Python whose current folder is ``folder``."""
    source += "import importlib.util; print(importlib.util.find_spec('course_utils.data').origin)"
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-P", "-c", source], cwd=folder, env=settings, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(NOTEBOOKS)))
def test_every_notebook_begins_with_the_same_setup(path: Path) -> None:
    nb = nbformat.read(path, as_version=4)
    cell = setup_cell.setup_cell(nb)
    assert cell.source.startswith(SETUP) and cell.source.count("sys.path.insert") == 1
    assert cell.metadata.nbgrader == LOCKED, "a deleted or edited setup cell cannot be put back"
    assert cell is next(cell for cell in nb.cells if cell.cell_type == "code")


@pytest.mark.parametrize("below", [".", "notebooks", "notebooks/exercises", "course_utils", "data/FashionMNIST"])
def test_it_works_in_the_course_folder_and_below(below: str) -> None:
    result = run(ROOT / below)
    assert result.stdout.strip() == str(ROOT / "course_utils" / "data.py"), result.stderr


@pytest.mark.parametrize("stray", [False, True])
def test_elsewhere_a_sentence_names_the_folder_and_the_way_out(tmp_path: Path, stray: bool) -> None:
    if stray:  # an empty folder of this name is not the course
        (tmp_path / "course_utils").mkdir()
    result = run(tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("FileNotFoundError: No course_utils in") and str(tmp_path) in last
    assert "must lie in the course's folder, or in one below it" in last


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")
def test_through_a_link_to_the_notebooks(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(NOTEBOOKS)
    assert run(tmp_path / "link").returncode == 0


def test_an_old_cell_keeps_its_imports_and_a_new_one_stays() -> None:
    new = with_setup(OLD)
    assert new == SETUP + "import math\nimport torch"
    assert with_setup(new) == new
    with pytest.raises(ValueError, match="this one has none"):
        with_setup("import torch")


def test_the_command_writes_what_it_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    lecture = tmp_path / "00_a.ipynb"
    shutil.copy(PAGES[0], lecture)
    nb = nbformat.read(lecture, as_version=4)
    setup_cell.setup_cell(nb).source = OLD
    nbformat.write(nb, lecture)
    monkeypatch.setattr(setup_cell, "NOTEBOOKS", tmp_path)
    assert setup_cell.main(["--check"]) == 1 and "00_a.ipynb" in capsys.readouterr().out
    assert setup_cell.main([]) == 0 and setup_cell.main(["--check"]) == 0
    with pytest.raises(SystemExit) as stop:
        setup_cell.main(["--chekc"])
    assert stop.value.code == 2
