"""Every notebook of exercises with its holes open, run in a kernel: nothing stops, and its figures can still be moved.

Below each hole scratch variables are set, as a student would. Nothing may depend on a name that they take. In a browser
the same cells and figures are in the lectures (``test_browser.py``).
"""

import os
import re
import string
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from helpers import AT_ONCE, EXERCISES
from nbclient import NotebookClient

# What a student calls the things that are tried beside a hole. (F is torch.nn.functional, everywhere in the course.)
SCRATCH = [letter for letter in string.ascii_letters if letter != "F"]
SCRATCH += """a1 acc accuracy alpha angle angles answer answers arc axes axis b1 basis batch best beta bias big bound bounds c1
    cell cells check_value circle coefficient column columns config copy core cos cost count counts curve curves d_in d_out
    data data_loader delta depth depths derivative device diff direction dist distance dx eig eigenvalues eps epsilon err
    error errors eta exact example expectation expected f_fake f_real factor fake fakes fast features fig final fixed full gap gaps gamma
    gen generator grad gradient gradients grid hat head here hidden history i1 identity idx images index indices init inner
    input_size inputs item items iterations j k1 kernel kernels key keys kinds kl label labels lam lambd large last latent
    layer layers left length lengths lhs limit line lines logits loss losses low lr m1 mask mat matrices matrix maximum
    mean means measure metric metrics middle minimum mod model models n1 n_steps name names net network networks new noise
    norm normalized norms num number numbers off old one ones opt optimizer orders outer output outputs p1 pair pairs
    parallel params part path pattern penalty_value per phi pic plain plotting pool power powers pred prob probs prod
    product products pull q1 Q1 Q2 qr r1 radii radius rand random randn rank rate ratio ratios real real_images record
    records res rest result results rho right rng root rotation row rows run runs s1 s2 sample samples scale scores seed
    seeds shape short shown sigma sigma1 sigma2 sigmas sign signs sin size sizes slope slopes small sn sn_weight softplus
    sol solution spectra spectral spectrum start starts state states std step steps stride stuff sums svd t1 table tangent
    target targets temp tensor term terms test test2 theta tied time times tmp top total trace train_set training true
    truth turned turns two u1 u2 uniform unit v1 v2 val vals value values var variance vec vector vectors w1 w2 W1 W2
    W_bar W_sn walk weight weights width x1 x2 xs y1 y2 ys z1 zeros""".split()

# Figures are drawn, and not painted: that alone would take a third of the time.
NO_PAINT = """from course_utils import interactive, plotting
interactive.to_png = plotting.to_png = lambda *args, **options: b"png" """

# Each control at both its ends, and what the figure then says, a line for each control.
MOVE = """import matplotlib.pyplot
from course_utils.interactive import FIGURES
for number, (draw, controls) in enumerate(FIGURES, start=1):
    for control in controls.values():
        before, texts = control.value, []
        ends = getattr(control, "options", None) or (getattr(control, "min", False), getattr(control, "max", True))
        for value in (ends[0], ends[-1], before):
            control.value = value
            texts.append(draw(**{name: other.value for name, other in controls.items()})[1])
            matplotlib.pyplot.close("all")
        print(f"figure {number}, {control.description}: {'moves' if len(set(texts)) > 1 else texts}")
"""


def run_with_scratch(path: Path) -> nbformat.NotebookNode:
    """The notebook, executed with its holes open, scratch variables below each of them, and MOVE at its end."""
    nb = nbformat.read(path, as_version=4)
    cells, nb.cells = nb.cells, []
    for cell in cells:
        nb.cells.append(cell)
        if cell.id == "setup":
            nb.cells.append(nbformat.v4.new_code_cell(NO_PAINT))
        if cell.metadata.get("nbgrader", {}).get("solution"):
            names = [name for name in SCRATCH if not re.search(rf"^(def|class) {name}\b", cell.source, re.MULTILINE)]
            nb.cells.append(nbformat.v4.new_code_cell(" = ".join(names) + " = 'scratch'"))
    nb.cells.append(nbformat.v4.new_code_cell(MOVE))
    relaxed = {k: v for k, v in os.environ.items() if k not in ("COURSE_STRICT", "NBGRADER_EXECUTION")}
    client = NotebookClient(nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=relaxed)
    return nb


@pytest.fixture(scope="module")
def executed(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future]]:
    """The chosen notebooks, executed on all cores that these tests have: each takes one."""
    test = "test_open_holes_and_scratch_variables_stop_nothing"
    names = {item.name for item in request.session.items}
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        yield {path: pool.submit(run_with_scratch, path) for path in EXERCISES if f"{test}[{path.stem}]" in names}


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)
def test_open_holes_and_scratch_variables_stop_nothing(path: Path, executed: dict[Path, Future]) -> None:
    nb = executed[path].result()
    checks = [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert checks
    for cell in checks:
        printed = "".join(output.get("text", output.output_type) for output in cell.outputs)
        number = re.search(r"""\bcheck\(\s*["']([^"']+)["']""", cell.source)[1]
        told = rf"Exercise {re.escape(number)} \([^\n]*\): not attempted yet\.\n"
        assert re.fullmatch(told, printed), f"{cell.id}: {printed}"
    shown = sum("explore(" in cell.source for cell in nb.cells if cell.cell_type == "code" and cell.source != MOVE)
    moved = "".join(output.get("text", "") for output in nb.cells[-1].outputs).splitlines()
    assert {line.split(",")[0] for line in moved} == {f"figure {number}" for number in range(1, shown + 1)}
    assert not [line for line in moved if not line.endswith(": moves")]
    alarm = "application/vnd.jupyter.stderr"
    assert not [o.data[alarm] for cell in nb.cells for o in cell.get("outputs", []) if alarm in o.get("data", {})]
