"""The machinery of the checks: outcomes, guard, time limit, helpers, strict mode."""

import importlib
import io
import pdb
import signal
import sys
import threading
import time
from pathlib import Path

import IPython
import numpy as np
import pytest
import torch
from torch import nn

from course_utils.checks import check, core
from course_utils.checks.core import Wrong, compare, exercise, expect_choice, expect_number, expect_tensor, expect_tuple


@pytest.fixture(autouse=True)
def trial_exercises(monkeypatch):
    """Exercises that exist only here."""
    core.load()  # what is imported here first would otherwise be registered here only, and lost for other tests
    monkeypatch.setattr(core, "EXERCISES", {})
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)

    @exercise("99-double", "twice a matrix")
    def check_double(answer, rng):
        worst = 0.0
        for shape in [(3, 3), (2, 4)]:
            x = torch.randn(shape, generator=rng)
            hints = {"same": (x, "This is x itself."), "transposed": (2 * x.T, "This is transposed.")}
            worst = max(worst, compare(answer(x), 2 * x, what="2x", hints=hints))
        return worst

    @exercise("99-layer", "a layer")
    def check_layer(answer, rng):
        layer = answer(3)
        core.guarded(layer.reset, none_ok=True)()
        expect_tensor(core.guarded(layer)(torch.randn(5, 3, generator=rng)), (5, 3), "The layer's output")


def outcome(answer, id="99-double"):
    found = core.run(id, answer)
    assert "\n" not in found.line and found.line.startswith(f"Exercise {id} (")
    return found


def stub(x):
    raise NotImplementedError()


def in_place(x):
    x *= 2
    return x


def returns_nothing(x):
    x = 2 * x


def raises(x):
    factor = 1 / 0
    return factor * x


class Layer(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = nn.Linear(n, n)

    def reset(self):
        self.linear.reset_parameters()

    def forward(self, x):
        return self.linear(x)


class LayerStub(Layer):
    def forward(self, x):
        raise NotImplementedError()


class LayerWithoutForward(nn.Module):
    def __init__(self, n):
        super().__init__()

    def reset(self):
        pass


def test_right_in_many_forms():
    forms = [
        lambda x: 2 * x,
        lambda x: 2 * x.double(),
        lambda x: (2 * x).numpy(),
        lambda x: np.flip(np.flip(2 * x.numpy())),
        lambda x: 2 * x.requires_grad_(),
        lambda x: nn.Parameter(2 * x),
        lambda x: (2 * x).half(),
    ]
    for form in forms:
        found = outcome(form)
        assert found.status == "right" and "largest error" in found.line, found.line


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (lambda x: x, "same", "This is x itself."),
        (lambda x: 2 * x.T, "transposed", "This is transposed."),
        (lambda x: 3 * x, "value", "is off by 5.0e-01"),
        (lambda x: 2 * x[0], "shape", "should have the shape (3, 3), but it has the shape (3,)"),
        (lambda x: x / 0, "nan", "NaN or infinity"),
        (lambda x: x * torch.nan, "nan", "NaN or infinity"),
        (lambda x: (2 * x).tolist(), "type", "should be a tensor, but it is of type list"),
        (lambda x: 3j * x, "type", "complex"),
        (lambda x: 2 * x + 0j, "type", "complex"),
        (lambda x: (2 * x).to("meta"), "type", "of type Tensor"),
        (lambda x: (3 * x).to_sparse(), "value", "is off by"),
        (lambda x: 10**400, "shape", "should have the shape"),
        (lambda x: "2x", "type", "of type str"),
        (lambda x: True, "type", "of type bool"),
        (in_place, "inplace", "changes its input x in place"),
        (returns_nothing, "none", "Did you forget `return`?"),
        (raises, "raises", "ZeroDivisionError: division by zero, in line"),
        (lambda x: x @ torch.ones(9), "raises", "RuntimeError"),
        (lambda: 1, "raises", "TypeError"),
        (lambda x: undefined, "raises", "NameError"),  # noqa: F821
        (lambda x: sys.exit(), "raises", "SystemExit"),
        (torch.ones(3), "type", "the function itself"),
        (None, "type", "the function itself"),
    ],
)
def test_not_right(answer, code, words):
    found = outcome(answer)
    assert (found.status, found.code) == ("not right", code), found.line
    assert words in found.line


