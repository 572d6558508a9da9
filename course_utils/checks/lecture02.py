"""Checks of lecture 02: the derivatives of spectral normalization, and the layer."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from course_utils.checks.core import (
    Wrong,
    compare,
    distance,
    exercise,
    expect_choice,
    expect_number,
    expect_tensor,
    expect_tuple,
    guarded,
    over,
    slips,
    small_matrices,
    tidy,
)
from course_utils.normalization import spectral_norm


def matrix(shape, rng):
    """A random matrix whose largest singular value is well apart from the second, in the default dtype."""
    n = min(shape)
    u, v = (torch.linalg.qr(torch.randn(size, n, generator=rng, dtype=torch.float64)).Q for size in shape)
    s = torch.rand(n, generator=rng, dtype=torch.float64).sort(descending=True).values * 0.5 + 0.2
    s[0] = 1
    scale = 1.5 + torch.rand((), generator=rng, dtype=torch.float64)  # never 1: a forgotten sigma must show
    return ((u * s * scale) @ v.T).to(torch.get_default_dtype())


def triplet(W):
    """sigma, u_1 and v_1 in double precision."""
    u, s, vh = torch.linalg.svd(W.double(), full_matrices=False)
    return s[0], u[:, 0], vh[0]


COLUMN = "One of the two vectors is not the right one: u_1 is the first column of U, v_1 the first row of Vh."


def wrong_pairs(W):
    """What ``outer(u, v)`` gives with a column of Vh or a row of U; only a square W lets it run to the end."""
    if W.shape[0] == W.shape[1]:
        for A in (W, W.double()):  # the signs of singular vectors depend on the precision
            U, _, Vh = torch.linalg.svd(A, full_matrices=False)
            yield from (torch.outer(U[:, 0], Vh[:, 0]), torch.outer(U[0], Vh[0]), torch.outer(U[0], Vh[:, 0]))


@exercise("2.1", "The gradient of sigma")
def check_sigma_gradient(answer, rng):
    def case(W):
        U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        truth = torch.outer(U[:, 0], Vh[0])
        hints = {
            "transposed": (truth.T, "This is v u^T, the transposed gradient: u belongs to the rows of W, so it comes first."),
            "scaled": (S[0] * truth, "This is sigma u v^T, the best rank-one approximation of W. The gradient has no factor sigma."),
            "sign": (-truth, "The sign is wrong: if W moves along u v^T, sigma grows."),
            "all": (U @ Vh, "This is U V^T with all singular vectors, the gradient of the *sum* of singular values. Only the first pair counts."),
            "smallest": (torch.outer(U[:, -1], Vh[-1]), "This is the pair of the smallest singular value. torch.linalg.svd puts the largest first."),
            "second": (torch.outer(U[:, 1 % len(S)], Vh[1 % len(S)]), "This is the second pair. Python counts from 0: the first has the index 0."),
            "normalized": (W.double() / S[0], "This is W / sigma(W), the normalized weight; wanted is the derivative of sigma."),
            "frobenius": (W.double() / W.double().norm(), "This is W divided by its Frobenius norm, the derivative of *that* norm. Only the first pair of singular vectors counts for sigma."),
            "absolute": (truth.abs(), "The entries have lost their signs: u_1 v_1^T without absolute values."),
            "column": (list(wrong_pairs(W)), COLUMN),
            "one": (S[0], "This is sigma itself, a number; wanted is its derivative by every entry of W, a matrix."),
        }  # fmt: skip
        return compare(answer(W), truth, 1e-4, "The gradient", hints)

    shapes = [(4, 4), (3, 5), (6, 2), (1, 4), (5, 1)]
    return over(answer, ((matrix(shape, rng),) for shape in shapes), case, [(W,) for W in small_matrices(rng)])


@exercise("2.2", "A step in any direction")
def check_direction(answer, rng):
    def case(W, H):
        s, u, v = triplet(W)
        A, G = W.double(), H.double()
        N, uv, c = A / s, torch.outer(u, v), u @ G @ v
        orthogonal = (
            "This is the orthogonal projection away from W. Sigma changes by u^T H v, which asks u v^T and not W."
        )
        product = (
            "A matrix product stands where (10) has a number: the sum over i, j of [u v^T]_ij H_ij, which is u^T H v."
        )
        parts = {
            "number": {
                "ignored": (0 * c, "This treats sigma as a constant. It changes with W, too: that is the second term of (10)."),
                "orthogonal": ((G * N).sum(), orthogonal),
                "entrywise": (uv * G, "u v^T and H are multiplied entry by entry, without the sum: in (10) they give one number, u^T H v."),
            },
            "along": {
                "raw": (A, "Subtract a multiple of W_SN, not of W: one factor 1/sigma is missing in the second term."),
                "rank-one": (uv, "Subtract along W_SN, not along u v^T: look once more at what stands behind the bracket in (10)."),
            },
            "outside": {
                "undivided": (1.0, "The overall factor 1/sigma(W) of (10) is missing."),
                "squared": (1 / s**2, "There is one factor 1/sigma(W) too many."),
            },
            "sign": {"sign": (-1.0, "The sign of the second term is wrong: when sigma grows, W / sigma becomes smaller.")},
        }  # fmt: skip
        hints = {
            "adjoint": ((G - (G * N).sum() * uv) / s, "This is (12), the gradient. There W_SN and u v^T have changed places; go back to (10) and sum over i, j."),
            "projection": ((G - (G * A).sum() / A.square().sum() * A) / s, orthogonal),
            "unchanged": (G, "This is H itself. How does W / sigma(W) move when W moves along H?"),
            "gradient-only": (c, "This is how fast sigma changes, a number. Put it into the quotient rule."),
            "second-term": ([c * N / s, -c * N / s, c * N], "This is the second term of (10) alone; the first, H / sigma, is missing."),
            "whole-step": (
                [M / torch.linalg.matrix_norm(M, ord=2) - k * N for M in (A + G,) for k in (0, 1)] + [N + (G - c * N) / s],
                "This is a whole step to W + H. The derivative is the change for a small t, divided by t: a formula, no step.",
            ),
        }  # fmt: skip
        if W.shape[0] == W.shape[1]:
            products = [uv @ G, uv.T @ G, uv @ G.T, G @ uv, G @ uv.T]
            hints["matrix-product"] = (
                [(G - P @ M) / s for P in products for M in (N, A)] + [(G - N @ P) / s for P in products],
                product,
            )
            parts["number"]["matrix-product"] = (uv @ G, product)
            parts["number"]["transposed-product"] = (uv.T @ G, product)
            parts["number"]["swapped"] = (
                v @ G @ u,
                "u and v have changed places: u^T H v, with u on the side of the rows. It only runs because this W is square.",
            )
            for number, wrong in enumerate(wrong_pairs(W)):
                parts["number"]["column" + "'" * number] = ((wrong * G).sum(), COLUMN)

        def formula(number=c, along=N, outside=1 / s, sign=1.0):
            return (G - sign * number * along) * outside

        return compare(answer(W, H), formula(), 1e-4, "The derivative", hints, more=plain(slips(formula, parts)))

    shapes = [(4, 4), (3, 5), (6, 2), (1, 4)]
    cases = ((matrix(shape, rng), torch.randn(shape, generator=rng)) for shape in shapes)
    return over(answer, cases, case, [(W, tidy((2, 2), rng)) for W in small_matrices(rng)])


def plain(triples):
    """The triples with the primes taken off their codes, which only keep several wrong values of one kind apart."""
    return ((code.replace("'", ""), value, message) for code, value, message in triples)


@exercise("2.3", "Equation (12) by hand")
def check_gradient(answer, rng):
    def case(W, delta, h):
        n, d_out = delta.shape
        s, u, v = triplet(W)
        A = W.double()
        N, uv = A / s, torch.outer(u, v)
        E = delta.double().T @ h.double() / n
        M = torch.outer(delta.double().mean(0), h.double().mean(0))
        means = "The mean of a product is not the product of the means: E[delta h^T] averages delta_n h_n^T."
        parts = {
            "mean": {
                "sum": (n * E, "Your result is N times too large: E is the mean over the batch, not the sum."),
                "mean-twice": (E / n, "Your result is N times too small: the mean has been taken twice."),
                "features": (E * n / h.shape[1], "E is divided by the number of inputs, h.shape[1]. The mean runs over the examples: len(h)."),
                "outputs": (E * n / d_out, "E is divided by the number of outputs. The mean runs over the examples: len(h)."),
                "means": (M, means),
            },
            "lam": {
                "plain": (lambda E: 0.0, "The term with lambda is missing: this treats sigma(W) as a constant."),
                "lambda-sum": (lambda E: n * (E * N).sum(), "lambda is N times too large: it is a mean over the batch as well."),
                "lambda-entries": (lambda E: (E * N).sum() / d_out, "lambda is too small by d_out: sum delta^T W_SN h over the outputs, take the mean over the examples only."),
                "lambda-first": (lambda E: u @ E @ v, "This lambda is only e_1 = u^T E v. lambda = <E, W_SN> contains all singular directions."),
                "lambda-raw": (lambda E: (E * A).sum(), "lambda contains W_SN h, the normalized weight; yours is computed with W."),
                "lambda-entrywise": (lambda E: E * N, "E and W_SN are multiplied entry by entry, without the sum: lambda is one number."),
                "lambda-mean": (lambda E: (E * N).mean(), "lambda is the sum over the entries of E and W_SN, not their mean."),
            },
            "along": {
                "weight": (N, "This is (12) with W_SN in place of u v^T. lambda multiplies u v^T; W_SN stands inside lambda."),
                "raw-weight": (A, "This is (12) with W in place of u v^T. lambda multiplies u v^T."),
            },
            "outside": {
                "undivided": (1.0, "The overall factor 1/sigma(W) is missing."),
                "squared": (1 / s**2, "There is one factor 1/sigma(W) too many."),
            },
            "sign": {"sign": (-1.0, "The sign of the second term is wrong: it is subtracted.")},
        }  # fmt: skip
        hints = {
            "nothing": (E, "This is the gradient with respect to W_SN. What the optimizer moves is W."),
            "adjoint": ((E - (u @ E @ v) * N) / s, "This is (10) applied to E. In (12) W_SN and u v^T have changed places: lambda u v^T, lambda = <E, W_SN>."),
            "means-outside": ((M - (E * N).sum() * uv) / s, means),
            "sum-outside": ((n * E - (E * N).sum() * uv) / s, "The first term is N times too large: E is the mean over the batch, in both terms."),
        }  # fmt: skip
        if W.shape[0] == W.shape[1]:
            parts["mean"]["transposed"] = (E.T, "E[delta h^T] has the rows of delta and the columns of h; yours is its transpose.")  # fmt: skip
            parts["along"]["transposed-pair"] = (
                uv.T,
                "This is v u^T: u belongs to the rows, so u_1 v_1^T has u first.",
            )
            parts["lam"]["lambda-product"] = (lambda E: E @ N, "lambda is a number, the sum over the entries of E * W_SN, and no matrix product.")  # fmt: skip
            for number, wrong in enumerate(wrong_pairs(W)):
                parts["along"]["column" + "'" * number] = (wrong, COLUMN)

        def formula(mean=E, lam=lambda E: (E * N).sum(), along=uv, outside=1 / s, sign=1.0):
            return (mean - sign * lam(mean) * along) * outside

        truth = formula()
        hints["descent"] = (-truth, "This is the gradient of the loss -V: D climbs V.")
        if W.shape[0] == W.shape[1]:
            hints["transposed-all"] = (truth.T, "This is the transpose of the gradient.")
        return compare(answer(W, delta, h), truth, 1e-4, "The gradient", hints, more=plain(slips(formula, parts)))

    def batch(n, W):
        h = torch.randn(n, W.shape[1], generator=rng)
        return W, torch.randn(n, W.shape[0], generator=rng) + h @ W.T, h  # so that lambda is not small

    shapes = [(7, (4, 4)), (9, (3, 5)), (8, (6, 2)), (1, (2, 3)), (5, (1, 4))]
    small = [(W, tidy((2, 2), rng), tidy((2, 2), rng)) for W in small_matrices(rng)]
    return over(answer, (batch(n, matrix(shape, rng)) for n, shape in shapes), case, small)


@exercise("2.4", "Stop the layer")
def check_vanish(answer, rng):
    worst = 0.0
    for d_out, d_in in [(3, 5), (4, 4), (5, 2), (1, 3)]:  # not square first: a wrong order shows in the shapes
        W = matrix((d_out, d_in), rng)
        delta, h = expect_tuple(answer(W), 2, "Your answer, (delta, h),")
        delta = expect_tensor(delta, None, "delta").double()
        h = expect_tensor(h, None, "h").double()
        if delta.dim() != 2 or h.dim() != 2 or len(delta) != len(h):
            raise Wrong("shape", f"delta should be N x d_out and h N x d_in; they have the shapes {tuple(delta.shape)} and {tuple(h.shape)}.")  # fmt: skip
        if (delta.shape[1], h.shape[1]) == (d_in, d_out) and d_in != d_out:
            raise Wrong(
                "order", "delta and h seem to have changed places: return (delta, h), with u_1 in delta and v_1 in h."
            )
        if (delta.shape[1], h.shape[1]) != (d_out, d_in):
            raise Wrong("shape", f"For a {d_out} x {d_in} weight delta needs {d_out} columns and h {d_in}; yours have {delta.shape[1]} and {h.shape[1]}.")  # fmt: skip
        if len(h) < 2:
            raise Wrong("single", "One example is not a batch: N should be at least 2.")
        lengths = torch.linalg.svdvals(h)
        if lengths[1] < 1e-3 * lengths[0] or lengths[0] == 0:
            raise Wrong("parallel", "All rows of h are multiples of one vector. Add something to them that averages out.")  # fmt: skip
        s, u, v = triplet(W)
        E, uv = delta.T @ h / len(h), torch.outer(u, v)
        if E.norm() <= 1e-4 * (delta.norm(dim=1) * h.norm(dim=1)).mean():
            raise Wrong("zero", "E[delta h^T] is zero: then no layer would move. It should be a multiple of u_1 v_1^T, and not the multiple 0.")  # fmt: skip
        error = float((E - (E * W.double()).sum() / s * uv).norm() / E.norm())
        if error > 1e-4:
            if (E * W.double()).sum().abs() / (E.norm() * W.double().norm()) > 1 - 1e-6:
                raise Wrong("weight", "E[delta h^T] points along W itself. It should point along u_1 v_1^T.")
            left, sizes, right = torch.linalg.svd(E)
            if len(sizes) == 1 or sizes[1] < 1e-5 * sizes[0]:  # one pair of vectors, but which?
                sides = abs(float(left[:, 0] @ u)) > 1 - 1e-6, abs(float(right[0] @ v)) > 1 - 1e-6
                if sides == (True, False):
                    raise Wrong("not-v1", "E[delta h^T] is u_1 times something else than v_1^T. v_1 is the first row of Vh, and what is added to the h_n has to average out.")  # fmt: skip
                if sides == (False, True):
                    raise Wrong("not-u1", "E[delta h^T] is something else than u_1 times v_1^T. u_1 is the first column of U, the same for every delta_n, or on average.")  # fmt: skip
            raise Wrong("gradient", f"The gradient is not zero: its length is {error:.1e} of that of E[delta h^T] / sigma. Is E[delta h^T] a multiple of u_1 v_1^T?")  # fmt: skip
        worst = max(worst, error)
    return worst


@exercise("2.5", "Predict, then run")
def check_predict(answer, rng):
    word, factor = expect_tuple(answer(), 2, "Your prediction")
    expect_choice(word, ["grows", "shrinks", "stays", "varies"], "grows", {
        "shrinks": "The step is perpendicular to W. What is the length of the hypotenuse of a right-angled triangle?",
        "stays": "Nearly, but not exactly: a step along the tangent leaves the circle. On which side does it end?",
        "varies": "For that, a step would have to point inwards now and then. Which angle does it make with W?",
    })  # fmt: skip
    if isinstance(factor, str):
        try:
            factor = float(factor)
        except ValueError:
            raise Wrong(
                "option", f"The second answer should be a number: 1, 10, 100 or 1000; it is {factor!r}."
            ) from None
    factor = expect_number(factor, "The second answer")
    hints = {
        1: "W is ten times longer, so even a step of the same length turns it less.",
        10: "That would be right if the step had the same length. But V(10 W) = V(W): ten times the distance, the same climb. What does that say about the gradient?",
        1000: "Too much: the gradient at 10 W is a tenth, and the weight it turns is ten times as long.",
    }
    if factor in hints:
        raise Wrong(f"factor-{factor:g}", hints[factor])
    if factor != 100:
        raise Wrong("option", f"The second answer should be 1, 10, 100 or 1000; it is {factor:g}.")
    return (
        "Each step is the leg of a right-angled triangle, so W only grows; at 10 W the gradient is a tenth and the weight "
        "ten times as long, which makes the angle a hundred times smaller."
    )


def _round(W, u, v, start):
    """One round of power iteration that begins with the given `start`, "u" or "v"."""
    if start == "u":
        v = F.normalize(W.T @ u, dim=0)
        return F.normalize(W @ v, dim=0), v
    u = F.normalize(W @ v, dim=0)
    return u, F.normalize(W.T @ u, dim=0)


def _buffers(layer, W, dtype):
    """The buffers _u and _v of a student's layer, or Wrong."""
    d_out, d_in = W.shape
    if not isinstance(layer, nn.Module):
        raise Wrong("type", "MySpectralNorm should be a class derived from nn.Module.")
    buffers, parameters, saved = dict(layer.named_buffers()), dict(layer.named_parameters()), layer.state_dict()
    twice = [n for n, x in saved.items() if n not in ("_u", "_v") and getattr(x, "numel", int)() >= W.numel() > 1]
    if twice:
        raise Wrong("twice", f"The layer keeps the weight as {twice[0]}, so that a model saves it twice. forward is given it.")  # fmt: skip
    for name in ("_u", "_v"):
        if name in parameters:
            raise Wrong(
                "parameter", f"{name} is a parameter, so the optimizer would train it. Use self.register_buffer."
            )
        if name not in buffers or name not in saved:
            raise Wrong("buffer", f"{name} is not a buffer that is saved with the model. Use self.register_buffer(\"{name}\", ...).")  # fmt: skip
    u, v = buffers["_u"], buffers["_v"]
    if u.requires_grad or v.requires_grad:
        raise Wrong(
            "through", "The buffers carry a gradient: compute them under torch.no_grad(), or from weight.detach()."
        )
    if (u.shape, v.shape) == ((d_in,), (d_out,)) and d_in != d_out:
        raise Wrong("swapped", "_u and _v have changed places: _u has d_out entries (rows of the weight), _v has d_in.")
    if (u.shape, v.shape) != ((d_out,), (d_in,)):
        raise Wrong("buffer-shape", f"For a {d_out} x {d_in} weight _u needs the shape ({d_out},) and _v ({d_in},); they have {tuple(u.shape)} and {tuple(v.shape)}.")  # fmt: skip
    if u.dtype != dtype or v.dtype != dtype:
        raise Wrong("dtype", f"The buffers should have the weight's dtype, {dtype}; they have {u.dtype} and {v.dtype}. weight.new_empty(n).normal_() does it.")  # fmt: skip
    for name, vector in (("_u", u), ("_v", v)):
        if not abs(float(vector.norm()) - 1) < 1e-3:
            raise Wrong("unit", f"{name} should have length 1; its length is {float(vector.norm()):.3g}.")
    return u.detach().clone(), v.detach().clone()


