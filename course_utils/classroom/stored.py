"""Results that an exercise notebook does not compute again, from the outputs that are stored in its lecture."""

from pathlib import Path

import nbformat
from IPython.display import display

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def show_stored(lecture: str, *cells: str) -> None:
    """Put on the page what a lecture's cells gave when it was last saved, printed lines and figures; computes nothing.

    lecture: its file name in the course's folder ``notebooks``. cells: ids of its code cells.
    Raises ValueError if it has no such cell, FileNotFoundError if it is not there.
    """
    found = {cell.id: cell for cell in nbformat.read(NOTEBOOKS / lecture, as_version=4).cells}
    if missing := [id for id in cells if id not in found]:
        raise ValueError(f"{lecture} has no cell called {', '.join(missing)}")
    for output in (output for id in cells for output in found[id].get("outputs", [])):
        if output.output_type == "stream":
            print(output.text, end="")
        elif output.output_type == "display_data" and "application/vnd.jupyter.widget-view+json" not in output.data:
            display(dict(output.data), metadata=dict(output.metadata), raw=True)
