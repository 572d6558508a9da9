"""The look of figures, and the helper for interactive ones, without a browser."""

import base64
import inspect
import io
import itertools
import weakref

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from course_utils import interactive, plotting
from course_utils.interactive import explore
from course_utils.methods import METHODS


class Page:
    """Takes the place of ``display`` and records what a reader would see."""

    def __init__(self) -> None:
        self.outputs: list[dict] = []
        self.metadata: list[dict] = []

    def __call__(self, data: dict, metadata: dict | None = None, raw: bool = False, display_id: str = "") -> "Handle":
        assert raw
        self.outputs.append(data)
        self.metadata.append(metadata or {})
        return Handle(self, len(self.outputs) - 1)


class Handle:
    def __init__(self, page: Page, number: int) -> None:
        self.page, self.number = page, number

    def update(self, data: dict, metadata: dict | None = None, raw: bool = False) -> None:
        assert raw
        self.page.outputs[self.number] = data
        self.page.metadata[self.number] = metadata or {}


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Page:
    recorder = Page()
    monkeypatch.setattr(plotting, "display", recorder)
    monkeypatch.setattr(interactive, "display", recorder)
    monkeypatch.setattr(interactive, "FIGURES", [])
    return recorder


def picture(data: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data["image/png"])))


def line(k: float = 0.0) -> plt.Figure:
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, k])
    return fig


def test_show_stores_the_alt_text_and_closes_the_figure(output: Page) -> None:
    before = plt.get_fignums()
    plotting.show(line(), alt="A flat line.")
    assert plt.get_fignums() == before
    assert output.outputs[0]["text/plain"] == "[figure: A flat line.]"
    assert output.metadata[0] == {"image/png": {"alt": "A flat line."}}
    assert picture(output.outputs[0]).size == (300, 200)
    assert picture(output.outputs[0]).getpixel((0, 0)) == (255, 255, 255)


def test_figures_of_one_size_leave_no_trace_on_each_other() -> None:
    alone = plotting.to_png(line(2.0))
    plotting._canvas.cache_clear()
    for k in (1.0, 3.0):
        assert plotting.to_png(line(k)) != alone
    assert plotting.to_png(line(2.0)) == alone


@pytest.mark.parametrize("alt", ["", "  "])
def test_show_wants_an_alt_text(alt: str, output: Page) -> None:
    with pytest.raises(ValueError, match="alt text"):
        plotting.show(line(), alt=alt)


def noise(side: int) -> plt.Figure:
    fig, ax = plt.subplots(figsize=(6, 6))
    rng = np.random.default_rng(0)
    ax.imshow(rng.random((side, side, 3)), interpolation="bilinear" if side < 100 else "nearest")
    return fig


@pytest.mark.slow
def test_many_colours_are_reduced_until_the_picture_fits(output: Page) -> None:
    assert len(plotting.to_png(noise(20), max_bytes=None)) > plotting.MAX_BYTES
    plotting.show(noise(20), alt="Coloured noise.")
    assert len(base64.b64decode(output.outputs[0]["image/png"])) <= plotting.MAX_BYTES


@pytest.mark.slow
def test_a_picture_that_cannot_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="80000 are allowed"):
        plotting.to_png(noise(600))


def test_methods_differ_in_colour_and_marker_and_line() -> None:
    for a, b in itertools.combinations([method.style for method in METHODS.values()], 2):
        assert a["color"] != b["color"] and a["marker"] != b["marker"] and a["label"] != b["label"]
        assert a["linestyle"] != b["linestyle"]


def example(x: int) -> int:
    """Return x.

    More.
    """
    # a comment
    y = x  # "not a docstring"
    return y


class Example:
    """A class."""

    def method(self) -> str:
        """A method."""
        return """text"""


def test_show_source(output: Page) -> None:
    plotting.show_source(example, Example)
    source = output.outputs[0]["text/plain"]
    assert source == inspect.getsource(example).rstrip() + "\n\n" + inspect.getsource(Example).rstrip()
    assert output.outputs[0]["text/markdown"] == f"```python\n{source}\n```"
    plotting.show_source(example, Example, docstring=False)
    source = output.outputs[1]["text/plain"]
    assert "Return x" not in source and "A class" not in source and "A method" not in source
    assert "    # a comment\n    y = x" in source and '"""text"""' in source
    compile(source, "shown", "exec")