def _start(layer, W, rng):
    """Put known vectors near the singular ones, but not on them, into the layer's buffers."""
    _, u1, v1 = triplet(W)
    found = []
    for name, vector in (("_u", u1), ("_v", v1)):
        noise = F.normalize(torch.randn(len(vector), generator=rng, dtype=torch.float64), dim=0)
        found.append(F.normalize(vector + 0.4 * noise, dim=0))
        with torch.no_grad():
            getattr(layer, name).copy_(found[-1])
    return found


@exercise("2.7", "Your own SN layer")
def check_layer(answer, rng):
    worst = 0.0
    for dtype in (torch.get_default_dtype(), torch.float64, torch.float32):
        for shape in [(4, 4), (5, 3), (2, 6)]:
            parameter = nn.Parameter(matrix(shape, rng).to(dtype))
            W, C = parameter.detach().double(), torch.randn(shape, generator=rng, dtype=torch.float64)
            layer = answer(parameter)
            _buffers(layer, W, dtype)
            call = guarded(layer)

            layer.eval()
            u, v = _start(layer, W, rng)
            value = call(parameter)
            moved = _buffers(layer, W, dtype)
            if distance(moved[0], u) > 1e-5 or distance(moved[1], v) > 1e-5:
                raise Wrong(
                    "eval-moves",
                    "In evaluation mode u or v has changed. Only training may move them: if self.training: ...",
                )
            s = u @ W @ v
            hints = {}
            if shape[0] == shape[1]:
                message = "_u and _v have changed places: sigma = u^T W v, with u on the side of the rows of W."
                hints["swapped"] = (W / (v @ W @ u), message)
            worst = max(worst, _output(value, W, s, "in evaluation mode", hints))
            _another_weight(call, W, u, v, s, rng)
            _gradient(value, parameter, W, C, u, v, (u, v), s)

            layer.train()
            u, v = _start(layer, W, rng)
            value = call(parameter)
            new = _buffers(layer, W, dtype)
            new = _which_round(new, W, u, v)
            s = new[0] @ W @ new[1]
            hints = {"stale": (W / (u @ W @ v), "The weight is divided by u^T W v of *before* the round. First move u and v, then compute sigma.")}  # fmt: skip
            worst = max(worst, _output(value, W, s, "in training mode", hints))
            _gradient(value, parameter, W, C, u, v, new, s)

            _start(layer, W, rng)
            parameter.grad = None
            loss = (call(parameter) * C.to(dtype)).sum() - (call(parameter) ** 2 * C.to(dtype)).sum()
            try:
                loss.backward()
            except RuntimeError as error:
                if "inplace" in str(error):
                    raise Wrong("clone", "Two forward passes and one backward pass fail: the second pass overwrites u and v that the first one still needs. Use self._u.clone() and self._v.clone() for sigma.") from None  # fmt: skip
                raise Wrong("backward", "Two forward passes and one backward pass fail: " + " ".join(str(error).split())[:120]) from None  # fmt: skip
            for _ in range(25):  # and it has to converge
                value = call(parameter)
            top = float(torch.linalg.matrix_norm(value.detach().double(), 2))
            if abs(top - 1) > 1e-2:
                raise Wrong("converge", f"After 25 forward passes in training mode the spectral norm is {top:.3f}, not 1. Does each round go on from the last one?")  # fmt: skip
    return worst


