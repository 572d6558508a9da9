"""Every notebook of exercises as a student meets it, in JupyterLab: Run All with its holes open, each figure moved.

Below each hole scratch variables are set, as a student would. Nothing may depend on a name that they take. One control of
each figure is enough: all of them are moved in the lecture, which draws with the same functions.
"""

import re
import string
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from helpers import EXERCISES

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-test.txt")
import notebook_pages  # noqa: E402

lab, shelf = notebook_pages.lab, notebook_pages.shelf  # fixtures

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


def prepare(notebooks: Path) -> None:
    for path in (notebooks / "exercises").glob("*.ipynb"):
        nb = nbformat.read(path, as_version=4)
        cells, nb.cells = nb.cells, []
        for cell in cells:
            nb.cells.append(cell)
            if cell.metadata.get("nbgrader", {}).get("solution"):
                names = [
                    name for name in SCRATCH if not re.search(rf"^(def|class) {name}\b", cell.source, re.MULTILINE)
                ]
                nb.cells.append(nbformat.v4.new_code_cell(" = ".join(names) + " = 'scratch'"))
        nbformat.write(nb, path)


@pytest.mark.parametrize("path", EXERCISES, ids=lambda p: p.stem)
def test_notebook_in_the_browser(path: Path, shelf: Callable, record_property: Callable) -> None:
    notebook = shelf(path)
    nb = nbformat.read(path, as_version=4)
    checks = [cell.source for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    told = [text.strip() for text in notebook.printed() if text.startswith("Exercise ")]
    numbers = [re.fullmatch(r"Exercise (\S+) \([^\n]*\): not attempted yet\.", text)[1] for text in told]
    assert numbers == [re.search(r"""\bcheck\(\s*["']([^"']+)["']""", source)[1] for source in checks] != []
    line, _ = notebook_pages.tried(notebook, most=1)
    record_property("browser", line)
