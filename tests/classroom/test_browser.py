"""Every lecture as a reader meets it, in JupyterLab, and how quickly its figures follow a key. The exercises' notebooks are
in ``test_open_exercises.py``.

nbval executes the lectures in full length. Here their long computations are left out, and shortened where an interactive
figure shows what comes of them. Lecture 05 is opened as a machine with a GPU would run it, as far as a CPU can show: its
image size, its branches, few updates.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from browser import Crowding
from helpers import LECTURES, SHORTER

pytest.importorskip("nbval", reason="nbval is not installed: pip install -r requirements-test.txt")
pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-test.txt")
import notebook_pages  # noqa: E402
from nbval.plugin import IPyNbCell, IPyNbFile  # noqa: E402
from notebook_pages import (  # noqa: E402
    BROWSER_TEST,
    Lab,
    OpenNotebook,
    chosen_notebooks,
    figures_of,
    kernel_of,
    move_controls,
    run_side_by_side,
    tried,
)
from playwright.sync_api import Browser  # noqa: E402

lab, shelf = notebook_pages.lab, notebook_pages.shelf  # fixtures

# The gpu profile with 32 pixels and its name, which cells ask for; on the CPU, with small networks and 20 updates.
AS_ON_A_GPU = """
import course_utils.environment
course_utils.environment.PROFILES["cpu"] = course_utils.environment.Profile(
    "gpu", "cpu", size=32, width=8, batch_size=16, steps=20, seeds=(0, 1)
)
"""

LATENCY_GOAL = 150  # milliseconds from the key press to the new figure, median over all moves, on two free cores
LATENCY_LIMIT = 1.2 * LATENCY_GOAL  # beyond this, times the crowding, the test fails
LATENCIES: list[float] = []
CROWDING: list[float] = []  # in each move: how much longer it takes because of other programs, 1 if there are none


def test_cells_among_the_tests_are_no_notebooks_to_open(request: pytest.FixtureRequest) -> None:
    file = IPyNbFile.from_parent(request.session, path=LECTURES[0])
    cell = IPyNbCell.from_parent(file, name="Cell 0", cell_num=0, cell=nbformat.v4.new_code_cell(), options={})
    expected = [item for item in request.session.items if item.name.startswith(f"{BROWSER_TEST}[")]
    assert len(chosen_notebooks([cell, *request.session.items])) == len(expected)


def test_the_file_browser_shows_the_whole_course(chromium: Browser, lab: Lab) -> None:
    """README's command makes the repository the root: a reader can open the module that the lectures speak of."""
    with OpenNotebook(chromium, lab, f"notebooks/{LECTURES[0].name}") as notebook:
        files = notebook.page.locator(".jp-DirListing-item")
        files.get_by_text(LECTURES[0].name, exact=True).wait_for()
        notebook.page.locator(".jp-FileBrowser-crumbs [title='the course'], .jp-BreadCrumbs-home").first.click()
        files.get_by_text("course_utils", exact=True).dblclick()
        files.get_by_text("normalization.py", exact=True).wait_for()


# Long computations that interactive figures need. Other code tagged heavy is left out: no other cell needs it.
NEEDED = {"judge", "hook-config", "hook-train", "depth-bounds", "certificate-run", "real-layers", "real-train"}
NEEDED |= {"real-train-1", "real-train-2", "real-train-3", "real-gather", "real-table"}


def prepare(notebooks: Path) -> None:
    kept = set()
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        lecture, number = nbformat.read(path, as_version=4), path.name[:2]
        if number == "05":  # only the toy is left out: it has no images, and takes the longest
            lecture.cells = [cell for cell in lecture.cells if not cell.id.startswith("toy")]
            next(cell for cell in lecture.cells if cell.id == "setup").source += AS_ON_A_GPU
        else:
            heavy = {c.id for c in lecture.cells if c.cell_type == "code" and "heavy" in c.metadata.get("tags", [])}
            figures = {cell.id for cell in lecture.cells if "explore(" in cell.source}
            lecture.cells = [cell for cell in lecture.cells if cell.id not in heavy - figures - NEEDED]
            kept |= heavy & NEEDED
        for old, new in SHORTER.get(number, []):
            cells = [cell for cell in lecture.cells if cell.cell_type == "code" and old in cell.source]
            assert cells, f"{path.name} has no {old} any more"
            for cell in cells:
                cell.source = cell.source.replace(old, new)
        nbformat.write(lecture, path)
    assert kept == NEEDED, f"no long computation is called {', '.join(NEEDED - kept)}"