def _output(value, W, s, where, more=None):
    hints = {
        **(more or {}),
        "number": (s, "forward returns sigma, a number. It should return the weight divided by it."),
        "multiplied": (W * s, "The weight is multiplied by sigma. Divide."),
        "exact": (
            W / torch.linalg.matrix_norm(W, 2),
            f"The result {where} is divided by the exact sigma(W); wanted is the estimate u^T W v from the buffers.",
        ),
        "frobenius": (W / W.norm(), "The weight is divided by its Frobenius norm, not by u^T W v."),
        "unchanged": (W, f"The weight comes back unchanged {where}. Divide it by u^T W v in both modes."),
    }
    return compare(value, W / s, 1e-4, f"The weight {where}", hints)


def _another_weight(call, W, u, v, s, rng):
    """In evaluation mode, with a weight that is not the one of before, whose sigma is small and u^T W v negative."""
    noise = torch.randn(W.shape, generator=rng, dtype=torch.float64)
    other = -0.3 * (W + 0.1 * noise).to(torch.get_default_dtype()).double()
    value = call(other.to(call.wrapped._u.dtype))
    compare(value, other / (u @ other @ v), 1e-4, "Another weight in evaluation mode", {
        "own-weight": (W / s, "forward returns what belongs to an earlier weight. Compute it from the weight that it is given."),
        "old-sigma": (other / s, "sigma belongs to an earlier weight. Compute u^T W v anew in each forward pass, from the weight that it is given."),
        "absolute": (-other / (u @ other @ v), "u^T W v may be negative as long as u and v do not belong to W. Divide by it as it is."),
        "small-sigma": (other, "A weight whose sigma is below 1 comes back unchanged. It has to be divided as well."),
    })  # fmt: skip


