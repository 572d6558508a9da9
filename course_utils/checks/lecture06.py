"""Checks of lecture 06: the product of Jacobians, what sigma guarantees, the quiet bomb, LSTM, forget bias, fixed points."""

import itertools
import math

import torch

from course_utils.checks.answers import as_tensor, distance
from course_utils.checks.core import Wrong, compare, exercise, expect_number, expect_tensor, expect_tuple


def _product(factors, n):
    product = torch.eye(n, dtype=torch.float64)
    for factor in factors:
        product = factor @ product
    return product


@exercise("6.1", "The product")
def check_product(answer, rng):
    """Against autograd's Jacobian of a loop, for several lengths."""
    worst = 0.0
    for T, n in [(2, 3), (1, 4), (7, 5)]:
        W = 1.2 * torch.randn(n, n, generator=rng, dtype=torch.float64) / math.sqrt(n)
        inputs = torch.randn(T, n, generator=rng, dtype=torch.float64)

        def run(h, W=W, inputs=inputs):
            states = []
            for x in inputs:
                h = torch.tanh(W @ h + x)
                states.append(h)
            return torch.stack(states)

        start = torch.randn(n, generator=rng, dtype=torch.float64)
        hs = run(start)
        truth = torch.autograd.functional.jacobian(lambda h: run(h)[-1], start)
        slopes = [torch.diag(1 - h**2) for h in hs]
        columns = [W @ slope for slope in slopes]
        hints = {
            "reversed": (_product([s @ W for s in slopes][::-1], n), "The factors are in the wrong order: the newest step stands on the left, so each new factor multiplies from the left."),
            "columns": (_product(columns, n), "You scale the columns of W, that is W A. The slopes act after W: A W scales its rows, (1 - h**2)[:, None] * W."),
            "columns-reversed": (_product(columns[::-1], n), "You scale the columns of W, that is W A, and multiply in the wrong order. The factor of a step is A W, and the newest stands on the left."),
            "squares": (_product([torch.diag(h**2) @ W for h in hs], n), "Your slopes are h^2; the slope of tanh is 1 - h^2."),
            "values": (_product([torch.diag(1 - h) @ W for h in hs], n), "Your slopes are 1 - h; the slope of tanh is 1 - h^2."),
            "tanh-twice": (_product([torch.diag(1 - torch.tanh(h) ** 2) @ W for h in hs], n), "You apply tanh to the states once more: they are already values of tanh, so the slope is 1 - h^2."),
            "no-slopes": (torch.linalg.matrix_power(W, T), "This is the power of W, the Jacobian of a linear network: the slopes 1 - h^2 are missing."),
            "entrywise": (
                [torch.stack([s @ W for s in slopes]).prod(0), torch.stack([s @ W for s in slopes]).prod(0).diag().diag()],
                "The factors are multiplied entry by entry. The chain rule multiplies matrices: @, not *.",
            ),
            "sum": (sum(s @ W for s in slopes), "The factors are added. The chain rule multiplies them."),
            "last-missing": (_product([s @ W for s in slopes[:-1]], n), "One factor is missing, that of the last state."),
            "first-missing": (_product([s @ W for s in slopes[1:]], n), "One factor is missing, that of the first state: h_1 depends on h_0 as well."),
            "transposed": (truth.T, "This is the transpose: row i, column j should be the derivative of entry i of h_T in entry j of h_0."),
        }  # fmt: skip
        worst = max(worst, compare(answer(W.float(), hs.float()), truth, 1e-4, "The Jacobian", hints))
    return worst