def test_inputs_are_copies_unless_they_carry_a_gradient():
    x, w = torch.ones(2), torch.ones(2, requires_grad=True)
    given = []

    def use(x, pair, w):
        given.extend([x, pair[0], w])
        return (x.requires_grad_() * pair[0] * w).sum()

    core.guarded(use)(x, (x, 1), w=w).backward()
    assert given[0] is not x and given[1] is not x and given[2] is w
    assert not x.requires_grad and w.grad is not None

    with pytest.raises(Wrong, match="input x in place"):
        core.guarded(in_place)(x)
    assert x[0] == 1
    core.guarded(lambda x: x)(x / 0 - x / 0)  # NaN, not changed
    core.guarded(in_place, inplace_ok=True)(x)
    assert x[0] == 2
    with pytest.raises(Wrong, match="input many in place"):
        core.guarded(lambda many: in_place(many["x"]))({"x": x})
    with pytest.raises(Wrong, match=r"input some in place; use a copy, list\(some\)"):
        core.guarded(lambda some: some.pop())([1, 2])
    with pytest.raises(Wrong, match="input some in place"):
        core.guarded(lambda some: some.update(a=2) or 1)({"a": 1})
    layer = nn.Module()
    layer.forward = lambda weight: in_place(weight)
    with pytest.raises(Wrong, match="input weight in place"):
        core.guarded(layer)(x)


def test_line_of_the_mistake_is_quoted():
    line = raises.__code__.co_firstlineno + 1
    assert f"in line {line} (`factor = 1 / 0`)" in outcome(raises).line


def test_not_attempted():
    assert outcome(stub).status == "not attempted"
    assert outcome(stub).line.endswith("not attempted yet.")


def test_not_attempted_says_which_raise_is_still_reached():
    def calls(x):
        return 2 * stub(x)

    def unfinished(x):
        y = 2 * x
        raise NotImplementedError()
        return y

    for answer, name in ((calls, "stub"), (unfinished, "unfinished")):
        found = outcome(answer)
        line = stub.__code__.co_firstlineno + 1 if name == "stub" else answer.__code__.co_firstlineno + 2
        assert found.status == "not attempted" and f"still reached, in `{name}`, line {line}." in found.line

    class HalfDone(LayerStub):
        def __init__(self, n):
            super().__init__(n)
            self.n = n

        def forward(self, x):
            raise NotImplementedError()

    assert "still reached, in `HalfDone.forward`, line" in outcome(HalfDone, "99-layer").line


def test_a_busy_machine_refuses_nothing_right(monkeypatch):
    """The thread gets a seventh of the processor: four times its limit goes by, and it is not stopped."""
    core.EXERCISES["99-double"].limit = 0.3

    def starved(x):
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            time.sleep(0.012)
            busy = time.thread_time() + 0.002
            while time.thread_time() < busy:
                pass
        return 2 * x

    assert outcome(starved).status == "right"


def test_a_reason_follows_a_right_guess():
    @exercise("99-guess", "a guess")
    def check_guess(answer, rng):
        return expect_choice(answer(), "ab", "b", {"a": "no", "b": "Because."})

    assert outcome(lambda: "b", "99-guess").line.endswith("right. Because.")


def test_a_wrong_matrix_is_shown_on_the_smallest_case():
    @exercise("99-small", "twice")
    def check_small(answer, rng):
        def case(n):
            x = torch.eye(n)
            return compare(answer(x), 2 * x)

        return core.over(answer, [(5,)], case, small=[(2,)])

    line = outcome(lambda A: 3 * A, "99-small").line
    assert "expected [[2, 0], [0, 2]], got [[3, 0], [0, 3]]" in line and "A = [[1, 0], [0, 1]]" in line