def test_image_grid_places_images_row_by_row() -> None:
    images = torch.stack([torch.full((1, 2, 2), value) for value in (-1.0, 0.0, 1.0)])
    fig, ax = plt.subplots()
    assert plotting.image_grid(images, ax, n_columns=2) is ax
    drawn = ax.images[0].get_array()
    assert drawn.shape == (5, 5)
    assert drawn[0, 0] == 0 and drawn[0, 3] == 0.5 and drawn[3, 0] == 1 and drawn[4, 4] == 1
    plotting.image_grid(torch.zeros(2, 3, 4, 4), ax)
    plt.close(fig)


def test_curve_with_band_shows_mean_and_range() -> None:
    fig, ax = plt.subplots()
    values = np.array([[1.0, 2.0], [3.0, 6.0]])
    plotting.curve_with_band(ax, [0, 1], values, "spectral_norm")
    assert ax.lines[0].get_ydata().tolist() == [2.0, 4.0]
    assert ax.lines[0].get_color() == METHODS["spectral_norm"].color
    extent = ax.collections[0].get_datalim(ax.transData)
    assert (extent.y0, extent.y1) == (1.0, 6.0)
    plotting.spectrum_lines(ax, {"none": np.array([1.0, 0.5]), "weight_norm": values})
    assert len(ax.lines) == 3
    plt.close(fig)


def guarded(x, rows):
    require_whole = require_all = lambda *_: None  # stand-ins for those of validation.py
    require_whole(x, "x")
    x = require_whole(x, "x")
    for row in rows:
        require_all(row)
    if x > 1:
        require_whole(
            x,
            "x",
        )
        x = 1
    return x  # fmt: skip


def test_show_source_leaves_the_checks_of_arguments_out(output: Page) -> None:
    plotting.show_source(guarded)
    lines = output.outputs[0]["text/plain"].split("\n")
    assert [line.strip() for line in lines if "stand-ins" not in line] == [
        "def guarded(x, rows):", "if x > 1:", "x = 1", "return x",
    ]  # fmt: skip


def test_explore_shows_figure_and_text_before_the_controls(output: Page) -> None:
    def draw(k: int = 1, other: int = 5, word: str = "b", tick: bool = False) -> tuple[plt.Figure, str]:
        return line(k), f"{k} {other} {word} {tick}"

    explore(draw, alt="A line.", k=(0, 3, 1), other=[2, 5], word=["a", "b"], tick=bool, labels={"k": "slope k"})
    figure, text, controls = output.outputs
    assert picture(figure).size == (300, 200) and text == {"text/plain": "1 5 b False"}
    assert controls["text/plain"] == "[interactive: slope k, other, word, tick - run the notebook to use the controls]"
    assert "application/vnd.jupyter.widget-view+json" in controls
    (_, items) = interactive.FIGURES[0]
    kinds = [widgets.IntSlider, widgets.SelectionSlider, widgets.SelectionSlider, widgets.Checkbox]
    assert [type(item) for item in items.values()] == kinds

    items["k"].value = 3
    items["tick"].value = True
    assert output.outputs[1] == {"text/plain": "3 5 b True"}
    assert output.outputs[0]["image/png"] != figure["image/png"] and output.metadata[0] == {
        "image/png": {"alt": "A line."}
    }
    assert plt.get_fignums() == []


def test_an_error_in_draw_is_shown_and_does_not_last(output: Page) -> None:
    def draw(k: float = 1.0) -> tuple[plt.Figure, str]:
        return line(), f"{1 / k:.1f}"

    explore(draw, alt="A line.", k=(0.0, 2.0, 0.5))
    slider = interactive.FIGURES[0][1]["k"]
    slider.value = 0.0
    assert "ZeroDivisionError" in output.outputs[1]["application/vnd.jupyter.stderr"]
    slider.value = 2.0
    assert output.outputs[1] == {"text/plain": "0.5"}
    plt.close("all")