@exercise("6.2", "How soon is it certain?")
def check_certain(answer, rng):
    """Closed form, away from whole numbers and from slope * sigma = 1; then the cases that never end."""
    done = 0
    while done < 10:
        n, slope = 3 + done % 3, [1.0, 0.8, 0.6][done % 3]
        sigma = 0.4 + 0.5 * float(torch.rand((), generator=rng))
        W = torch.randn(n, n, generator=rng, dtype=torch.float64)
        W = sigma * W / torch.linalg.matrix_norm(W, ord=2)
        rate, eps = slope * sigma, 10 ** (-2 - 8 * float(torch.rand((), generator=rng)))
        wrong_rates = {
            "radius": slope * float(torch.linalg.eigvals(W).abs().max()),
            "frobenius": slope * float(torch.linalg.matrix_norm(W)),
        }
        if slope < 1:
            wrong_rates |= {"slope": sigma, "slope-squared": slope * rate}
        exact = math.log(eps) / math.log(rate)
        if abs(exact - round(exact)) < 0.05 or max(wrong_rates.values()) >= 1:
            continue
        truth = math.ceil(exact)
        values = {"floor": truth - 1, "next": truth + 1, "sign": -truth, "sign-floor": 1 - truth}
        values |= {code: math.ceil(math.log(eps) / math.log(value)) for code, value in wrong_rates.items()}
        if len({truth, *values.values()}) <= len(values):
            continue  # two mistakes give the same number here: take another matrix
        done += 1
        got = answer(W.float(), slope, eps)
        k = math.inf if isinstance(got, float) and got == math.inf else expect_number(got, "The number of steps")
        if k == truth:
            continue
        hints = {
            "radius": "You use the spectral radius, the largest eigenvalue. It promises nothing about a norm: use sigma.",
            "frobenius": "You use the Frobenius norm. It bounds sigma from above, so your T is too large: use sigma itself.",
            "slope": "The slope does not appear in your answer: one step shrinks by at most slope * sigma.",
            "slope-squared": "The slope enters once per step, as slope * sigma.",
            "floor": "One step too few: round up.",
            "next": "One step too many: the smallest T with (slope * sigma)^T <= eps was asked for.",
            "sign": "A negative number of steps: log(eps) and log(slope * sigma) are both negative, so their quotient is positive.",
        }
        for code, hint in hints.items():
            if k == values.get(code) or (code == "sign" and k == values["sign-floor"]):
                raise Wrong(code, hint)
        if math.isinf(k):
            raise Wrong("inf", f"slope * sigma is {rate:.3f}, below 1: the bound does get below eps.")
        if abs(k - round(k)) > 1e-9:
            raise Wrong("whole", f"The number of steps must be whole; you return {k:.4g}. Round up.")
        raise Wrong(
            "value", f"For slope * sigma = {rate:.3f} and eps = {eps:.1e} the answer is {truth}; you return {k:g}."
        )
    for scale, slope in [(1.7, 1.0), (8.0, 0.25), (1.0, 1.0)]:  # a diagonal matrix: its sigma is exact
        got = answer(torch.diag(torch.tensor([scale, 0.3, -0.2])), slope, 1e-3)
        if not (isinstance(got, (int, float, torch.Tensor)) and math.isinf(float(got)) and float(got) > 0):
            size = scale * slope
            raise Wrong(
                "never",
                f"For slope * sigma = {size:g} the bound never gets below eps: return math.inf (you return {got!r}).",
            )


@exercise("6.3", "The quiet bomb")
def check_bomb(answer, rng):
    """Trace, determinant, fixed point, distance from the kink, and the growth of autograd's Jacobian."""
    worst = 0.0
    for r in (2.0, 1.5, 1.1 + 2 * float(torch.rand((), generator=rng))):
        parts = expect_tuple(answer(r), 3, "The result (W, b, h)")
        W, b, h = (expect_tensor(p, s, w).double() for p, s, w in zip(parts, [(2, 2), (2,), (2,)], "Wbh"))
        size = float(W.abs().max())
        if size == 0:
            raise Wrong("zero", "W is zero: then the Jacobian is zero, too.")
        z = W @ h + b
        on = z > 0
        jacobian = on[:, None] * W
        found = float(torch.linalg.eigvals(jacobian).abs().max())
        # A double eigenvalue is as uncertain as the root of a rounding error: look at trace and determinant.
        if abs(float(W.trace())) > 1e-5 * size or abs(float(torch.linalg.det(W))) > 1e-5 * size**2:
            if abs(W[0, 1]) + abs(W[1, 0]) < 1e-9 * size:
                raise Wrong(
                    "diagonal",
                    "A diagonal W has its diagonal as eigenvalues. For two zeros you need trace 0 and determinant 0, with entries beside the diagonal.",
                )
            what = "trace" if abs(float(W.trace())) > 1e-5 * size else "determinant"
            raise Wrong("radius", f"rho(W) is not 0: with r = {r:.3g} the {what} of W should be 0.")  # fmt: skip
        if not bool((h - z.relu()).abs().max() <= 1e-5 * (1 + h.abs().max())):
            raise Wrong("not-fixed", f"h is no fixed point: relu(W h + b) is {[round(v, 3) for v in z.relu().tolist()]}, h is {[round(v, 3) for v in h.tolist()]}.")  # fmt: skip
        if float(z.abs().min()) < 0.1 - 1e-6:
            raise Wrong("kink", "An entry of W h + b lies within 0.1 of 0, the kink of ReLU: move b.")
        if bool(on.all()):
            raise Wrong(
                "both-on",
                "Both units are on, so the Jacobian is W itself, and its spectral radius is 0. One has to be off.",
            )
        if not bool(on.any()):
            raise Wrong("both-off", "Both units are off: the Jacobian is zero.")
        if abs(found - r) > 1e-4 * r:
            if abs(float(torch.linalg.matrix_norm(jacobian, ord=2)) - r) < 1e-4 * r:
                raise Wrong(
                    "norm",
                    "The Jacobian's norm is r; its spectral radius was asked for, the entry of W that survives on the diagonal.",
                )
            raise Wrong("growth", f"For r = {r:.3g} the Jacobian has the spectral radius {found:.3g}.")  # fmt: skip
        product = torch.linalg.matrix_power(jacobian, 20)
        worst = max(
            worst, abs(float(torch.linalg.matrix_norm(product)) / float(torch.linalg.matrix_norm(jacobian)) / r**19 - 1)
        )
    return worst