def test_one_slip_and_two_are_named():
    x = torch.tensor([1.0, 2.0])
    parts = {
        "factor": {"double": (2.0, "Twice."), "half": (0.5, "Half.")},
        "shift": {"shifted": (1.0, "Shifted.")},
    }

    def formula(factor=1.0, shift=0.0):
        return factor * (x + shift)

    for value, code, message in (
        (2 * x, "double", "Twice."),
        (x + 1, "shifted", "Shifted."),
        (x / 2 + 0.5, "half+shifted", "Two mistakes. Half. And: Shifted."),
        (3 * x, "value", "off by"),
        (4 * x, "value", "off by"),  # never both choices for one place
    ):
        with pytest.raises(Wrong, match=message) as wrong:
            compare(value, formula(), more=core.slips(formula, parts))
        assert wrong.value.code == code
    assert compare(x, formula(), more=core.slips(formula, parts)) == 0


def test_the_nearest_of_two_hints_is_given():
    hints = {"first": (2.0, "first"), "second": (2.0005, "second"), "third": (1.0001, "never nearer than the truth")}
    for value, code in ((2.0, "first"), (2.0005, "second"), (1.0003, "value")):
        with pytest.raises(Wrong) as wrong:
            compare(value, 1.0, 1e-5, hints=hints)
        assert wrong.value.code == code


def test_a_list_of_numbers_is_a_vector_and_nothing_else():
    truth = torch.tensor([1.0, 2.0])
    for value in ([1.0, 2], [torch.tensor(1.0), np.float32(2)], (truth.numpy())):
        assert compare(value, truth) == 0
    for value, wanted in (
        ([1.0], 1.0),
        ([[1.0, 2.0]], truth[None]),
        ([1.0, "2"], truth),
        ([True, 2.0], truth),
        ([], truth),
    ):
        with pytest.raises(Wrong) as wrong:
            compare(value, wanted)
        assert wrong.value.code == "type"


def test_the_limit_is_printed_as_it_is():
    with pytest.raises(Wrong, match="1.5e-03 would pass"):
        compare(1.1, 1.0, 1.5e-3)


def test_classes():
    assert outcome(Layer, "99-layer").status == "right"
    assert outcome(LayerStub, "99-layer").status == "not attempted"
    assert outcome(stub, "99-layer").status == "not attempted"
    assert outcome(LayerWithoutForward, "99-layer").code == "raises"
    assert outcome(lambda n: None, "99-layer").code == "none"


def test_check_that_fails_itself_does_not_raise():
    body = "@exercise('99-broken', 'broken')\ndef check_broken(answer, rng):\n    answer().no_such_attribute\n"
    exec(compile(body, str(Path(core.__file__).with_name("lecture99.py")), "exec"), {"exercise": exercise})
    assert outcome(lambda: 1, "99-broken").code == "check"


def test_inputs_are_fresh_and_the_notebooks_random_numbers_untouched():
    seen = []
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    for _ in range(2):
        outcome(lambda x: seen.append(x.clone()) or 2 * x + 0 * torch.rand(1))
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(torch.rand(1), expected)
    core.run("99-double", lambda x: seen.append(x.clone()) or 2 * x, seed=3)
    core.run("99-double", lambda x: seen.append(x.clone()) or 2 * x, seed=3)
    assert torch.equal(seen[4], seen[6])


def endless(x):
    while True:
        pass


def endless_products(x):
    x = x @ x.T
    while True:
        x = x @ x


def endless_catching(x):
    while True:
        try:
            x = 2 * x
        except Exception:
            pass


def caught(x):
    try:
        while True:
            pass
    except:  # noqa: E722
        return 2 * x


def sleeping(x):
    time.sleep(100)


def catching_all(x):
    while True:
        try:
            with torch.no_grad():
                time.sleep(0.01)
        except:  # noqa: E722
            pass


@pytest.mark.parametrize("answer", [endless, endless_products, endless_catching, caught, sleeping, catching_all])
def test_time_limit(answer, monkeypatch):
    core.EXERCISES["99-double"].limit = 0.4
    before = signal.getsignal(signal.SIGINT)
    start = time.monotonic()
    found = outcome(answer)
    assert found.code == "timeout"
    assert ("only waited" if answer in (sleeping, catching_all) else "endless loop") in found.line
    assert time.monotonic() - start < 10
    assert threading.active_count() == 1 or not any("_watch" in thread.name for thread in threading.enumerate())
    assert signal.getsignal(signal.SIGINT) is before and sys.gettrace() is None


