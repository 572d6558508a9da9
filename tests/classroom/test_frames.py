"""Frames of interactive figures: which combinations are drawn, and that interrupted work goes on where it was."""

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from course_utils.classroom import frames


def test_values_of_each_kind_of_control() -> None:
    assert frames.values_of((0, 180, 45)) == [0, 45, 90, 135, 180]
    assert frames.values_of((0.1, 1.0, 0.3)) == [0.1, 0.4, 0.7, 1.0]
    assert frames.values_of((0, 1, 0.4)) == [0.0, 0.4, 0.8]  # as a slider, it stops before an end it cannot reach
    assert frames.values_of(["ReLU", 3]) == ["ReLU", 3] and frames.values_of(bool) == [False, True]
    assert [frames.written(v) for v in (3, 0.5, "SN", True)] == ["3", "0.50", "SN", "True"]


@pytest.mark.parametrize("most", [1, 8, 30, 200, 5000])
def test_fewer_values_are_evenly_chosen_with_both_ends_and_the_default(most: int) -> None:
    values = {"angle": list(range(0, 365, 5)), "method": ["none", "SN", "WN"], "n": [1, 2, 4, 8], "show": [False, True]}
    defaults = {"angle": 100, "method": "SN", "n": 2, "show": False}
    kept = frames.thinned(values, defaults, most)
    assert kept["method"] == values["method"] and kept["show"] == values["show"]
    for name in ("angle", "n"):
        assert kept[name][0] == values[name][0] and kept[name][-1] == values[name][-1] and defaults[name] in kept[name]
        assert kept[name] == sorted(set(kept[name])) and set(kept[name]) <= set(values[name])
    least = 3 * 3 * 3 * 2  # ends and default of two sliders, all names, both answers
    assert math.prod(map(len, kept.values())) <= max(most, least)
    if most == 200:
        steps = np.diff(kept["angle"])
        assert steps.max() <= 2 * steps.min() and len(kept["angle"]) > len(kept["n"]) == 4
    if most == 5000:
        assert kept == values


def test_nothing_is_thinned_that_fits() -> None:
    values = {"k": list(range(9))}
    assert frames.thinned(values, {"k": 3}, 9) == values
    assert frames.thinned(values, {"k": 0}, 5) == {"k": [0, 2, 4, 6, 8]}
    assert frames.thinned(values, {"k": 3}, 5) == {"k": [0, 3, 4, 6, 8]}


def test_a_change_laid_over_the_base_gives_the_picture() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture = base.copy()
    picture[5:9, 3:20] = rng.integers(0, 256, (4, 17, 3))
    layer = np.asarray(frames.Image.open(frames.io.BytesIO(frames.change(picture, base))).convert("RGBA"))
    seen = np.where(layer[..., 3:] == 255, layer[..., :3], base)
    assert set(np.unique(layer[..., 3])) == {0, 255} and (seen == picture).all()
    smaller = picture[:10]  # then the layer is the picture itself
    layer = np.asarray(frames.Image.open(frames.io.BytesIO(frames.change(smaller, base))).convert("RGBA"))
    assert (layer[..., 3] == 255).all() and (layer[..., :3] == smaller).all()


class Draw:
    """A figure function that counts, and that is interrupted at its ``stop``-th call."""

    def __init__(self, stop: int | None = None) -> None:
        self.calls, self.stop = 0, stop

    def __call__(self, k: int = 2, big: bool = False) -> tuple[plt.Figure, str]:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        fig, ax = plt.subplots(figsize=(2, 1.5))
        ax.plot([0, k + 10 * big])
        return fig, f"k = {k}, {big}"


def test_interrupted_work_goes_on_where_it_was(tmp_path: Path) -> None:
    def run(draw: Draw) -> None:
        recorder = frames.Recorder(tmp_path)
        recorder.begin("line")
        recorder(draw, alt="A line.", k=(0, 4, 1), big=bool, labels={"k": "slope"})

    with pytest.raises(KeyboardInterrupt):
        run(Draw(stop=6))
    assert not list(tmp_path.glob("*.json"))
    torn = tmp_path / "line-0.jsonl"
    torn.write_text(torn.read_text() + '["[4, tr')  # the power failed while a line was written
    again = Draw()
    run(again)
    assert again.calls == 1 + 10 - 4  # the first figure, and the frames that were missing
    figure = frames.figures(tmp_path)["line-0"]
    assert [c["label"] for c in figure["controls"]] == ["slope", "big"]
    assert [c["default"] for c in figure["controls"]] == [2, 0]
    assert figure["texts"] == [f"k = {k}, {big}" for k in range(5) for big in (False, True)]
    assert len(set(figure["pictures"])) > 2 and all((tmp_path / picture).exists() for picture in figure["pictures"])
    finished = Draw()
    run(finished)
    assert finished.calls == 0


def test_a_figure_keeps_to_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FIGURE", 20_000)

    def noise(seed: int = 0) -> tuple[plt.Figure, str]:
        fig, ax = plt.subplots(figsize=(1, 1))
        ax.imshow(np.random.default_rng(seed).random((40, 40)))
        return fig, f"seed {seed}"

    recorder = frames.Recorder(tmp_path)
    recorder.begin("noise")
    recorder(noise, alt="Noise.", seed=(0, 100, 1))
    figure = frames.figures(tmp_path)["noise-0"]
    size = sum((tmp_path / picture).stat().st_size for picture in set(figure["pictures"]))
    assert size == figure["bytes"] <= 20_000
    values = figure["controls"][0]["values"]
    assert 3 <= len(values) < 101 and values[0] == "0" and values[-1] == "100" and figure["controls"][0]["of"] == 101


def lecture(folder: Path, source: str) -> Path:
    cell = nbformat.v4.new_code_cell(source, id="figure")
    path = folder / "08_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


SOURCE = """
import matplotlib.pyplot as plt
from course_utils.interactive import explore
def draw(k=1):
    fig, ax = plt.subplots(figsize=(2, 1.5))
    ax.plot([0, k])
    return fig, f"k = {k}"
explore(draw, alt="A line.", k=[1, 2])
explore(draw, alt="The same line.", k=[1, 2, 3])
"""


def test_a_lecture_is_recorded_once_and_anew_when_its_code_changes(tmp_path: Path) -> None:
    out = tmp_path / "my frames"
    path = lecture(tmp_path, SOURCE)
    assert not frames.is_complete(path, out)
    (line,) = frames.make([path], out, most=5)
    assert line.startswith("frames of 08_small.ipynb: ") and frames.is_complete(path, out)
    assert {name: len(figure["pictures"]) for name, figure in frames.figures(out / "08_small").items()} == {
        "figure-0": 2,
        "figure-1": 3,
    }
    assert list(frames.make([path], out, most=5)) == []
    assert frames.is_complete(path, out, 5) and not frames.is_complete(path, out, 6)
    lecture(tmp_path, SOURCE.replace("[1, 2, 3]", "[1, 2, 3, 4]"))
    assert not frames.is_complete(path, out)
    assert len(list(frames.make([path], out, most=5))) == 1
    assert json.loads((out / "08_small" / "figure-1.json").read_text())["texts"][-1] == "k = 4"


def test_a_lecture_that_fails_says_so(tmp_path: Path) -> None:
    path = lecture(tmp_path, "1 / 0\n" + SOURCE)
    with pytest.raises(RuntimeError, match=r"(?s)08_small.ipynb did not run to its end .status 1.:.*ZeroDivisionError"):
        list(frames.make([path], tmp_path / "out"))
    assert not frames.is_complete(path, tmp_path / "out")
