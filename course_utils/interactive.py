"""Figures that a reader can turn by hand: a function that draws, and a control for each of its arguments.

    def draw(angle=0, size=4):                  # the defaults give the figure that stands on the page
        fig, ax = plt.subplots(figsize=(7, 3))  # ...
        return fig, f"stretch {s:.3f}"          # the figure, and the numbers behind it

    explore(draw, alt="A circle and the ellipse ...", angle=(0, 180, 5), size=[2, 4, 8])

Figure and text come first, as ordinary outputs, so a page without a kernel (GitHub, paper, slides) lacks nothing. The
controls follow; moving one redraws both. To answer within 150 ms ``draw`` computes outside what does not change, its
axes have few ticks (a logarithmic one no minor ones), and it reads nothing that a later cell overwrites.
"""

import gc
import inspect
import traceback
import uuid
from collections.abc import Callable

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from .plotting import png_bundle, to_png

FIGURES: list[tuple] = []  # (draw, {name: widget}) of each figure on the page, for the browser tests
_SHOWN: dict[object, tuple[object, list]] = {}  # by cell: the number of its last execution, and what to take away
_STYLE = "<style>.course-controls {--jp-widgets-font-size: 16px; --jp-widgets-inline-height: 34px}"
_STYLE += " .course-controls .widget-readout {min-width: 9em}</style>"


def explore(draw: Callable[..., tuple[Figure, str]], *, alt: str, labels: dict | None = None, **controls) -> None:
    """Show ``draw``'s figure and text for its default arguments, then one control per argument.

    alt: what the figure shows, in a sentence. labels: what to write beside a control (its name otherwise).
    controls, by argument: ``(low, high, step)`` a slider (whole numbers if all three are); a list: a slider through its
    values (in a menu JupyterLab would take the arrow keys away); ``bool``: a box to tick, say to reveal an answer.
    A cell that is run again takes the figures of its last run away, with the data that they hold.
    Raises TypeError if a control names no argument of ``draw`` with a default value, ValueError if the control cannot
    take that value.
    """
    parameters = inspect.signature(draw).parameters
    if missing := [n for n in controls if n not in parameters or parameters[n].default is inspect.Parameter.empty]:
        raise TypeError(f"a control needs an argument of draw with a default value; not so: {', '.join(missing)}")
    for name, spec in controls.items():
        _check_default(name, spec, parameters[name].default)
    shown = _of_this_cell(draw, alt)
    gc.unfreeze()  # what an earlier figure left behind can go
    gc.collect()  # torch alone brings some 400,000 objects: a slider would halt for a fifth of a second
    gc.freeze()  # now and then, while Python looks through all of them for garbage
    values = {name: parameters[name].default for name in controls}
    fig, text = draw(**values)
    data, metadata = png_bundle(to_png(fig), alt)
    places = [ax.get_position(original=True) for ax in fig.axes]  # later figures keep them: nothing jumps
    picture = display(data, metadata=metadata, raw=True, display_id=uuid.uuid4().hex)
    numbers = display({"text/plain": text}, raw=True, display_id=uuid.uuid4().hex)
    items = {n: _control(spec, values[n], (labels or {}).get(n, n.replace("_", " "))) for n, spec in controls.items()}

    def redraw(_change: object) -> None:
        try:
            fig, text = draw(**{name: item.value for name, item in items.items()})
            fig.set_layout_engine("none")
            for ax, place in zip(fig.axes, places, strict=False):
                ax.set_position(place)
            data, metadata = png_bundle(to_png(fig, max_bytes=None), alt)
            picture.update(data, metadata=metadata, raw=True)
            numbers.update({"text/plain": text}, raw=True)
        except Exception:  # no cell would show it: put it where the reader looks
            numbers.update({"application/vnd.jupyter.stderr": traceback.format_exc()}, raw=True)

    for item in items.values():
        item.observe(redraw, "value")
    FIGURES.append((draw, items))
    box = widgets.VBox([widgets.HTML(_STYLE), *items.values()]).add_class("course-controls")
    shown.append((FIGURES[-1], box))
    note = f"[interactive: {', '.join(i.description for i in items.values())} - run the notebook to use the controls]"
    display({**box._repr_mimebundle_(), "text/plain": note}, raw=True)


def _of_this_cell(draw: Callable, alt: str) -> list:
    """The list for the figures of the cell that is running, after those of its last run were taken away.

    A notebook tells a cell by its id. Where there is none, ``draw``'s name and ``alt`` have to do.
    """
    shell = get_ipython()
    parent = getattr(shell, "get_parent", dict)() or {}
    cell = parent.get("metadata", {}).get("cellId") or (getattr(draw, "__qualname__", ""), alt)
    run = parent.get("header", {}).get("msg_id") or object()
    if cell in _SHOWN and _SHOWN[cell][0] != run:
        for figure, box in _SHOWN.pop(cell)[1]:
            FIGURES[:] = [other for other in FIGURES if other is not figure]
            for item in (*box.children, box):
                item.unobserve_all()
                item.close()
    return _SHOWN.setdefault(cell, (run, []))[1]


def _check_default(name: str, spec: tuple | list | type, value: object) -> None:
    """Raise ValueError unless a control of this kind can show ``value``: figure and control would disagree."""
    if spec is bool:
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(spec, list):
        fits, wanted = value in spec, f"one of {spec}"
    else:
        low, high, step = spec
        wanted = f"from {low} to {high} in steps of {step}"
        try:
            steps = (value - low) / step
            fits = low <= value <= high and abs(steps - round(steps)) < 1e-6
        except TypeError:
            fits = False
    if not fits:
        raise ValueError(f"the default of {name} must be {wanted}, as its control is, got {value!r}")


def _control(spec: tuple | list | type, value: object, label: str) -> widgets.Widget:
    wide = {"description": label, "layout": {"width": "98%"}, "style": {"description_width": "18em"}, "value": value}
    if spec is bool:
        return widgets.Checkbox(**wide | {"style": {"description_width": "0"}})
    if isinstance(spec, list):
        return widgets.SelectionSlider(options=spec, **wide)
    whole = all(isinstance(number, int) for number in spec)
    return (widgets.IntSlider if whole else widgets.FloatSlider)(min=spec[0], max=spec[1], step=spec[2], **wide)