@pytest.mark.parametrize("path", LECTURES, ids=lambda p: p.stem)
def test_notebook_in_the_browser(path: Path, shelf: Callable, record_property: Callable) -> None:
    notebook = shelf(path)
    if path.name.startswith("05_"):  # every cell takes its sizes from the profile
        printed = "\n".join(notebook.printed())
        assert "real images: (60000, 1, 32, 32)" in printed and f"{20 // 4} updates of G" in printed
    line, measured = tried(notebook)
    assert measured, f"{path.name} has no interactive figure"
    latencies, crowding = zip(*measured)
    LATENCIES.extend(latencies)
    CROWDING.extend(crowding)
    line += f"; from key to figure {statistics.median(latencies):.0f} ms"
    line += f" (median; times {statistics.median(crowding):.2f} for other programs)"
    record_property("browser", line)


DRAW = "def draw(k=0):\n    fig, ax = plt.subplots(figsize=(3, 2))\n    "
FIGURES = {  # five in one notebook, and what is told of each
    "a slow one": (f"import time\n{DRAW}ax.plot([0, k])\n    time.sleep(0.5)", None),
    "a frozen text": (f"{DRAW}ax.plot([0, k])\n    k = 0", "text never changes"),
    "a frozen figure": (f"{DRAW}pass", "figure never changes"),
    "late binding": (f"scale = 1\n{DRAW}ax.plot([0, k])\n    k = k + scale", "shows"),
    "an error": (f"{DRAW}ax.plot([k, 1 / (k - 3)])", "ZeroDivisionError"),
}


@pytest.fixture(scope="module")
def broken(chromium: Browser, lab: Lab) -> Iterator[Callable]:
    """Moves the controls of one of FIGURES, all in a notebook that has run; returns the latencies in milliseconds."""
    head = "import sys; sys.path.insert(0, '..')\nimport matplotlib.pyplot as plt\nfrom course_utils.interactive import explore"
    tail = "\n    return fig, f'k = {k}'\nexplore(draw, alt='A line.', k=(0, 3, 1))"
    cells = [
        head,
        *(source + tail for source, _ in FIGURES.values()),
        "scale = 2",
    ]  # a global name is changed afterwards
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(nb, lab.course / "notebooks" / "broken.ipynb")
    with OpenNotebook(chromium, lab, "notebooks/broken.ipynb") as notebook:
        for failure in run_side_by_side([notebook]).values():
            raise failure
        with kernel_of(notebook) as kernel:
            names = figures_of(notebook, kernel)
            number = list(FIGURES).index
            yield lambda name: [ms for ms, _ in move_controls(notebook, kernel, number(name), names[number(name)])]
    lab.log.write_text("")  # it tells of the error


@pytest.mark.parametrize("name", [name for name, (_, complaint) in FIGURES.items() if complaint])
def test_a_broken_figure_makes_this_test_fail(name: str, broken: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_pages, "REDRAW_LIMIT", 5)  # nothing will come
    with pytest.raises(AssertionError, match=FIGURES[name][1]):
        broken(name)


def test_a_slow_figure_is_found_slow(broken: Callable) -> None:
    latencies = broken("a slow one")
    assert min(latencies) > 500
    with pytest.raises(AssertionError, match="limit 180 ms"):
        judge(latencies, [1.0])


def judge(latencies: list[float], crowding: list[float]) -> str:
    """What was measured, in a line. Fails if the median is beyond the limit, which grows with the crowd on the machine."""
    median, factor = statistics.median(latencies), max(1.0, statistics.median(crowding))
    nine_in_ten = sorted(latencies)[len(latencies) * 9 // 10]
    line = (
        f"from key press to new figure, {len(latencies)} moves: median {median:.0f} ms, nine in ten below "
        f"{nine_in_ten:.0f} ms (goal {LATENCY_GOAL} ms, limit {LATENCY_LIMIT:.0f} ms, times {factor:.2f} for other programs)"
    )
    assert median <= LATENCY_LIMIT * factor, line
    return line


def test_the_limit_of_the_latency() -> None:
    assert "median 140 ms" in judge([140.0] * 9, [1.0])
    assert "median 300 ms" in judge([300.0] * 9, [2.0])
    for slow, crowd in ((190.0, 1.0), (190.0, 0.5), (400.0, 2.0)):
        with pytest.raises(AssertionError, match="median"):
            judge([slow] * 9, [crowd])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_another_program_is_counted_and_a_pause_is_not() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # a program that this one starts shares the core with it
    other = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        crowding = Crowding()
        crowding.pids = [os.getpid()]
        crowding.begin()
        begun = time.process_time()
        while time.process_time() < begun + 0.3:
            pass
        assert crowding.factor() > 1.5
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, before)
    crowding.begin()
    begun = time.perf_counter()
    time.sleep(0.5)
    computed, waited = (now - then for now, then in zip(crowding._counted(), crowding.before))
    assert computed + waited < 0.5 * (time.perf_counter() - begun) * 1e9


def test_the_figure_follows_the_key_quickly(record_property: Callable) -> None:
    """The median over all moves in all lectures."""
    if not LATENCIES:
        pytest.skip("no lecture was opened in a browser")
    record_property("browser", judge(LATENCIES, CROWDING))
