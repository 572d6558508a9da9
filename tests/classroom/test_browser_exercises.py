"""Every notebook of exercises as a student meets it, in JupyterLab: untouched, Run All, and each control moved."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import EXERCISES

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-test.txt")
import notebook_pages  # noqa: E402

lab, shelf = notebook_pages.lab, notebook_pages.shelf  # fixtures


@pytest.mark.parametrize("path", EXERCISES, ids=lambda p: p.stem)
def test_notebook_in_the_browser(path: Path, shelf: Callable, record_property: Callable) -> None:
    line, _ = notebook_pages.tried(shelf(path))
    record_property("browser", line)