def _which_round(new, W, u, v):
    """Which legitimate round led from (u, v) to `new`; returns its result in double precision."""

    def same(a, b):
        return distance(a[0], b[0]) < 1e-4 and distance(a[1], b[1]) < 1e-4

    right = [_round(W, u, v, start) for start in "uv"]
    for candidate in right:
        if same(new, candidate):
            return candidate
    if same(new, (u, v)):
        raise Wrong("frozen", "A forward pass in training mode has not moved u and v. Write the new vectors into the buffers: self._u.copy_(u).")  # fmt: skip
    if any(same(new, (candidate[0], v)) or same(new, (u, candidate[1])) for candidate in right):
        raise Wrong("half", "Only one of the two buffers has moved in training mode. Both belong to a round.")
    for start, candidate in zip("uv", right):
        again = candidate
        for _ in range(2, 21):
            again = _round(W, *again, start)
            if same(new, again) and not same(candidate, again):
                raise Wrong("rounds", "The buffers have moved by more than one round of power iteration. One a pass is asked for.")  # fmt: skip
    if same(new, (F.normalize(W @ v, dim=0), F.normalize(W.T @ u, dim=0))):
        raise Wrong("simultaneous", "Both new vectors are computed from the old ones. In (18)-(19) the second uses the first: after v, u <- W v with the *new* v.")  # fmt: skip
    if W.shape[0] == W.shape[1]:
        if any(same(new, _round(W.T, u, v, start)) for start in "uv"):
            raise Wrong("transposed", "The two products have changed places: v <- W^T u, u <- W v. It only runs because this W is square.")  # fmt: skip
    raise Wrong("round", "After one forward pass in training mode u and v are not what one round of (18)-(19) gives. Did it start from the buffers?")  # fmt: skip


