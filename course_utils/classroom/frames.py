"""Interactive figures as frames, for pages without a kernel: ``python -m course_utils site --frames`` makes them.

A lecture is run once, with ``explore`` replaced by a recorder: it draws the figure for each combination of the controls'
values and keeps the picture and the text. Where these would be too many, a control takes fewer values, evenly chosen,
with both ends and the default among them; names, such as those of methods, all stay. Each frame is kept as it is made,
so the work can be interrupted and goes on where it was. A lecture is recorded anew when its code, or the module, changed.
"""

import contextlib
import gc
import hashlib
import inspect
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbformat
import numpy as np
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image

from .. import interactive, plotting

ROOT = Path(__file__).resolve().parents[2]
FORMAT = 1  # of what is recorded: raise it, and all frames are made anew
MOST = 240  # frames of a figure
MAX_FIGURE = 4_000_000  # bytes of all pictures of a figure


def values_of(spec: tuple | list | type) -> list:
    """All values that a control of ``explore`` with this specification can take, in order."""
    if spec is bool:
        return [False, True]
    if isinstance(spec, list):
        return list(spec)
    low, high, step = spec
    values = [low + i * step for i in range(math.floor((high - low) / step + 1e-9) + 1)]
    return values if all(isinstance(number, int) for number in spec) else [round(value, 10) for value in values]


def thinned(values: dict[str, list], defaults: dict[str, object], most: int) -> dict[str, list]:
    """``values`` of each control, with fewer for the controls that have most, until ``most`` combinations are left.

    What stays is evenly spread and holds both ends and the default. Names and yes-or-no are never thinned, and no
    control has less than two values, so that more than ``most`` combinations can be left.
    """
    kept = {name: list(all_values) for name, all_values in values.items()}
    wanted = {name: len(all_values) for name, all_values in values.items() if _is_number(all_values)}
    while math.prod(map(len, kept.values())) > most and (name := max(wanted, key=wanted.get, default=None)):
        if wanted[name] == 2:
            break
        wanted[name] -= 1
        kept[name] = _evenly(values[name], values[name].index(defaults[name]), wanted[name])
    return kept


def _is_number(values: list) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _evenly(values: list, default: int, number: int) -> list:
    """``number`` of the values, or one more if number is 2: first, last, the default, and others evenly between."""
    last = len(values) - 1
    places = {round(i * last / (number - 1)) for i in range(number)}
    if default not in places:
        if inner := places - {0, last}:
            places.remove(min(inner, key=lambda place: abs(place - default)))
        places.add(default)
    return [values[place] for place in sorted(places)]


def written(value: object) -> str:
    """A value as the notebook's slider writes it."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def drawn(draw: Callable[..., tuple[Figure, str]], values: dict, places: Sequence | None) -> tuple[bytes, str, list]:
    """Picture (PNG) and text that ``explore`` shows for these values, and the places of the figure's axes.

    places: those of the first figure, which a later one takes over; None for the first figure itself.
    """
    fig, text = draw(**values)
    if places is None:
        return plotting.to_png(fig, None), text, [ax.get_position(original=True) for ax in fig.axes]
    fig.set_layout_engine("none")
    for ax, place in zip(fig.axes, places, strict=False):
        ax.set_position(place)
    return plotting.to_png(fig, None), text, list(places)


def pixels(picture: bytes) -> np.ndarray:
    """Colours of a picture file: (height, width, 3), bytes."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def change(picture: np.ndarray, base: np.ndarray) -> bytes:
    """Lossless WebP to be laid over ``base``: what differs in ``picture``, and nothing (transparent) where both agree.

    A third of the size of the picture itself. If the sizes differ, all of ``picture``.
    """
    differs = (picture != base).any(axis=2) if picture.shape == base.shape else np.ones(picture.shape[:2], bool)
    layer = np.dstack([picture * differs[..., None], np.uint8(255) * differs])
    buffer = io.BytesIO()
    Image.fromarray(layer).save(buffer, "webp", lossless=True, quality=50, method=2)
    return buffer.getvalue()


