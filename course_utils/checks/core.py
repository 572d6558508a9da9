"""The machinery behind ``check("3.2", rounds_needed)``: registry, three outcomes, time limit, helpers.

How to write an exercise
------------------------
Each lecture has one file ``course_utils/checks/lectureNN.py``; an exercise's id and title are those that the page prints. A complete one::

    import torch
    from course_utils.checks.core import compare, exercise, expect_choice

    @exercise("3.8", "The largest singular value")
    def check_sigma(answer, rng):
        worst = 0.0
        for shape in [(4, 4), (3, 5), (6, 2)]:             # square first: a mistake in the order then still has a value
            W = torch.randn(shape, generator=rng)          # fresh at each call; use float32 unless the text says double
            s = torch.linalg.svdvals(W.double())           # independent truth, never from the student's answer
            worst = max(worst, compare(answer(W), s[0], 1e-3, "sigma", {
                "squared": (s[0] ** 2, "This is sigma squared: take the square root."),
                "frobenius": (s.norm(), "This is the Frobenius norm, which adds up all singular values.")}))
        return worst            # the measured error, or a sentence to say after "right" (see expect_choice), or None

    @exercise("3.9", "Before you run it")
    def check_guess(answer, rng):
        return expect_choice(answer(), "abc", "b", {
            "a": "Try W = diag(2, 1).", "b": "The why, for a lucky guess.", "c": "What if sigma_1 = sigma_2?"})

* ``answer`` is the student's function, *guarded*: a call that returns None, raises, changes a tensor argument in
  place, or runs on for ever becomes the right outcome with a helpful line. The body never needs a ``try``. It gets
  copies of your tensors (inside lists, tuples and dicts too), except of those that require a gradient.
* ``answer`` may be a class: ``layer = answer(linear)``. Errors in its methods are reported just as well; wrap what you
  call, ``guarded(layer)(x)`` or ``guarded(layer.update, none_ok=True)()``, and None and in-place changes are found too.
  ``answer.wrapped`` is the bare function or class. Networks and other objects pass through as they are.
* ``exit()``, a raised KeyboardInterrupt and endless printing are dealt with, too; a real interrupt passes through.
* ``raise Wrong("code", "One or two calm sentences with the hint.")`` for any other mistake that you recognise.
* ``compare`` looks for the truth first, then for your hints (also those of another shape), then it reports shape,
  NaN or the size of the difference. So call it on the raw return value, without ``expect_tensor`` before it.
* A formula of several parts, ``compare(..., more=slips(formula, parts))``: each slip of each part is known, and any two.
* ``over(answer, cases, case, small)`` calls ``case(*inputs)`` for all cases; where no hint fits, the mistake is shown on
  the first of the ``small`` cases that fails, with input, expected and found value (``small_matrices``, ``tidy``).
* Codes used by the machinery: ``raises none inplace timeout type shape nan value option choice-<option>``, and
  ``check`` for a check that failed in its own code: give a hint of your own instead.
* Keep a check under about 0.3 s: it shares its time limit (2 s) with the student's code.
"""

import contextlib
import functools
import importlib
import inspect
import io
import linecache
import os
import pkgutil
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.checks.answers import (  # noqa: F401  (the helpers are offered from here)
    Wrong,
    compare,
    distance,
    expect_choice,
    expect_number,
    expect_tensor,
    expect_tuple,
    kind,
    over,
    slips,
    small_matrices,
    tidy,
)
from course_utils.checks.watchdog import TimeLimit, Watchdog

EXERCISES = {}  # id -> Exercise, in order of registration


@dataclass
class Exercise:
    """A registered exercise."""

    id: str
    title: str
    body: callable
    limit: float
    inplace_ok: bool


@dataclass
class Outcome:
    """What a check found: status "right", "not right" or "not attempted"; code of the mistake; line for the student."""

    status: str
    code: str
    line: str


def exercise(id, title, limit=2.0, inplace_ok=False):
    """Register ``body(answer, rng)`` as the check of exercise ``id``; see the module's docstring."""

    def register(body):
        if id in EXERCISES and EXERCISES[id].body.__code__.co_filename != body.__code__.co_filename:
            raise ValueError(f"exercise {id!r} is registered twice")
        EXERCISES[id] = Exercise(id, title, body, limit, inplace_ok)
        return body

    return register


