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
from IPython.display import display
from matplotlib.figure import Figure

from .plotting import png_bundle, to_png

FIGURES: list[tuple] = []  # (draw, {name: widget}) of each figure of this session, for the browser tests
_STYLE = "<style>.course-controls {--jp-widgets-font-size: 16px; --jp-widgets-inline-height: 34px}"
_STYLE += " .course-controls .widget-readout {min-width: 9em}</style>"


def explore(draw: Callable[..., tuple[Figure, str]], *, alt: str, labels: dict | None = None, **controls) -> None:
    """Show ``draw``'s figure and text for its default arguments, then one control per argument.

    alt: what the figure shows, in a sentence. labels: what to write beside a control (its name otherwise).
    controls, by argument: ``(low, high, step)`` a slider (whole numbers if all three are); a list: a slider through its
    values (in a menu JupyterLab would take the arrow keys away); ``bool``: a box to tick, say to reveal an answer.
    Raises TypeError if a control names no argument of ``draw`` with a default value.
    """
    parameters = inspect.signature(draw).parameters
    if missing := [n for n in controls if n not in parameters or parameters[n].default is inspect.Parameter.empty]:
        raise TypeError(f"a control needs an argument of draw with a default value; not so: {', '.join(missing)}")
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
    note = f"[interactive: {', '.join(i.description for i in items.values())} - run the notebook to use the controls]"
    display({**box._repr_mimebundle_(), "text/plain": note}, raw=True)


def _control(spec: tuple | list | type, value: object, label: str) -> widgets.Widget:
    wide = {"description": label, "layout": {"width": "98%"}, "style": {"description_width": "18em"}, "value": value}
    if spec is bool:
        return widgets.Checkbox(**wide | {"style": {"description_width": "0"}})
    if isinstance(spec, list):
        return widgets.SelectionSlider(options=spec, **wide)
    whole = all(isinstance(number, int) for number in spec)
    return (widgets.IntSlider if whole else widgets.FloatSlider)(min=spec[0], max=spec[1], step=spec[2], **wide)
