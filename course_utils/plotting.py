"""How the course's figures look, and how they get on the page.

Importing this module sets matplotlib's defaults (fonts that can be read from the last row, white background).
A figure function takes data and an ``Axes``, draws, returns the ``Axes``, and computes nothing.
"""

import ast
import base64
import functools
import inspect
import io
import re
import textwrap
from collections.abc import Callable, Mapping

import matplotlib as mpl
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .methods import METHODS

MAX_BYTES = 80_000  # of one stored image

# Okabe and Ito's palette: its colours stay apart for colour-blind readers. Yellow is too pale for lines on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY = "#767676"

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "figure.figsize": (9, 3.6), "figure.constrained_layout.use": True,
    "figure.facecolor": "white", "savefig.facecolor": "white", "axes.facecolor": "white", "axes.edgecolor": "#444444",
    "font.size": 12, "axes.titlesize": 13, "axes.labelsize": 12, "xtick.labelsize": 11, "ytick.labelsize": 11,
    "legend.fontsize": 11, "figure.titlesize": 14, "lines.linewidth": 2, "lines.markersize": 6, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#DDDDDD",
    "image.cmap": "gray", "axes.prop_cycle": mpl.cycler(
        color=[BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK],
        linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-"]),
}  # fmt: skip
mpl.rcParams.update(STYLE)


def to_png(fig: Figure, max_bytes: int | None = MAX_BYTES) -> bytes:
    """PNG of ``fig``, which is closed. With ``max_bytes`` the number of colours is reduced until it fits: all of them up to an
    eighth of it, 256 up to a half. A drawing of lines needs half as much then, and nobody sees the difference.

    Raises ValueError when 32 colours still need more than ``max_bytes``.
    """
    canvas = _canvas(*fig.get_size_inches(), fig.dpi)
    canvas.figure = fig
    fig.set_canvas(canvas)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    mpl.pyplot.close(fig)
    for colours, share in ((None, 1 / 8), (256, 1 / 2), (128, 1), (64, 1), (32, 1)):
        buffer = io.BytesIO()
        image = picture if colours is None else picture.quantize(colours)
        image.save(buffer, "png", compress_level=1 if max_bytes is None else 9)
        if max_bytes is None or buffer.tell() <= share * max_bytes:
            return buffer.getvalue()
    raise ValueError(f"the figure needs {buffer.tell()} bytes, {max_bytes} are allowed: draw fewer points or images")


@functools.lru_cache(16)
def _canvas(width: float, height: float, dpi: float) -> FigureCanvasAgg:
    """One canvas for all figures of a size: it knows the extents of the texts drawn before, a third of the work."""
    return FigureCanvasAgg(Figure())


def png_bundle(png: bytes, alt: str) -> tuple[dict, dict]:
    """Data and metadata of a displayed PNG with its alternative text, as Jupyter stores them."""
    if not alt.strip():
        raise ValueError("a figure needs an alt text that says what it shows")
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": f"[figure: {alt}]"}
    return data, {"image/png": {"alt": alt}}


def show(fig: Figure, alt: str) -> None:
    """Put ``fig`` on the page and close it. ``alt`` says in a sentence what it shows, for those who cannot see it."""
    data, metadata = png_bundle(to_png(fig), alt)
    display(data, metadata=metadata, raw=True)


def show_source(*objects: Callable | type, docstring: bool = True) -> None:
    """Put the source of functions or classes on the page, highlighted; ``docstring=False`` leaves theirs out.

    The calls that check arguments, ``require_...`` of validation.py, are always left out: they guard the mathematics and
    are none.
    """
    source = "\n\n".join(_source(item, docstring) for item in objects)
    display({"text/markdown": f"```python\n{source}\n```", "text/plain": source}, raw=True)


def _source(item: Callable | type, docstring: bool) -> str:
    source = textwrap.dedent(inspect.getsource(item)).rstrip()
    lines, left_out = source.split("\n"), set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        if not docstring and isinstance(node, ast.FunctionDef | ast.ClassDef) and len(body) > 1:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                following = body[1].lineno - 1
                while lines[following - 1].lstrip().startswith(("@", "#")) and following > first.end_lineno:
                    following -= 1  # keep a comment or a decorator above the next statement
                left_out.update(range(first.lineno, following + 1))
        for part in filter(_checks_an_argument, body):
            left_out.update(range(part.lineno, part.end_lineno + 1))
    shown = [line for number, line in enumerate(lines, start=1) if number not in left_out]
    return re.sub(r"\s*# (fmt: skip|noqa)\b.*", "", "\n".join(shown))


def _checks_an_argument(statement: ast.stmt) -> bool:
    """Whether it is ``require_...(...)``, alone, or assigned to the name of the argument that it checks."""
    called = getattr(statement, "value", None)
    if not isinstance(statement, ast.Expr | ast.Assign) or not isinstance(called, ast.Call):
        return isinstance(statement, ast.For) and all(map(_checks_an_argument, statement.body))
    return getattr(called.func, "id", getattr(called.func, "attr", "")).startswith("require_")


def image_grid(images: torch.Tensor, ax: Axes, n_columns: int = 8, title: str = "", gap: int = 1) -> Axes:
    """Draw images (N, C, H, W) with values in [-1, 1], C = 1 or 3, row by row as one picture."""
    n, channels, height, width = images.shape
    n_rows = -(-n // n_columns)
    canvas = np.ones((n_rows * (height + gap) - gap, n_columns * (width + gap) - gap, channels))
    for i, image in enumerate((images.detach().float().cpu().clamp(-1, 1).numpy() + 1) / 2):
        top, left = (i // n_columns) * (height + gap), (i % n_columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    ax.imshow(canvas.squeeze(-1) if channels == 1 else canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax


def spectrum_lines(ax: Axes, spectra: Mapping[str, np.ndarray], title: str = "") -> Axes:
    """Spectra by method, largest value first: (n,) or (seeds, n), then with the band from smallest to largest seed."""
    for method, values in spectra.items():
        values = np.atleast_2d(np.asarray(values))
        curve_with_band(ax, np.arange(1, values.shape[1] + 1), values, method)
    ax.set(xlabel="index $i$ of the singular value", title=title)
    return ax


def curve_with_band(ax: Axes, x: np.ndarray, values: np.ndarray, method: str | None = None, **style) -> Axes:
    """Mean of ``values`` (seeds, steps) over the seeds, in ``method``'s style, and a band from smallest to largest."""
    values = np.atleast_2d(np.asarray(values))
    style = {"markevery": max(1, values.shape[1] // 8), **(METHODS[method].style if method else {}), **style}
    (line,) = ax.plot(x, values.mean(axis=0), **style)
    if len(values) > 1:
        ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.18, linewidth=0)
    return ax
