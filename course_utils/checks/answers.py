"""What a check does with a student's answer: is it of the right kind, is it near the truth, or near a known mistake?"""

import itertools
import math
import sys

import torch


class Wrong(Exception):
    """A recognised mistake: ``Wrong(code, message)``. The code is for the tests, the message for the student."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def expect_tensor(value, shape=None, what="The result"):
    """Return ``value`` as a detached tensor, or raise Wrong if it is none, has another shape or is not finite.

    ``shape`` may hold None for a free dimension. Numpy arrays and numbers (for shape ``()``) are welcome.
    """
    number = shape is not None and len(shape) == 0
    tensor = as_tensor(value)
    if tensor is None or tensor.is_complex():
        found = kind(value) if tensor is None else "complex: take the real part, or avoid what made it so"
        raise Wrong("type", f"{what} should be a {'number' if number else 'tensor'}, but it is {found}.")
    if number and tensor.numel() == 1:
        tensor = tensor.reshape(())
    fits = shape is None or (len(shape) == tensor.dim() and all(a in (None, b) for a, b in zip(shape, tensor.shape)))
    if not fits:
        wanted = "be a single number" if number else f"have the shape {_shape(shape)}"
        raise Wrong("shape", f"{what} should {wanted}, but it has the shape {_shape(tensor.shape)}.")
    if not bool(torch.isfinite(tensor).all()):
        raise Wrong(
            "nan", f"{what} contains NaN or infinity. Does it divide by zero, or take the root of a negative number?"
        )
    return tensor


def expect_number(value, what="The result"):
    """Return ``value`` (a number or a tensor with one element) as a float, or raise Wrong."""
    return float(expect_tensor(value, (), what))


def expect_tuple(value, n, what="The result"):
    """Return ``value`` as a tuple of ``n`` things, or raise Wrong."""
    if not isinstance(value, (tuple, list)):
        raise Wrong("type", f"{what} should be {n} things, separated by commas, but it is {kind(value)}.")
    if len(value) != n:
        raise Wrong("shape", f"{what} should be {n} things, but there are {len(value)}.")
    return tuple(value)


def expect_choice(value, options, right, why):
    """Check the answer to a question with options; ``why``: a hint for each wrong option, or one for all.

    Returns why the right option is right, if ``why`` says it: a lucky guess teaches nothing without a reason.
    """
    listed = ", ".join(f'"{option}"' for option in options)
    if not isinstance(value, str):
        raise Wrong("type", f"Return one of {listed}, as a string; it is {kind(value)}.")
    found = [option for option in options if option.lower() == value.strip(" \t\n.()\"'").lower()]
    if not found:
        raise Wrong("option", f"{value!r} is none of the options; return one of {listed}.")
    if found[0] != right:
        raise Wrong(f"choice-{found[0]}", f'Not "{found[0]}". {why if isinstance(why, str) else why[found[0]]}')
    return None if isinstance(why, str) else why.get(right)


def distance(value, truth):
    """Largest difference of two tensors or numbers, relative to the largest entry of ``truth`` (absolute if that is 0).

    Infinite if the shapes differ (one element fits any shape of one element) or ``value`` is not finite.
    """
    value, truth = (torch.as_tensor(x).detach().cpu() for x in (value, truth))
    value, truth = (x.to(torch.complex128 if x.is_complex() else torch.float64) for x in (value, truth))
    if truth.numel() == 1 and value.numel() == 1:
        value, truth = value.reshape(()), truth.reshape(())
    if value.shape != truth.shape or not bool(torch.isfinite(value).all()):
        return math.inf
    return float((value - truth).abs().max() / (truth.abs().max() or 1.0)) if truth.numel() else 0.0


def compare(value, truth, tol=1e-4, what="The result", hints=None, up_to_sign=False, more=()):
    """Return the relative error of ``value``, or raise Wrong with the matching hint.

    ``hints`` maps a code to ``(wrong_value, message)``: what a recognisable mistake would give, from independent truth;
    a list of wrong values may share one message. ``more``: further triples (code, wrong_value, message), such as those of
    ``slips``, looked at only if no hint matches. ``tol`` is relative to the largest entry of the truth and is widened to what the
    dtype of ``value`` can hold. ``up_to_sign`` accepts ``-truth`` as well (singular vectors).
    """
    truth = torch.as_tensor(truth).detach().cpu()
    value = as_vector(value) if truth.dim() == 1 else value
    tensor = as_tensor(value)
    if tensor is not None:
        if tensor.is_floating_point():
            tol = max(tol, 50 * torch.finfo(tensor.dtype).eps)
        error = min(distance(tensor, truth), distance(tensor, -truth) if up_to_sign else math.inf)
        if error <= tol and not tensor.is_complex() and not (truth.dim() == 0 and tensor.numel() != 1):
            return error

        def known():
            for code, (wrong, message) in (hints or {}).items():
                for one in wrong if isinstance(wrong, (list, tuple)) else [wrong]:
                    yield code, one, message
            yield from more

        nearest, hint = min(max(tol, 1e-3), 0.2 * error), None
        for code, wrong, message in known():
            away = distance(tensor, wrong)
            if hint and "+" in code:  # two slips have to fit far better than the one that fits already
                away *= 100
            if away <= nearest and distance(wrong, truth) > 2 * tol:
                nearest, hint = away, Wrong(code, message)
                if away <= 0.1 * tol:
                    break
        if hint:
            raise hint
    tensor = expect_tensor(value, tuple(truth.shape), what)
    got = f" (expected {float(truth):.5g}, got {float(tensor):.5g})" if truth.dim() == 0 else ""
    if 0 < truth.dim() and 0 < truth.numel() <= 9:
        got = f" (expected {written(truth)}, got {written(tensor)})"
    off = f"has a relative error of {error:.1e}" if truth.numel() == 1 and float(truth.abs().max()) else None
    off = off or f"is off by {error:.1e}" + (" of the largest expected entry" if truth.numel() > 1 else "")
    limit = f"{tol:.1e}".replace(".0e", "e")
    raise Wrong("value", f"{what} {off}; {limit} would pass{got}.")


def over(answer, cases, case, small=()):
    """Largest error of ``case(*c)`` over ``cases``. A wrong value without a hint is shown on a ``small`` case, if it can.

    ``small``: the smallest first. On the first one that is wrong too, input, expected and found value are written out.
    """
    try:
        return max(case(*c) for c in cases)
    except Wrong as wrong:
        if wrong.code != "value":
            raise
        for c in small:
            try:
                case(*c)
            except Wrong as smaller:
                if smaller.code == "value":
                    inputs = [f"{name} = {written(x)}" for name, x in answer.given if 0 < x.numel() <= 9]
                    shown = f" The smallest failing case: {', '.join(inputs)}." if inputs else ""
                    raise Wrong("value", f"{smaller}{shown}") from None
        raise


def slips(formula, parts, most=2):
    """Triples (code, wrong value, message) for ``compare(more=...)``: what one slip gives, then what two give.

    ``formula(**choices)`` with no choice at all is the truth. ``parts`` holds, for each argument of it, what a student
    may take in its place: {argument: {code: (choice, message)}}. The code of two slips is "one+other".
    """
    single = [(part, code, *slip) for part, some in parts.items() for code, slip in some.items()]
    for count in range(1, most + 1):
        for some in itertools.combinations(single, count):
            choices = {part: choice for part, _, choice, _ in some}
            if len(choices) == count:  # not two in one place
                opening = "Two mistakes. " if count == 2 else ""
                message = opening + " And: ".join(message for *_, message in some)
                yield "+".join(code for _, code, *_ in some), formula(**choices), message


def tidy(shape, rng):
    """A random tensor for a smallest case: entries with one digit after the point, so that it can be typed in."""
    return torch.randint(-20, 21, shape, generator=rng) / 10


def small_matrices(rng):
    """Two 2 x 2 matrices to show a mistake on: diag(2, 1), and one on which more mistakes show."""
    yield torch.diag(torch.tensor([2.0, 1.0]))
    while True:
        W = tidy((2, 2), rng)
        s = torch.linalg.svdvals(W)
        if s[1] < 0.7 * s[0] and abs(float(s[0]) - 1) > 0.2 and float(W.abs().min()) > 0.2:
            yield W
            return


def written(tensor):
    """A small tensor in one line, with three digits: [[1, 0.25], [-0.3, 2]]."""

    def text(x):
        return "[" + ", ".join(map(text, x)) + "]" if isinstance(x, list) else f"{x + 0.0:.3g}"

    return text(tensor.detach().cpu().double().tolist())


def as_tensor(value):
    """A detached tensor on the CPU from a tensor, a number or something of numpy's; None from anything else."""
    if type(value).__module__ == "numpy" and hasattr(value, "copy") and getattr(value, "dtype", "").kind in "biufc":
        value = torch.as_tensor(value.copy())  # a copy, because torch refuses negative strides
    elif isinstance(value, (int, float, complex)) and not isinstance(value, bool):
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            value = math.inf
        value = torch.as_tensor(value, dtype=torch.complex128 if isinstance(value, complex) else torch.float64)
    if not isinstance(value, torch.Tensor) or value.is_meta or value.is_quantized:
        return None
    return (value if value.layout == torch.strided else value.to_dense()).detach().cpu()


def as_vector(value):
    """``value``, or the vector that a list of numbers stands for."""
    numbers = [as_tensor(x) for x in value] if type(value) is list else [None]
    if numbers and all(x is not None and x.shape == () and not x.is_complex() for x in numbers):
        return torch.stack([x.double() for x in numbers])
    return value


def kind(value):
    """Words for what ``value`` is."""
    return "None" if value is None else f"of type {type(value).__name__}"


def _shape(shape):
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