class Recorder:
    """Stands in for ``explore`` while the cells of a lecture run; what it records goes into ``folder``."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.folder, self.most = folder, most
        self.cell, self.number = "", 0  # the cell that is running, and how many figures it has shown

    def begin(self, cell: str) -> None:
        self.cell, self.number = cell, 0

    def __call__(self, draw: Callable, *, alt: str, labels: dict | None = None, **controls) -> None:
        """Record one figure: called as ``course_utils.interactive.explore`` is."""
        name, self.number = f"{self.cell}-{self.number}", self.number + 1
        if (self.folder / f"{name}.json").exists():
            return
        began = time.process_time()
        gc.freeze()  # as explore does: drawing is faster when Python looks through fewer objects for garbage
        defaults = {n: inspect.signature(draw).parameters[n].default for n in controls}
        every = {n: values_of(spec) for n, spec in controls.items()}
        for n, value in defaults.items():  # (low, high, step) can miss a float default by rounding
            every[n] = [value if v == value or (_is_number([v]) and abs(v - value) < 1e-9) else v for v in every[n]]
        first, _, places = drawn(draw, defaults, None)
        base = pixels(first)
        frames = self._before(name)

        def frame(values: tuple) -> list:
            if (key := json.dumps(values)) not in frames:
                png, text, _ = drawn(draw, dict(zip(controls, values)), places)
                frames[key] = [self._keep(change(pixels(png), base)), text]
                with (self.folder / f"{name}.jsonl").open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps([key, *frames[key]]) + "\n")
            return frames[key]

        trial = [frame(values) for values in itertools.product(*thinned(every, defaults, 8).values())]
        size = sum((self.folder / picture).stat().st_size for picture, _ in trial) / len(trial)
        kept = thinned(every, defaults, min(self.most, int(MAX_FIGURE / size)))
        while True:
            shown = [frame(values) for values in itertools.product(*kept.values())]
            total = sum((self.folder / picture).stat().st_size for picture in {picture for picture, _ in shown})
            fewer = thinned(every, defaults, int(len(shown) * 0.95 * MAX_FIGURE / total))
            if total <= MAX_FIGURE or fewer == kept:
                break
            kept = fewer
        record = {
            "alt": alt,
            "base": self._keep(change(base, np.empty((0, 0, 3), np.uint8))),
            "size": base.shape[1::-1],
            "controls": [
                {
                    "name": n,
                    "label": (labels or {}).get(n, n.replace("_", " ")),
                    "kind": "box" if controls[n] is bool else "slider",
                    "values": [written(value) for value in kept[n]],
                    "default": kept[n].index(defaults[n]),
                    "of": len(every[n]),
                }
                for n in controls
            ],
            "pictures": [picture for picture, _ in shown],
            "texts": [text for _, text in shown],
            "bytes": total,
            "seconds": round(time.process_time() - began, 1),
        }
        _write(self.folder / f"{name}.json", json.dumps(record).encode())

    def _before(self, name: str) -> dict[str, list]:
        """The frames that an interrupted run left, by their values."""
        path, frames = self.folder / f"{name}.jsonl", {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line may be torn
                    key, *found = json.loads(line)
                    if (self.folder / found[0]).exists():
                        frames[key] = found
            _write(path, "".join(json.dumps([k, *v]) + "\n" for k, v in frames.items()).encode())
        return frames

    def _keep(self, picture: bytes) -> str:
        """Write a picture under a name made of its content, so that equal ones are one file; return the name."""
        name = hashlib.sha256(picture).hexdigest()[:16] + ".webp"
        if not (self.folder / name).exists():
            _write(self.folder / name, picture)
        return name


def _write(path: Path, content: bytes) -> None:
    """The whole file or nothing, whenever the program is interrupted."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def key_of(lecture: Path, most: int) -> str:
    """What the frames of a lecture depend on, as one number: its code, the module's, and how many frames may be made."""
    nb = nbformat.read(lecture, as_version=4)
    digest = hashlib.sha256(f"{FORMAT} {most}".encode())
    for source in [cell.source for cell in nb.cells if cell.cell_type == "code"]:
        digest.update(source.encode())
    for path in sorted((ROOT / "course_utils").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def record(lecture: Path, folder: Path, most: int = MOST) -> None:
    """Run the lecture's cells, up to its last figure, in this process; its frames are in ``folder``/its name then."""
    place, key = folder / lecture.stem, key_of(lecture, most)
    if _state(place).get("key") != key:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    state = {"key": key, "most": most, "complete": False}
    _write(place / "state.json", json.dumps(state).encode())
    recorder = interactive.explore = Recorder(place, most)
    shell = InteractiveShell.instance()
    os.chdir(lecture.parent)
    cells = [cell for cell in nbformat.read(lecture, as_version=4).cells if cell.cell_type == "code"]
    figures = [number for number, cell in enumerate(cells) if "explore(" in cell.source]
    for cell in cells[: max(figures, default=-1) + 1]:
        recorder.begin(cell.id)
        with contextlib.redirect_stdout(io.StringIO()):
            shell.run_cell(cell.source).raise_error()
    _write(place / "state.json", json.dumps(state | {"complete": True}).encode())


def is_complete(lecture: Path, folder: Path, most: int | None = None) -> bool:
    """Whether ``folder`` holds the frames of the lecture as it now is. most: None allows any number of frames."""
    state = _state(folder / lecture.stem)
    most = state.get("most", MOST) if most is None else most
    return bool(state.get("complete")) and state.get("key") == key_of(lecture, most)


def _state(place: Path) -> dict:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((place / "state.json").read_text(encoding="utf-8"))
    return {}


def make(lectures: list[Path], folder: Path, most: int = MOST, processes: int = 2) -> Iterator[str]:
    """Make the frames of these lectures that are not there yet, some lectures side by side; yields what was done.

    Raises RuntimeError, with the end of what it wrote, if a lecture cannot be run.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    waiting = sorted((path for path in lectures if not is_complete(path, folder, most)), key=lambda p: p.stat().st_size)
    laptop = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "COURSE_STRICT": "0", "COURSE_PROFILE": "cpu"}
    running: dict[Path, tuple[subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                path = waiting.pop()  # the longest first
                command = [sys.executable, "-m", "course_utils.classroom.frames", str(path.resolve()), str(folder)]
                with (folder / f"{path.stem}.log").open("w") as log:
                    where = {"cwd": ROOT, "env": {**os.environ, **laptop}, "stdout": log, "stderr": log}
                    running[path] = subprocess.Popen([*command, str(most)], **where), time.monotonic()
            for path, (process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[path]
                log = (folder / f"{path.stem}.log").read_text(encoding="utf-8", errors="replace").strip()
                if process.returncode:
                    raise RuntimeError(
                        f"{path.name} did not run to its end (status {process.returncode}):\n{log[-2000:]}"
                    )
                yield f"frames of {path.name}: {time.monotonic() - began:.0f} s, {log.splitlines()[-1]}"
            time.sleep(0.1)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()


def figures(folder: Path) -> dict[str, dict]:
    """The recorded figures in the folder of a lecture, by the name of the cell and the figure's number in it."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*-[0-9].json")}


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    print(f"{time.process_time():.0f} s of processor time")
