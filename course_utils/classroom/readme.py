"""The README's figure is a lecture's stored one: ``python -m course_utils readme`` copies it (``--check`` only compares)."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
FIGURE, LECTURE, CELL = "data/readme_figure.png", "notebooks/05_gan_training.ipynb", "inside-figure"


def stored_figure(path: Path, cell_id: str) -> bytes:
    """The PNG that the cell ``cell_id`` of the notebook at ``path`` has stored; ValueError unless it has one."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.id == cell_id]
    outputs = cells[0].get("outputs", []) if cells else []
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    if len(figures) != 1:
        raise ValueError(f"{path.name} must have a cell {cell_id} with one stored figure, got {len(figures)}")
    return base64.b64decode(figures[0])


def main(arguments: list[str]) -> int:
    """Write README's figure, or with ``--check`` say whether it is the stored one; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_utils readme", description="Copy README's figure from the lecture that draws it."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the figure is the stored one")
    options = parser.parse_args(arguments)
    png, path = stored_figure(ROOT / LECTURE, CELL), ROOT / FIGURE
    if path.exists() and path.read_bytes() == png:
        return 0
    if options.check:
        print(f"{FIGURE} is not the figure that {LECTURE} has stored: run python -m course_utils readme")
        return 1
    path.write_bytes(png)
    print("wrote", FIGURE)
    return 0