def check(exercise_id, answer):
    """Check an answer and print one line: right, not right (with a hint) or not attempted yet.

    A wrong answer raises nothing, unless a grader is at work (nbgrader sets ``NBGRADER_EXECUTION``; or set
    ``COURSE_STRICT=1``): then everything but "right" raises AssertionError with the same line.
    """
    outcome = run(exercise_id, answer)
    print(outcome.line)
    strict = os.environ.get("NBGRADER_EXECUTION") or os.environ.get("COURSE_STRICT", "0") not in ("", "0")
    if strict and outcome.status != "right":
        raise AssertionError(outcome.line) from None


def load(prefix=""):
    """Import the lecture files whose number begins with ``prefix`` and return the registry."""
    import course_utils.checks as package

    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith(f"lecture{prefix}"):
            importlib.import_module(f"course_utils.checks.{module.name}")
    return EXERCISES


def _lecture_of(exercise_id):
    """Two digits, as in the files' names: "03" for "3.2"; nothing, which stands for all, for what is no such number."""
    number = str(exercise_id).split(".")[0]
    return number.zfill(2) if number.isdigit() else ""


def run(exercise_id, answer, seed=None):
    """Check an answer and return the Outcome, printing nothing. ``seed`` repeats the same random inputs."""
    entry = load(_lecture_of(exercise_id)).get(exercise_id) if isinstance(exercise_id, str) else None
    if entry is None and isinstance(answer, str) and answer in load():
        raise ValueError(f'the number comes first: check("{answer}", ...), then your answer')
    if entry is None:
        raise ValueError(f"no exercise is called {exercise_id!r}; there are: {', '.join(sorted(load()))}")
    rng = torch.Generator()
    rng.seed() if seed is None else rng.manual_seed(seed)
    watchdog = Watchdog(entry.limit)
    status, code, message = "not right", "", ""
    dtype, printed = torch.get_default_dtype(), _FirstLines(sys.stdout)
    try:
        # The notebook's random numbers stay as they were; warnings go to stdout: nbgrader gives 0 points for stderr.
        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            _exit_raises(),
        ):
            try:
                watchdog.start()
                error = entry.body(guarded(answer, inplace_ok=entry.inplace_ok), rng)
            finally:
                watchdog.stop()
        if watchdog.fired:
            raise TimeLimit  # the answer had caught it with a bare `except:`
        status = "right"
        message = f". {error}" if isinstance(error, str) else "." if error is None else f" (largest error {error:.1e})."
    except TimeLimit as stop:
        watchdog.stop()
        code, message = "timeout", f"It was stopped after {entry.limit:g} s of computing: slow, or an endless loop"
        if watchdog.waited:
            message = f"It was stopped after {watchdog.patience:g} s in which it only waited (sleep, input, a lock)"
        message += f"{_where(stop)}."
    except Wrong as wrong:
        code, message = wrong.code, str(wrong)
    except BaseException as error:  # SystemExit as well: nbgrader would take exit() for a success
        if isinstance(error, KeyboardInterrupt) and watchdog.interrupted:
            raise  # the student's own: Interrupt the kernel
        code = "raises" if _where(error) or getattr(error, "in_answer", False) else "check"
        words = "Your code raises" if code == "raises" else "The check cannot use your answer:"
        message = f"{words} {_text(error)}{_where(error)}."
        if isinstance(error, NotImplementedError) and not error.args:  # the stub's has no message, torch's have one
            status, code, message = "not attempted", "", _still_open(answer, error)
    finally:
        torch.set_default_dtype(dtype)
    verdicts = {
        "right": f"right{message}",
        "not attempted": f"not attempted yet{message}.",
        "not right": f"not right yet. {message}",
    }
    return Outcome(status, code, " ".join(f"Exercise {exercise_id} ({entry.title}): {verdicts[status]}".split()))


def guarded(function, none_ok=False, inplace_ok=False):
    """Wrap a student's function, class or method: a returned None and a tensor changed in place become ``Wrong``."""
    if not callable(function):
        raise Wrong("type", f"check() wants the function itself, without parentheses; this is {kind(function)}.")

    @functools.wraps(function, updated=())
    def call(*args, **kwargs):
        if not inplace_ok:
            args, kwargs = _copied(args), _copied(kwargs)
        call.given = [(n, x) for n, x in _inputs(function, args, kwargs) if isinstance(x, torch.Tensor)]
        before = [(name, value, _snapshot(value)) for name, value in _inputs(function, args, kwargs)]
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            error.in_answer = True
            raise
        for name, value, copy in before if not inplace_ok else ():
            if not _unchanged(value, copy):
                way = f"{name}.clone()" if isinstance(value, torch.Tensor) else f"{type(value).__name__}({name})"
                raise Wrong("inplace", f"Your code changes its input {name} in place; use a copy, {way}.")
        if result is None and not none_ok:
            raise Wrong("none", "Your function returns nothing (None). Did you forget `return`?")
        return result

    call.wrapped, call.given = function, []  # given: the tensors of the last call, with their names
    return call


