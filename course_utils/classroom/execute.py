"""Run lectures from top to bottom in fresh kernels and store what comes: ``python -m course_utils execute 03``.

``data/figure_styles.json`` has, for each lecture, digests of the style in which its stored figures were drawn. So a change
of the style is noticed, though no test compares pictures: ``--check`` lists the lectures whose figures are of another one.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from .. import plotting
from ..methods import METHODS
from .setup_cell import with_template

ROOT = Path(__file__).resolve().parents[2]
STYLES = ROOT / "data" / "figure_styles.json"
DRAWING = (plotting.to_png, plotting.image_grid, plotting.spectrum_lines, plotting.curve_with_band)
# As in the tests: the laptop's numbers, one thread, and a solution that its own check refuses is an error.
ENVIRONMENT = {"COURSE_PROFILE": "cpu", "COURSE_STRICT": "1", "OMP_NUM_THREADS": "1"}


def style() -> dict[str, str]:
    """A digest of each part of what the figures share: matplotlib's settings, colours, looks of the methods, drawing functions.

    Comments, docstrings and line breaks of the functions do not count.
    """
    parts = {"settings": sorted(plotting.STYLE.items())}
    parts |= {name: value for name, value in vars(plotting).items() if name.isupper() and str(value).startswith("#")}
    parts |= {name: method.style for name, method in METHODS.items()}
    for function in DRAWING:
        (tree,) = ast.parse(inspect.getsource(function)).body
        tree.body = tree.body[1:]  # without the docstring
        parts[function.__name__] = ast.unparse(tree)
    return {name: hashlib.sha256(repr(part).encode()).hexdigest()[:8] for name, part in parts.items()}


def changed_since(drawn: dict[str, str]) -> list[str]:
    """The parts of the style that are no longer what they were when ``drawn`` was noted; one that came since does not count."""
    now = style()
    return [part for part, digest in drawn.items() if now.get(part) != digest]


def recorded_styles() -> dict[str, dict[str, str]]:
    """For each lecture (its file's stem) the style in which its stored figures were drawn."""
    return json.loads(STYLES.read_text(encoding="utf-8"))


def note_style(stem: str) -> None:
    """Note that the figures of the lecture ``stem`` are of today's style."""
    styles = {**recorded_styles(), stem: style()}
    rows = (f"{json.dumps(name)}: {json.dumps(styles[name])}" for name in sorted(styles))
    STYLES.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8", newline="\n")


def execute(nb: NotebookNode, folder: Path) -> NotebookNode:
    """``nb`` as it looks after a run from top to bottom in a fresh kernel that works in ``folder``.

    A cell whose outputs say what the stored ones said keeps those: widgets get new random names at each run. Raises
    CellExecutionError at the first cell that fails.
    """
    new = nbformat.from_dict(nb)
    with tempfile.TemporaryDirectory() as no_settings:
        client = NotebookClient(
            new, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
            record_timing=False, store_widget_state=False, coalesce_streams=True, extra_arguments=["--log-level=ERROR"],
        )  # fmt: skip
        client.execute(env={**os.environ, **ENVIRONMENT, "IPYTHONDIR": no_settings})
    for cell, before in zip(new.cells, nb.cells):
        if cell.cell_type == "code" and _said(cell.outputs) == _said(before.outputs):
            cell.outputs = before.outputs
    new.metadata = nb.metadata  # the kernel would add its version
    return new


def _said(outputs: list[NotebookNode]) -> list:
    """What outputs say, whether a text came in one piece or in several, whatever a widget is called or a check measured."""
    said: list = []
    for output in outputs:
        if output.output_type == "stream" and said and said[-1][0] == output.name:
            said[-1] = (output.name, said[-1][1] + _no_error(output.text))
        elif output.output_type == "stream":
            said.append((output.name, _no_error(output.text)))
        elif "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            said.append(("widget", output.data.get("text/plain")))
        else:
            said.append((output.output_type, {k: v for k, v in output.items() if k != "execution_count"}))
    return said


def _no_error(text: str) -> str:
    return re.sub(r"(?<=: right) \(largest error [^)]*\)", "", text)  # of a check: fresh random numbers each time


def report_old_figures(stems: list[str]) -> int:
    """Print which of the lectures have figures of an older style, and in what it differs; return how many."""
    styles, old = recorded_styles(), 0
    for stem in stems:
        changed = changed_since(styles[stem]) if stem in styles else ["it was never executed by this command"]
        if changed:
            old += 1
            print(f"old figures in {stem} ({', '.join(changed)}): run python -m course_utils execute {stem[:2]}")
    return old


def main(arguments: list[str]) -> int:
    """Execute the lectures that the command line names, or with ``--check`` list old figures; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_utils execute", description="Run lectures in fresh kernels and store their outputs."
    )
    parser.add_argument("lecture", nargs="*", help="number or beginning of the name, such as 03; all if none is given")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; list lectures with figures of an older style"
    )
    options = parser.parse_args(arguments)
    wanted = tuple(options.lecture) or ("",)
    paths = [path for path in with_template(ROOT / "notebooks") if path.name.startswith(wanted)]
    if not paths:
        parser.error(f"no lecture in notebooks/ begins with {' or '.join(wanted)}")
    if options.check:
        return min(1, report_old_figures([path.stem for path in paths]))
    for path in paths:
        try:
            nb = execute(nbformat.read(path, as_version=4), path.parent)
        except (CellExecutionError, DeadKernelError, TimeoutError) as error:
            print(f"{path.name} is left as it was: {error}", file=sys.stderr)
            return 1
        path.write_text(nbformat.writes(nb) + "\n", encoding="utf-8", newline="\n")
        note_style(path.stem)
        print("ran", path.name)
    return 0