def _gradient(value, parameter, W, C, u, v, new, s):
    """The gradient of <C, value>, with u and v constant."""
    if not value.requires_grad:
        raise Wrong("no-grad", "No gradient reaches the weight: only the round belongs under torch.no_grad(), not the division.")  # fmt: skip
    unrolled = "The gradient flows through u and v. Compute the round under torch.no_grad()."
    try:
        (gradient,) = torch.autograd.grad(
            (value * C.to(value.dtype)).sum(), parameter, retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise Wrong("through", f"{unrolled} Here it meets buffers that were overwritten afterwards.") from None
    if gradient is None:
        raise Wrong("no-grad", "No gradient reaches the weight: compute the result from the weight that forward is given, without detach.")  # fmt: skip
    through = {}
    for start in "uv":
        leaf = W.clone().requires_grad_()
        a, b = _round(leaf, u, v, start)
        through[start] = torch.autograd.grad((leaf / (a @ leaf @ b) * C).sum(), leaf)[0]
    truth = (C - (C * W / s).sum() * torch.outer(*new)) / s
    detached = (
        "sigma is detached, so it counts as a constant. Only u and v are constants; sigma = u^T W v depends on W."
    )
    compare(gradient, truth, 1e-4, "The gradient with respect to the weight", {
        "detached": (C / s, detached), "through": (through["u"], unrolled), "through-v": (through["v"], unrolled),
    })  # fmt: skip


@exercise("2.6", "Find the bugs")
def check_bug(answer, rng):
    def case(W, u0):
        A, start = W.double(), u0.double()
        v = F.normalize(A.T @ start, dim=0)
        u = F.normalize(A @ v, dim=0)
        s = u @ A @ v
        W_sn, new_u, new_v = expect_tuple(answer(W, u0), 3, "Your answer, (W_sn, u, v),")
        exact, u1, v1 = triplet(W)
        several = [_round(A, start, v, "u")]
        for _ in range(50):
            several.append(_round(A, *several[-1], "u"))
        later = "These vectors have done more than one round. One round of (18)-(19) a call is asked for."
        exactly = "This is the exact singular vector, by a decomposition or many rounds. One round of (18)-(19) from the given u was asked for."
        turned = "The sign has turned: (18) and (19) leave no choice of it."
        v_hints = {
            "unit": (A.T @ start, "v should have length 1."),
            "order": (u, "u and v have changed places in what you return: (W_sn, u, v)."),
            "exact": ([v1, -v1], exactly),
            "rounds": ([later_v for _, later_v in several[1:]], later),
            "sign": (-v, turned),
        }
        u_hints = {
            "unit": (A @ v, "u should have length 1."),
            "old-u": (start, "The u you return is the old one."),
            "exact": ([u1, -u1], exactly),
            "rounds": ([later_u for later_u, _ in several[1:]], later),
            "sign": (-u, turned),
        }
        if A.shape[0] == A.shape[1]:
            swapped = F.normalize(A @ start, dim=0)
            message = "The products are still swapped: v <- W^T u, then u <- W v. (On a square W the wrong order runs without an error.)"
            v_hints["swapped"] = (swapped, message)
            u_hints["swapped"] = (F.normalize(A.T @ v, dim=0), message)
        compare(new_v, v, 1e-4, "v", v_hints)
        compare(new_u, u, 1e-4, "u", u_hints)
        hints = {
            "sigma": (s, "W_sn is still the number u^T W v. That is the estimate of sigma; the normalized weight is W divided by it."),
            "multiplied": (A * s, "W is multiplied by sigma; divide."),
            "stale": (A / (start @ A @ v), "sigma is computed with the old u; use the new one."),
            "rank-one": (s * torch.outer(u, v), "This is the rank-one part sigma u v^T. Divide W itself."),
            "scaled-rank-one": (torch.outer(u, v), "This is u v^T, of rank one. Divide W itself by sigma."),
            "exact": (A / exact, "W is divided by the exact sigma. Divide by the estimate u^T W v, with the new u and v."),
            "frobenius": (A / A.norm(), "W is divided by its Frobenius norm. Divide by the estimate u^T W v."),
            "squared": (A / s**2, "W is divided by the square of sigma."),
            "unchanged": (A, "W is not divided by sigma yet."),
        }  # fmt: skip
        return compare(W_sn, A / s, 1e-4, "W_sn", hints)

    cases = ((matrix(shape, rng), unit(shape[0], rng)) for shape in [(4, 4), (3, 5), (6, 2)])
    return over(answer, cases, case, [(W, torch.tensor([0.6, 0.8])) for W in small_matrices(rng)])


def unit(n, rng):
    return F.normalize(torch.randn(n, generator=rng), dim=0)


def _parametrized(rng):
    """Layers under SN, with what an initialization is to put into each: of a wide gap, and several times too large."""
    for make, wrap in [
        (lambda: nn.Linear(8, 6), spectral_norm),
        (lambda: nn.Conv2d(3, 5, 3), spectral_norm),
        (lambda: nn.Linear(4, 7), parametrizations.spectral_norm),
    ]:
        layer = wrap(make())
        shape = layer.weight.shape
        yield layer, (5 * matrix((shape[0], shape[1:].numel()), rng)).reshape(shape)


@exercise("2.9", "Another start")
def check_restart(answer, rng):
    worst = 0.0
    for training in (True, False):
        for layer, target in _parametrized(rng):
            layer.train(training)
            before, filled = layer.parametrizations.weight.original, []

            def init(tensor, target=target, filled=filled):
                filled.append(tensor)
                with torch.no_grad():
                    return tensor.copy_(target)

            result = answer(layer, init)
            if not isinstance(result, nn.Module):
                raise Wrong("type", "Return the layer itself.")
            chain = getattr(getattr(result, "parametrizations", {}), "weight", None)
            if chain is None:
                raise Wrong("bare", "The layer that you return is not under spectral_norm any more.")
            if len(chain) > 1:
                raise Wrong("twice", "The layer is now normalized twice. It was under SN when you got it.")
            if distance(chain.original.detach(), target) > 1e-5:
                if any(tensor is before for tensor in filled):
                    raise Wrong("overwritten", "init has filled the stored weight, and afterwards it was overwritten.")
                raise Wrong("ignored", "The stored weight is not what init makes. Trap 1: layer.weight is computed anew at every access, and init has filled a tensor that nobody keeps.")  # fmt: skip
            if chain.original is not before:
                raise Wrong("parameter", "The values are right, but the stored weight is another parameter now: an optimizer made before would go on moving the old one. Fill the one that is there.")  # fmt: skip
            modes = {module.training for module in result.modules()}
            if modes != {training}:
                was, now = ("training", "evaluation") if training else ("evaluation", "training")
                raise Wrong("mode", f"The layer came in {was} mode, and you return it, or a part of it, in {now} mode.")
            value = result.eval().weight.detach().double().flatten(1)
            top = float(torch.linalg.matrix_norm(value, 2))
            result.train(training)
            if not abs(top - 1) < 1e-2:
                if not training and _moves(result):
                    hint = "In evaluation mode an access moves nothing: the layer came in that mode."
                    raise Wrong("eval", f"sigma of the weight in use is {top:.3g}, not 1. {hint}")
                raise Wrong("stale", f"sigma of the weight in use is {top:.3g}, not 1: u and v still belong to an older weight. How do they catch up?")  # fmt: skip
            worst = max(worst, abs(top - 1))
    return worst


def _moves(layer):
    """Whether an access in training mode brings sigma of the weight in use nearer to 1: then u and v are stale only."""
    layer.train()
    for _ in range(15):
        layer.weight  # noqa: B018
    top = torch.linalg.matrix_norm(layer.eval().weight.detach().double().flatten(1), 2)
    return abs(float(top) - 1) < 1e-2


def _ceiling(a, rho, factor=1.0):
    """The ceiling s of the penalty's minimiser by bisection: sum of (a_i - s)_+ = factor * rho * s."""
    low, high = 0.0, float(a[0])
    for _ in range(100):
        s = (low + high) / 2
        low, high = (s, high) if float((a - s).clamp(min=0).sum()) > factor * rho * s else (low, s)
    return s


@exercise("2.10", "Where the penalty rests")
def check_penalty(answer, rng):
    worst = 0.0
    spectra = [
        ([2.4, 1.9], 0.5),  # the second is pressed down
        ([3.0, 1.2, 0.4], 0.5),  # it is not
        ([2.0, 1.9, 1.8, 0.3], 1.0),
        ([1.5], 2.0),
        ([2.0, 2.0, 0.5], 0.25),  # tied from the start
        ([1.0, 0.9, 0.8, 0.7, 0.6], 8.0),  # all of them
    ]
    for _ in range(4):
        values = (3 * torch.rand(5, generator=rng, dtype=torch.float64) + 0.05).sort(descending=True).values
        spectra.append((values.tolist(), float(3 * torch.rand((), generator=rng) + 0.1)))
    for values, rho in spectra:
        a = torch.tensor(values, dtype=torch.float64)
        truth = a.clamp(max=_ceiling(a, rho))
        alone = torch.cat([a[:1] / (1 + rho), a[1:]])
        hints = {
            "all": (a / (1 + rho), "This is what weight decay does: every value is divided by 1 + rho. Who pays for a value that is not the largest?"),
            "first": (alone, "The first value has been pressed below the second, which is now the largest, and free. Where they meet, both have to go down together."),
            "first-sorted": (alone.sort(descending=True).values, "The first value has been pressed below the second, which is now the largest, and free. Where they meet, both have to go down together."),
            "cut": (a.clamp(max=float(a[0]) / (1 + rho)), "Right as long as the ceiling a_1/(1 + rho) lies above a_2. Below it several values press against the ceiling, and it holds higher: how many times (a_i - s) is in the derivative?"),
            "clip": (a.clamp(max=1), "This is a ceiling of 1, as under SN. Here the ceiling follows from a and rho."),
            "double": (a.clamp(max=_ceiling(a, rho, 2.0)), "A factor 2 too many: the derivative of rho/2 s^2 is rho s."),
            "half": (a.clamp(max=_ceiling(a, rho, 0.5)), "A factor 2 is missing: the derivative of (a_i - s)^2 / 2 is (s - a_i)."),
            "everyone": (torch.full_like(a, float(a.sum()) / (len(a) + rho)), "All values have been made equal. Those below the ceiling pay nothing, and stay."),
            "mean": (a.clamp(max=float(a.sum()) / (len(a) + rho)), "In (a_1 + ... + a_m)/(m + rho) only the values above the ceiling count."),
            "ceiling": (torch.tensor(_ceiling(a, rho)), "This is the ceiling s, a number. Wanted are all the w_i = min(a_i, s)."),
        }  # fmt: skip
        worst = max(worst, compare(answer(a.to(torch.get_default_dtype()), rho), truth, 1e-4, "The values w", hints))
    return worst


@exercise("2.8", "The backward pass by hand")
def check_backward(answer, rng):
    function, worst = answer.wrapped, 0.0
    if not (isinstance(function, type) and issubclass(function, torch.autograd.Function)):
        raise Wrong("type", "MyDivision should be a class derived from torch.autograd.Function.")
    for shape in [(4, 4), (3, 5), (6, 2), (1, 4)]:
        W, pull = matrix(shape, rng).requires_grad_(), torch.randn(shape, generator=rng, dtype=torch.float64)
        _, u1, v1 = triplet(W.detach())
        near = [x + 0.3 * torch.randn(len(x), generator=rng, dtype=torch.float64) for x in (u1, v1)]
        u, v = (F.normalize(x, dim=0).to(W.dtype) for x in near)  # unit vectors, but not the singular ones
        pull = (pull + W.detach()).to(W.dtype)  # so that lambda is not small
        A, G, uv = W.detach().double(), pull.double(), torch.outer(u, v).double()
        s = (A * uv).sum()
        N, lam = A / s, (G * A).sum() / s
        value = function.apply(W, u, v)
        if not isinstance(value, torch.Tensor) or distance(value, N) > 1e-4:
            raise Wrong(
                "forward", "forward no longer returns W / sigma: leave it as it was, only backward is to be written."
            )
        given = pull.clone()
        try:
            (gradient,) = torch.autograd.grad(value, W, given, allow_unused=True)
        except (RuntimeError, TypeError) as error:
            text = str(error)
            if "number of gradients" in text:
                raise Wrong(
                    "count",
                    "backward returns one gradient for each argument of forward: that of W, None for u, None for v.",
                ) from None
            if "invalid gradient" in text:
                raise Wrong("shape", f"The gradient of a {shape[0]} x {shape[1]} weight has the shape of the weight; yours has not.") from None  # fmt: skip
            if "expected Variable" in text:
                raise Wrong(
                    "type", "The first thing that backward returns should be a matrix, the gradient of W."
                ) from None
            raise
        if gradient is None:
            raise Wrong("none", "backward returns no gradient for W: it stands first, and None, None after it.")
        if not torch.equal(given, pull):
            raise Wrong("inplace", "backward changes pull in place, which others may still need; compute a new matrix.")
        hints = {
            "constant": (G / s, "The term with lambda is missing: this treats sigma as a constant."),
            "nothing": (G, "This is pull itself, the gradient with respect to W_SN. What the optimizer moves is W."),
            "undivided": (G - lam * uv, "The overall factor 1/sigma is missing."),
            "squared": ((G - lam * uv) / s**2, "There is one factor 1/sigma too many."),
            "multiplied": ((G - lam * uv) * s, "Divide by sigma: you multiply."),
            "sign": ((G + lam * uv) / s, "The sign of the second term is wrong: it is subtracted."),
            "lambda-raw": ((G - s * lam * uv) / s, "lambda is sigma times too large: it is the inner product of pull with W_SN, not with W."),
            "lambda-small": ((G - lam / s * uv) / s, "lambda is too small by a factor sigma: W_SN has been divided already."),
            "lambda-mean": ((G - lam / G.numel() * uv) / s, "lambda is the sum over all entries, <pull, W_SN>, not their mean."),
            "lambda-first": ((G - (G * uv).sum() * uv) / s, "This lambda is u^T pull v. In (12) it is <pull, W_SN>."),
            "weight": ((G - lam * N) / s, "This is (12) with W_SN in place of u v^T. lambda multiplies u v^T; W_SN stands inside lambda."),
            "adjoint": ((G - (G * uv).sum() * N) / s, "This is (10) applied to pull. In the gradient W_SN and u v^T have changed places."),
            "exact": (
                (G - (G * A).sum() / s * torch.outer(u1, v1)) / s,
                "These are the singular vectors u_1, v_1. The function was given other vectors, and they were saved: use those.",
            ),
        }  # fmt: skip
        if shape[0] == shape[1]:
            hints["transposed"] = ((G - lam * uv.T) / s, "This has v u^T: u belongs to the rows, so it comes first.")
            hints["transposed-all"] = ((G - lam * uv).T / s, "This is the transpose of the gradient.")
        worst = max(worst, compare(gradient, (G - lam * uv) / s, 1e-4, "The gradient", hints))
    return worst