def test_an_error_at_the_default_values_stops_the_cell(output: Page) -> None:
    with pytest.raises(ZeroDivisionError):
        explore(lambda k=0: (line(), str(1 / k)), alt="A line.", k=(0, 2, 1))
    plt.close("all")


@pytest.mark.parametrize("draw", [lambda k: (line(), ""), lambda other=1: (line(), "")])
def test_each_control_needs_an_argument_with_a_default(draw: object, output: Page) -> None:
    with pytest.raises(TypeError, match="not so: k"):
        explore(draw, alt="A line.", k=(0, 2, 1))


def test_the_axes_stay_where_they_are(output: Page) -> None:
    places = []

    def draw(k: int = 1) -> tuple[plt.Figure, str]:
        fig, ax = plt.subplots(figsize=(4, 3))
        ax.plot([0, 10**k])
        places.append(fig)
        return fig, str(k)

    explore(draw, alt="A line.", k=(1, 9, 8))
    interactive.FIGURES[0][1]["k"].value = 9
    first, second = (fig.axes[0].get_position().bounds for fig in places)
    assert first == pytest.approx(second)


@pytest.mark.parametrize(
    ("default", "control", "message"),
    [
        (1, (5, 9, 1), "the default of k must be from 5 to 9 in steps of 1, as its control is, got 1"),
        (10, (5, 9, 1), "from 5 to 9 .*got 10"),
        (0.3, (0.0, 1.0, 0.25), "in steps of 0.25, .*got 0.3"),
        ("5", (5, 9, 1), "got '5'"),
        (3, [1, 2], r"one of \[1, 2\], as its control is, got 3"),
        (None, bool, "must be True or False, as its control is, got None"),
    ],
)
def test_a_default_that_the_control_cannot_show_is_named(
    default: object, control: object, message: str, output: Page
) -> None:
    with pytest.raises(ValueError, match=message):
        explore(lambda k=default: (line(), ""), alt="A line.", k=control)
    assert output.outputs == [] and interactive.FIGURES == []


def test_steps_of_a_tenth_are_met_in_spite_of_rounding(output: Page) -> None:
    explore(lambda k=0.7: (line(k), ""), alt="A line.", k=(0.1, 1.0, 0.1))
    assert interactive.FIGURES[0][1]["k"].value == 0.7


class Data:
    """Something large that a figure holds."""


def show_large(alt: str = "A line.") -> weakref.ref:
    """What a cell does in which a figure holds data."""
    data = Data()

    def draw(k: int = 1, data: Data = data) -> tuple[plt.Figure, str]:
        return line(k), str(k)

    explore(draw, alt=alt, k=(0, 3, 1))
    return weakref.ref(data)


@pytest.mark.slow
def test_a_cell_that_is_run_again_lets_its_old_data_go(output: Page) -> None:
    runs = [show_large() for _ in range(5)]
    assert [run() is not None for run in runs] == [False] * 4 + [True] and len(interactive.FIGURES) == 1
    interactive.FIGURES[0][1]["k"].value = 3
    assert output.outputs[-2] == {"text/plain": "3"}


@pytest.mark.slow
def test_figures_of_other_cells_and_of_the_same_run_stay(output: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        def __init__(self, cell: str, run: str) -> None:
            self.parent = {"metadata": {"cellId": cell}, "header": {"msg_id": run}}

        def get_parent(self) -> dict:
            return self.parent

    def cell(name: str, run: str, alts: list[str]) -> list[weakref.ref]:
        monkeypatch.setattr(interactive, "get_ipython", lambda: Shell(name, run))
        return [show_large(alt) for alt in alts]

    first, copy = cell("one", "run 1", ["a", "a", "b"]), cell("two", "run 2", ["a"])
    assert all(figure() for figure in first + copy) and len(interactive.FIGURES) == 4
    again = cell("one", "run 3", ["another text"])
    assert [bool(figure()) for figure in first + copy + again] == [False] * 3 + [True] * 2
    assert len(interactive.FIGURES) == 2