def _lstm(x, h, c, W_x, W_h, b_x, b_h, order="ifgo", squash=True, bias=True):
    z = W_x @ x + W_h @ h + b_x + (b_h if bias else 0)
    gate = dict(zip(order, z.chunk(4)))
    c = gate["f"].sigmoid() * c + gate["i"].sigmoid() * gate["g"].tanh()
    return gate["o"].sigmoid() * (c.tanh() if squash else c), c


LSTM_BUGS = {
    "order": ({"order": "igfo"}, "the second and the third block have changed places: the order is i, f, g, o"),
    "output": ({"squash": False}, "the output gate should multiply tanh(c)"),
    "bias": ({"bias": False}, "one of the two biases is missing"),
}


@exercise("6.4", "Three bugs in a cell")
def check_lstm(answer, rng):
    """Against torch.nn.LSTMCell in double precision; each bug that is left, alone or with others, is named."""
    worst = 0.0
    for d, n in [(3, 4), (5, 2), (1, 6)]:
        cell = torch.nn.LSTMCell(d, n).double()
        for p in cell.parameters():
            p.data = torch.randn(p.shape, generator=rng, dtype=torch.float64)
        x, (h, c) = torch.randn(d, generator=rng).double(), torch.randn(2, n, generator=rng).double()
        weights = [p.detach() for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
        with torch.no_grad():
            truth = torch.stack(cell(x, (h, c)))
        parts = expect_tuple(answer(x, h, c, *weights), 2, "The result (h, c)")
        got = torch.stack([expect_tensor(p, (n,), what).double() for p, what in zip(parts, ("h", "c"))])
        if distance(got, truth) < 1e-5:
            worst = max(worst, distance(got, truth))
            continue
        if distance(got.flip(0), truth) < 1e-5:
            raise Wrong("swapped", "The two results have changed places: return h, then c.")
        for count in (1, 2, 3):
            for names in itertools.combinations(LSTM_BUGS, count):
                options = {k: v for name in names for k, v in LSTM_BUGS[name][0].items()}
                if distance(got, torch.stack(_lstm(x, h, c, *weights, **options))) < 1e-5:
                    left = "One bug is" if count == 1 else f"{('Two', 'Three')[count - 2]} bugs are"
                    raise Wrong("-".join(names), f"{left} left: {'; '.join(LSTM_BUGS[name][1] for name in names)}.")
        other = (weights[0], weights[1], weights[3], torch.zeros_like(weights[3]))
        if distance(got, torch.stack(_lstm(x, h, c, *other))) < 1e-5:
            raise Wrong("bias", "One of the two biases is missing.")
        if distance(got, torch.stack(_lstm(x, h, c, *weights, order="ifog"))) < 1e-5:
            raise Wrong("torch-order", "The last two gates have changed places: the order is i, f, g, o.")
        zs = (weights[0] @ x + weights[1] @ h + weights[2] + weights[3]).chunk(4)
        old = zs[3].sigmoid() * torch.tanh(c)
        if distance(got[1], truth[1]) < 1e-5 and distance(got[0], old) < 1e-5:
            raise Wrong("old-cell", "c is right, but h shows the old cell: it should be computed from the new c.")
        if distance(got[1], truth[1]) < 1e-5:
            raise Wrong("h", "c is right. Look at the last line again: h = sig(o) * tanh(c).")
        raise Wrong(
            "value",
            "Neither h nor c is right: compare each gate with the formula, its place in the stack and its activation.",
        )
    return worst


@exercise("6.5", "A bias for T steps")
def check_bias(answer, rng):
    """The closed form, without cancellation, up to T = 10^6."""
    worst = 0.0
    for T in (30, 10, 100, 7, 1000, 1):
        half = 2 ** (-1 / T)
        truth = -math.log(math.expm1(math.log(2) / T))
        hints = {
            "one-over-e": (math.log(T), "With b = log T, 1/e of the content is left, not one half."),
            "gate": (half, "This is the gate f itself: the bias is the number whose sigmoid it is."),
            "decay": (math.log(2) / T, "This is log(2)/T, the decay per step: f = exp of minus that, and then invert the sigmoid."),
            "sign": (-truth, "The sign is wrong: a gate that keeps much needs a positive bias."),
            "chain": (math.log(T / math.log(2)), "That is log(T / log 2), right only for large T: the exact bias is log(f / (1 - f)) with f = 2^(-1/T)."),
            "base-two": (math.log2(half / (1 - half)) if T > 1 else 9.0, "Use the natural logarithm: sig(z) = 1 / (1 + e^(-z))."),
            "twice": (truth / 2, "Half of it: this would be one of torch's two equal biases; the bias of the gate was asked for."),
        }  # fmt: skip
        if T == 1:  # the truth is 0: an absolute comparison
            value = expect_number(answer(T), "The bias")
            if abs(value) > 1e-6:
                raise Wrong("value", f"For T = 1 half is left with f = 1/2, so the bias is 0; you return {value:.4g}.")
            continue
        worst = max(worst, compare(answer(T), truth, 1e-4, f"The bias for T = {T}", hints))
    big = expect_number(answer(10**6), "The bias for T = 10^6")
    truth = -math.log(math.expm1(math.log(2) / 10**6))
    if abs(big - truth) > 1e-6 * truth:
        raise Wrong("cancellation", f"At T = 10^6 you return {big:.7g}, right is {truth:.7g}: 1 - f loses its digits. Use math.expm1, or at least double precision.")  # fmt: skip
    return max(worst, abs(big / truth - 1))


@exercise("6.6", "Through the fixed point")
def check_implicit(answer, rng):
    """Against autograd through many rounds of the iteration."""
    worst = 0.0
    for n, norm in [(4, 0.9), (2, 0.6), (6, 0.8)]:
        W = torch.randn(n, n, generator=rng, dtype=torch.float64)
        W = norm * W / torch.linalg.matrix_norm(W, ord=2)
        x = torch.randn(n, generator=rng, dtype=torch.float64).requires_grad_()
        c = torch.randn(n, generator=rng, dtype=torch.float64)
        h = torch.zeros(n, dtype=torch.float64)
        for _ in range(200):
            h = torch.tanh(W @ h + x)
        (truth,) = torch.autograd.grad(h @ c, x)
        h, eye = h.detach(), torch.eye(n, dtype=torch.float64)
        D = 1 - h**2
        J = D[:, None] * W
        hints = {
            "no-transpose": (torch.linalg.solve(eye - J, D * c), "The transpose is missing: the gradient is A (I - A W)^(-T) omega, and you have (I - A W)^(-1) A omega."),
            "half-transpose": (D * torch.linalg.solve(eye - J, c), "The system has to be transposed: solve (I - A W)^T mu = omega."),
            "no-slopes-in-system": (D * torch.linalg.solve((eye - W).T, c), "Your system is I - W; it should contain the slopes, I - A W."),
            "columns": (D * torch.linalg.solve((eye - W * D).T, c), "You scale the columns of W by the slopes; A W scales its rows, (1 - h**2)[:, None] * W."),
            "no-slopes": (torch.linalg.solve((eye - J).T, c), "The last factor is missing: multiply the solution by the slopes 1 - h**2."),
            "one-step": (D * c, "This is the gradient through one step only: h* on the right-hand side depends on x, too."),
            "plus": (D * torch.linalg.solve((eye + J).T, c), "The sign in the system: I - A W."),
        }  # fmt: skip
        value = answer(W, h, c)
        if (tensor := as_tensor(value)) is not None and tensor.shape == (n, 1):
            value = tensor[:, 0]
        worst = max(worst, compare(value, truth, 1e-6, "The gradient", hints))
    return worst