def waiting_in_pdb(x):
    """A breakpoint, at which one looks about for a while before going on."""
    commands = io.StringIO("p x\nimport time; time.sleep(2)\nc\n")
    pdb.Pdb(stdin=commands, stdout=io.StringIO(), nosigint=True, readrc=False).set_trace()
    return 2 * x


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("answer", [waiting_in_pdb])
def test_no_time_limit_for_who_looks_with_a_debugger(answer, thread, monkeypatch):
    core.EXERCISES["99-double"].limit = 0.3
    found = []
    if thread:
        runner = threading.Thread(target=lambda: found.append(outcome(answer)))
        runner.start()
        runner.join()
    else:
        found.append(outcome(answer))
    sys.settrace(None)
    assert found[0].code != "timeout", found[0]


def test_an_endless_loop_after_a_breakpoint_is_still_stopped():
    core.EXERCISES["99-double"].limit = 0.3

    def answer(x):
        pdb.Pdb(stdin=io.StringIO("c\n"), stdout=io.StringIO(), nosigint=True, readrc=False).set_trace()
        while True:
            pass

    assert outcome(answer).code == "timeout"


@pytest.mark.parametrize("way", ["other thread", "without pthread_kill"])
def test_time_limit_where_signals_differ(way, monkeypatch):
    core.EXERCISES["99-double"].limit = 0.4
    found = []
    if way == "other thread":
        thread = threading.Thread(target=lambda: found.append(outcome(endless)))
        thread.start()
        thread.join()
    else:  # as on Windows
        monkeypatch.delattr(signal, "pthread_kill", raising=False)
        found.append(outcome(endless))
    assert found[0].code == "timeout"


def test_a_real_interrupt_passes_through():
    def interrupted(x):
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            core.run("99-double", interrupted)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, BaseException, SystemExit(0), RecursionError])
def test_whatever_is_raised_becomes_a_line(error):
    def answer(x):
        raise error

    assert outcome(answer).code == "raises"


def test_exit_in_a_notebook_does_not_shut_it_down(monkeypatch):
    """There exit() raises nothing: it asks the shell, which stops the kernel once the cell is over."""
    asked = []
    shell = type("Shell", (), {"ask_exit": lambda self: asked.append(True)})()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)

    def leaves(x):
        shell.ask_exit()
        return 2 * x

    assert outcome(leaves).code == "raises" and not asked and not vars(shell)


def test_floods_of_text_are_cut(capsys):
    def talkative(x):
        for i in range(10_000):
            print("step", i)
        return 2 * x

    check("99-double", talkative)
    printed = capsys.readouterr().out
    assert "step 9\n" in printed and "more than is shown" in printed and len(printed) < 6000
    assert printed.endswith(f"{outcome(talkative).line}\n")


def test_the_default_dtype_comes_back():
    def switches(x):
        torch.set_default_dtype(torch.float64)
        return 2 * x

    assert outcome(switches).status == "right" and torch.get_default_dtype() == torch.float32


def test_one_line_is_printed_and_nothing_raised(capsys):
    for answer in (stub, raises, lambda x: x, lambda x: 2 * x):
        check("99-double", answer)
        assert capsys.readouterr().out.count("\n") == 1


def test_nothing_reaches_stderr(capsys):
    def noisy(x):
        print("careful", file=sys.stderr)
        return 2 * x

    check("99-double", noisy)
    printed = capsys.readouterr()
    assert printed.err == "" and "careful" in printed.out and "right" in printed.out


@pytest.mark.parametrize("variable", ["COURSE_STRICT", "NBGRADER_EXECUTION"])
def test_strict(variable, monkeypatch, capsys):
    monkeypatch.setenv(variable, {"COURSE_STRICT": "1"}.get(variable, "autograde"))
    check("99-double", lambda x: 2 * x)
    for answer, words in ((stub, "not attempted yet"), (lambda x: x, "This is x itself")):
        with pytest.raises(AssertionError, match=words):
            check("99-double", answer)


