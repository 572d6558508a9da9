"""Tests of the checks. In ``test_checks_NN.py``::

    from harness import Case, test_exercise  # noqa: F401

    CASES = [Case("3.8", right=[f, g], wrong={"squared": h, "value": [p, q], "none": r}), ...]

For each Case ``test_exercise`` (parametrized by conftest.py) requires: the lecture's solution is right, the stub of the
generated exercise is "not attempted", at least two other answers in ``right`` are right, and at least four in ``wrong``
fail, each with exactly the code that is its key. Each is tried with several seeds.
"""

import contextlib
import functools
import re
from dataclasses import dataclass, field

import nbformat

from course_utils.checks import core
from course_utils.classroom import exercises

SEEDS = range(3)


@dataclass
class Case:
    """One exercise: different correct answers, and wrong ones (an answer or a list of them) by the code of the hint."""

    id: str
    right: list = field(default_factory=list)
    wrong: dict = field(default_factory=dict)


@functools.cache
def notebook(number, kind):
    """The cells of lecture ``number`` by their id (nbgrader's, if any), or of the exercise notebook made from it."""
    path = next((path for path in exercises.lectures() if path.name.startswith(number)), None)
    assert path, f"there is no lecture {number}"
    nb = nbformat.read(path, as_version=4) if kind == "lecture" else exercises.exercise_notebook(path)
    return {cell.metadata.get("nbgrader", {}).get("grade_id", cell.id): cell.source for cell in nb.cells}


@functools.cache
def setup(number):
    """The names that the cell "setup" of a lecture defines."""
    names = {"__name__": "__main__"}
    with contextlib.chdir(exercises.NOTEBOOKS):
        exec(compile(notebook(number, "lecture")["setup"], "<setup>", "exec"), names)
    return names


def answer_from(id, kind):
    """What the cell ``check-<id>`` (with - for .) hands to ``check``, after the cells "setup" and ``solve-<id>`` and nothing else."""
    number, cell_id = id.split(".")[0].zfill(2), id.replace(".", "-")
    cells, names, answers = notebook(number, kind), dict(setup(number)), []
    names["check"] = lambda exercise_id, answer: answers.append(answer)
    for cell in (f"solve-{cell_id}", f"check-{cell_id}"):
        exec(compile(cells[cell], f"<{cell} in the {kind}>", "exec"), names)
    assert len(answers) == 1, f"the cell check-{cell_id} should call check once"
    return answers[0]


def name_of(answer):
    return re.sub(r"\W+", "_", getattr(answer, "__name__", repr(answer)))


def test_exercise(case, record_property):
    """The check of one exercise accepts what is right and rejects what is wrong, with the hint that was meant."""
    wrong = [
        (code, f) for code, some in case.wrong.items() for f in (some if isinstance(some, (list, tuple)) else [some])
    ]
    right = [answer_from(case.id, "lecture"), *case.right]
    problems, accepted, rejected = [], 0, 0
    stub = core.run(case.id, answer_from(case.id, "exercise"))
    if stub.status != "not attempted":
        problems.append(f"the stub: {stub.line}")
    for i, answer in enumerate(right):
        bad = [o for o in (core.run(case.id, answer, seed) for seed in SEEDS) if o.status != "right"]
        accepted += not bad
        problems += [f"right answer {i or 'of the lecture'} ({name_of(answer)}) [{o.code}]: {o.line}" for o in bad[:1]]
    for code, answer in wrong:
        bad = [
            o for o in (core.run(case.id, answer, seed) for seed in SEEDS) if (o.status, o.code) != ("not right", code)
        ]
        rejected += not bad
        problems += [f"wrong answer {name_of(answer)}: meant {code!r}, got [{o.code}] {o.line}" for o in bad[:1]]
    record_property("check", (case.id, f"{accepted}/{len(right)}", f"{rejected}/{len(wrong)}"))
    if len(case.right) < 2 or len(wrong) < 4:
        problems.append(f"{len(case.right)} right and {len(wrong)} wrong answers; at least 2 and 4 are wanted")
    assert not problems, "\n".join([case.id, *problems])