_COURSE = Path(__file__).resolve().parents[1]
_LIBRARIES = [Path(torch.__file__).parents[1], *(Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib"))]


def _where(error):
    """Where in the student's own code an exception came from: ", in line 3 (`x = 1 / 0`)" or nothing."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        folders = Path(frame.f_code.co_filename).parents
        course = _COURSE in folders
        generated = frame.f_code.co_filename.startswith(("<string>", "<frozen"))  # a dataclass's __init__, exit()
        if not course and not generated and not any(library in folders for library in _LIBRARIES):
            text = linecache.getline(frame.f_code.co_filename, line).strip()
            return f", in line {line}" + (f" (`{text}`)" if text else "")
    return ""


def _still_open(answer, error):
    """Words for a ``raise NotImplementedError`` that stops work already done; none for an untouched exercise."""
    parts = list(vars(answer).values()) if isinstance(answer, type) else [answer]
    if all(_untouched(part.__code__) for part in parts if inspect.isfunction(part)):
        return ""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name).rpartition("<locals>.")[2]
    return f": `raise NotImplementedError` is still reached, in `{name}`, line {line}"


def _untouched(code):
    """Whether a function does nothing but raise NotImplementedError (after ``super().__init__()``, in a class)."""
    lines = {line for _, _, line in code.co_lines()} - {None, code.co_firstlineno}
    stub = {"NotImplementedError", "super", "__init__"}
    short = len(lines) <= 1 + ("super" in code.co_names)
    return short and "NotImplementedError" in code.co_names and stub.issuperset(code.co_names)


def _text(error):
    if isinstance(error, SystemExit):
        return "SystemExit: do not leave Python, return a result"
    text = " ".join(str(error).split()).rstrip(".")
    if len(text) > 160:
        text = text[:157].rsplit(" ", 1)[0].rstrip(" .,:;") + " ..."  # no word is cut in two
    return type(error).__name__ + (f": {text}" if text else "")


def _copied(value):
    """``value`` with copies of its tensors (but not of those with a gradient: it shall flow, and find its leaf)."""
    if isinstance(value, torch.Tensor):
        return value if value.requires_grad else value.clone()
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return {key: _copied(item) for key, item in value.items()} if type(value) is dict else value


def _inputs(function, args, kwargs):
    """Name and value for each tensor, list and dict among the arguments, also for those inside others."""
    try:  # what a layer is called with goes to its method forward
        called = function.forward if isinstance(function, torch.nn.Module) else function
        names = list(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        names = []
    found = []

    def collect(name, value):
        if isinstance(value, (torch.Tensor, list, dict)):
            found.append((name, value))
        if isinstance(value, (list, tuple, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                collect(name, item)

    for i, value in enumerate(args):
        collect(names[i] if i < len(names) else f"number {i + 1}", value)
    for name, value in kwargs.items():
        collect(name, value)
    return found


def _snapshot(value):
    """What ``_unchanged`` needs to know of an input as it was before the call."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value.copy()


def _unchanged(value, copy):
    """Whether a tensor has the entries, or a list or dict the very items, that it had before the call."""
    if isinstance(value, torch.Tensor):
        same = lambda: ((value == copy) | ((value != value) & (copy != copy))).all()
        return value.shape == copy.shape and bool(same())
    items, before = (list(x.items()) if isinstance(x, dict) else list(x) for x in (value, copy))
    if isinstance(value, dict):
        items, before = ([part for pair in pairs for part in pair] for pairs in (items, before))
    return len(items) == len(before) and all(a is b for a, b in zip(items, before))


class _FirstLines(io.TextIOBase):
    """Passes the first characters on to ``stream``, says once that there is more, and drops the rest."""

    def __init__(self, stream, limit=5000):
        self.stream, self.left = stream, limit

    def write(self, text):
        if self.left > 0:
            self.stream.write(text[: self.left])
            self.left -= len(text)
            if self.left <= 0:
                self.stream.write("\n... your code prints more than is shown here.\n")
        return len(text)

    def flush(self):
        self.stream.flush()


@contextlib.contextmanager
def _exit_raises():
    """In a notebook, exit() and quit() raise nothing and shut the kernel down once the cell is over; here they raise."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None

    def ask_exit():
        raise SystemExit

    if shell is not None:
        shell.ask_exit = ask_exit
    try:
        yield
    finally:
        if shell is not None:
            del shell.ask_exit