def test_exchanged_arguments_are_named():
    with pytest.raises(ValueError, match='the number comes first: check\\("99-double", '):
        check(len, "99-double")


def test_unknown_exercise_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"99-nothing.*99-double"):
        check("99-nothing", stub)


def test_same_id_in_two_files_is_refused():
    with pytest.raises(ValueError, match="twice"):
        exec("@exercise('99-double', 'again')\ndef body(answer, rng): pass", {"exercise": exercise})


def test_numbers():
    for value in (2, 2.0, torch.tensor(2.0), torch.tensor([2.0]), np.float32(2), np.array([[2.0]])):
        assert expect_number(value) == 2.0
        assert compare(value, 2.0) == 0
    for value, code in ((None, "type"), ("2", "type"), (True, "type"), (torch.ones(2), "shape"), (float("nan"), "nan")):
        for test in (expect_number, lambda v: compare(v, 1.0)):
            with pytest.raises(Wrong) as wrong:
                test(value)
            assert wrong.value.code == code


def test_shapes_and_tuples():
    assert expect_tensor(torch.ones(2, 3), (None, 3)).shape == (2, 3)
    assert expect_tuple([1, 2], 2) == (1, 2)
    for call, code in (
        (lambda: expect_tensor(torch.ones(2, 3), (None, 2)), "shape"),
        (lambda: expect_tensor(torch.ones(2), (2, 1)), "shape"),
        (lambda: expect_tensor([1.0]), "type"),
        (lambda: expect_tuple(1, 2), "type"),
        (lambda: expect_tuple((1,), 2), "shape"),
    ):
        with pytest.raises(Wrong) as wrong:
            call()
        assert wrong.value.code == code


def test_choice():
    for value in ("b", " B\n", "(b)", "b."):
        expect_choice(value, "abc", "b", "no")
    for value, code in ((None, "type"), (1, "type"), ("d", "option"), ("a", "choice-a")):
        with pytest.raises(Wrong) as wrong:
            expect_choice(value, "abc", "b", {"a": "hint", "c": "hint"})
        assert wrong.value.code == code


def test_compare_sign_scale_and_ambiguous_hints():
    v = torch.tensor([0.6, 0.8])
    compare(-v, v, up_to_sign=True)
    for value in (-v, v + 1e-3, 1e-3 * v):
        with pytest.raises(Wrong):
            compare(value, v)
    with pytest.raises(Wrong):
        compare(2e-9 * v, 1e-9 * v)  # relative, so small numbers are compared just as strictly
    assert compare(v, v, hints={"same": (v.clone(), "never")}) == 0  # a hint that equals the truth is no hint
    with pytest.raises(Wrong) as wrong:
        compare(2 * v, v, hints={"same": (v.clone(), "never"), "double": (2 * v, "twice")})
    assert wrong.value.code == "double"


def test_words_of_compare_and_of_long_messages():
    for value, truth, words in (
        (2.0, 1.0, "a relative error of"),
        (torch.ones(2), torch.zeros(2) + 2, "largest expected entry"),
    ):
        with pytest.raises(Wrong, match=words):
            compare(torch.as_tensor(value), truth)
    words = ["seventeen"] * 40

    def long_winded(x):
        raise ValueError(" ".join(words))

    shown = outcome(long_winded).line.split("ValueError: ")[1].split(" ...")[0]
    assert set(shown.split()) == {"seventeen"} and len(shown) <= 160


def test_every_exercise_is_tested():
    cases = []
    for path in sorted(Path(__file__).parent.glob("test_checks_*.py")):
        cases += importlib.import_module(f"{path.stem}").CASES
    registered = set()
    for path in sorted((Path(core.__file__).parent).glob("lecture*.py")):
        core.EXERCISES.clear()
        importlib.reload(importlib.import_module(f"course_utils.checks.{path.stem}"))
        number = int(path.stem.removeprefix("lecture"))
        assert all(int(id.split(".")[0]) == number for id in core.EXERCISES), path.name
        registered |= set(core.EXERCISES)
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids)
    assert set(ids) == registered
