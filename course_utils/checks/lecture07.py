"""Checks of lecture 07: size of normalized weights, R1, the circle, |x|, the certified radius, Gram iteration."""

import math

import torch

from course_utils.checks.answers import as_tensor
from course_utils.checks.core import Wrong, compare, distance, exercise, expect_number, expect_tensor, expect_tuple


def _uniform(low, high, rng):
    return low + (high - low) * float(torch.rand((), generator=rng))


@exercise("7.1", "How large are the entries?")
def check_scale(answer, rng):
    """The closed form; the shapes are not square, so that inputs and outputs can be told apart where it matters."""
    worst = 0.0
    for m, n in [(128, 512), (300, 40), (1, 1000), (64, 64)]:
        m, n = (size + int(torch.randint(0, 20, (), generator=rng)) * (size > 1) for size in (m, n))
        rows, columns = math.sqrt(m), math.sqrt(n)
        hints = {
            "lecun": (1 / columns, "This is LeCun's 1/sqrt(n): dividing by sigma leaves less."),
            "outputs": (1 / rows, "This uses the outputs only; sigma grows with both sizes."),
            "root-of-sum": (1 / math.sqrt(m + n), "sqrt(m) + sqrt(n) is not sqrt(m + n)."),
            "xavier": (math.sqrt(2 / (m + n)), "This is Xavier's initialization. Divide nu by the sigma of the formula."),
            "larger": (1 / max(rows, columns), "This is what a matrix with equal singular values would have."),
            "variance": (1 / (rows + columns) ** 2, "This is the variance: take the root."),
            "sigma": (rows + columns, "This is sigma of a matrix with nu = 1. You were asked for 1 over it, times nu over nu."),
            "no-roots": (1 / (m + n), "sigma goes with the square roots of the sizes."),
        }  # fmt: skip
        worst = max(worst, compare(answer(m, n), 1 / (rows + columns), 1e-6, "The standard deviation", hints))
    return worst


@exercise("7.2", "The best R1")
def check_rate(answer, rng):
    """Eigenvalues of the linearised game, by a general routine, on both sides of the best strength."""
    worst = 0.0
    for low, high in [(2.2, 3.0), (1.05, 1.9), (0.05, 0.6), (0.6, 0.95)]:  # above 2 all the mistakes differ
        rho = _uniform(low, high, rng)
        J = torch.tensor([[0, 0.5], [-0.5, -rho]], dtype=torch.float64)
        eigenvalues = torch.linalg.eigvals(J)
        truth = float(eigenvalues.real.max())
        raw = answer(rho)
        if isinstance(raw, complex) or (as_tensor(raw) is not None and as_tensor(raw).is_complex()):
            raise Wrong("complex", "Your result is complex: return the real part of the eigenvalue, .real.")
        free = torch.linalg.eigvals(torch.tensor([[0, 1.0], [-1.0, -rho]], dtype=torch.float64)).real.max()
        hints = {
            "one-slope": (free, "You linearise with sigmoid(0) = 1; it is 1/2."),
            "smaller": (float(eigenvalues.real.min()), "This is the smallest real part: the slowest eigenvalue decides, the one with the largest real part."),
            "sign": (-truth, "The sign: what dies out has a negative real part."),
            "half-only": (-rho / 2, "Right for small rho. Beyond rho = 1 the eigenvalues are real and no longer equal."),
            "modulus": (float(eigenvalues.abs().max()), "This is the modulus of an eigenvalue; the decay is given by its real part."),
            "imaginary-counted": (-rho / 2 + math.sqrt(abs(rho**2 - 1)) / 2, "Below rho = 1 the root is imaginary and adds nothing to the real part."),
            "twice": (2 * truth, "Twice too large: the solutions of mu^2 + rho mu + 1/4 = 0 have a 1/2 in front of the root, too."),
        }  # fmt: skip
        worst = max(worst, compare(raw, truth, 1e-6, f"The largest real part at rho = {rho:.2f}", hints))
    return worst


@exercise("7.3", "Where it settles")
def check_orbit(answer, rng):
    """The closed form, with norms and learning rates away from 1, where mistakes would hide."""
    worst = 0.0
    for _ in range(4):
        size = _uniform(1.7, 4.0, rng)
        eta_g, ratio = 10 ** _uniform(-2.0, 0.0, rng), _uniform(0.05, 0.6, rng)
        eta_d = eta_g / ratio
        hints = {
            "root-of-size": (math.sqrt(size * ratio), "The norm of w has landed under the root: r^2 = |w|^2 eta_G / eta_D."),
            "inverted": (size / math.sqrt(ratio), "The ratio is upside down: a faster discriminator makes the circle smaller."),
            "no-root": (size * ratio, "The root over the ratio is missing: r appears in both terms, so r^2 is what you find first."),
            "squared": (size**2 * ratio, "This is r squared: take the root."),
            "no-ratio": (size, "This is right for equal learning rates only."),
            "no-size": (math.sqrt(ratio), "This is right for |w| = 1 only: w turns by eta_D r / |w|^2."),
            "one-power": (size * eta_g / (eta_d * size), "w turns by eta_D r / |w|^2, not by eta_D r: |w| divides twice."),
        }  # fmt: skip
        worst = max(worst, compare(answer(size, eta_g, eta_d), size * math.sqrt(ratio), 1e-6, "The radius", hints))
    return worst


@exercise("7.4", "The absolute value, by construction")
def check_abs(answer, rng):
    """Norms by SVD, and the network's values on a grid, computed here."""
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    worst = 0.0
    for kind in ("maxmin", "relu"):
        first, second = expect_tuple(answer(kind), 2, "The result (W1, W2)")
        W1 = expect_tensor(first, (2, 1), "W1").double()
        W2 = expect_tensor(second, (1, 2), "W2").double()
        for name, W in (("W1", W1), ("W2", W2)):
            sigma = float(torch.linalg.matrix_norm(W, ord=2))
            if sigma > 1 + 1e-5:
                raise Wrong(
                    "norm",
                    f'For "{kind}", {name} has sigma = {sigma:.3f}, more than 1. Entries of 1/sqrt(2) make it 1.',
                )
        hidden = x @ W1.T
        if kind == "maxmin":
            hidden = torch.cat([hidden.amax(1, keepdim=True), hidden.amin(1, keepdim=True)], dim=1)
        else:
            hidden = hidden.relu()
        value, wanted = (hidden @ W2.T)[:, 0], x[:, 0].abs() * (1 if kind == "maxmin" else 0.5)
        if distance(value, wanted) < 1e-5:
            worst = max(worst, distance(value, wanted))
            continue
        if distance(value, torch.zeros_like(value)) < 1e-6:
            raise Wrong(
                "zero",
                f'For "{kind}" your network is 0 everywhere: two contributions cancel. Change the sign of one entry of W2.',
            )
        if distance(-value, wanted) < 1e-5:
            raise Wrong(
                "negative", f'For "{kind}" your network is the negative of what was asked for: turn the sign of W2.'
            )
        if distance(value, x[:, 0]) < 1e-5 or distance(value, x[:, 0] / 2) < 1e-5:
            raise Wrong(
                "linear", f'For "{kind}" your network is a straight line. One hidden unit must see x, the other -x.'
            )
        one_sided = float(value[0].abs()) < 1e-6 < float(value[-1].abs()) or float(value[-1].abs()) < 1e-6 < float(
            value[0].abs()
        )
        if one_sided:
            raise Wrong(
                "one-side",
                f'For "{kind}" your network is flat on one side of 0. One hidden unit must see x, the other -x.',
            )
        shape = value / value[-1] if float(value[-1].abs()) > 1e-9 else value
        if distance(shape, x[:, 0].abs() / 2) < 1e-5:
            reached = float(value[-1]) / 2
            raise Wrong(
                "slope",
                f'For "{kind}" the shape is right, but the slope is {reached:.3f}: the norms allow {1 if kind == "maxmin" else 0.5}.',
            )
        worst = max(worst, compare(value, wanted, 1e-5, f'The network for "{kind}" on [-2, 2]'))
    return worst


@exercise("7.5", "The certified radius")
def check_radius(answer, rng):
    """An independent formula with sorting, on batches with right and wrong answers and a K that is not 1."""
    worst = 0.0
    for n, classes, K in [(12, 10, 1.7), (9, 3, 0.6), (6, 2, 4.0)]:
        logits = 2 * torch.randn(n, classes, generator=rng)
        y = logits.argmax(dim=1)
        y[: n // 3] = (y[: n // 3] + 1) % classes  # a third of the answers is wrong
        order = logits.double().sort(dim=1, descending=True)
        own = logits.double()[torch.arange(n), y]
        runner_up = torch.where(order.indices[:, 0] == y, order.values[:, 1], order.values[:, 0])
        margin = own - runner_up
        truth = margin.clamp_min(0) / (math.sqrt(2) * K)
        mean_other = (logits.double().sum(1) - own) / (classes - 1)
        probabilities = logits.double().softmax(1)
        soft_own = probabilities[torch.arange(n), y]
        soft = probabilities.scatter(1, y[:, None], 0).amax(1)
        hints = {
            "no-root": (margin.clamp_min(0) / K, "The sqrt(2) is missing: a difference of two logits is sqrt(2) K-Lipschitz."),
            "half": (margin.clamp_min(0) / (2 * K), "You divide by 2 K, as if each logit moved on its own by K. Their difference moves by sqrt(2) K at most: a little better."),
            "k-forgotten": (margin.clamp_min(0) / math.sqrt(2), "K is missing: a steeper classifier is certified less."),
            "k-times": (margin.clamp_min(0) * K / math.sqrt(2), "Divide by K, do not multiply."),
            "k-squared": (margin.clamp_min(0) / (math.sqrt(2) * K**2), "K appears squared: divide by it once."),
            "negative": (margin / (math.sqrt(2) * K), "Where the answer is wrong the radius is 0, not negative."),
            "absolute": (margin.abs() / (math.sqrt(2) * K), "Where the answer is wrong the radius is 0: do not take the absolute value of the margin."),
            "own-prediction": ((order.values[:, 0] - order.values[:, 1]) / (math.sqrt(2) * K), "This certifies the network's answer, right or wrong. The correct class y was to be used."),
            "not-masked": (torch.zeros_like(truth), "All radii are 0: the maximum over all logits contains the correct one. Take it out first."),
            "runner-up-mean": ((own - mean_other).clamp_min(0) / (math.sqrt(2) * K), "The margin is to the largest other logit, not to the mean of the others."),
            "softmax": ((soft_own - soft).clamp_min(0) / (math.sqrt(2) * K), "Use the logits themselves: K belongs to them, not to the softmax."),
            "no-runner-up": (own.clamp_min(0) / (math.sqrt(2) * K), "This is the correct logit alone; subtract the runner-up."),
        }  # fmt: skip
        if classes == 2:
            del hints["runner-up-mean"]
        value = answer(logits, y, K)
        worst = max(worst, compare(value, truth, 1e-4, "The vector of radii", hints))
    return worst


@exercise("7.6", "A bound that does not overflow")
def check_gram(answer, rng):
    """The p-norm of the singular values in double precision; then matrices whose squares leave single precision."""
    worst = 0.0
    for rows, columns, k in [(5, 5, 2), (6, 3, 1), (3, 7, 3), (8, 8, 0), (4, 6, 5)]:
        n = min(rows, columns)  # a flat spectrum, on which the bound is well above sigma
        left, right = (torch.linalg.qr(torch.randn(size, n, generator=rng)).Q for size in (rows, columns))
        W = 3 * left @ torch.diag(0.8 + 0.2 * torch.rand(n, generator=rng)) @ right.T
        s = torch.linalg.svdvals(W.double())
        norm = lambda p, s=s: torch.linalg.vector_norm(s, ord=p)
        hints = {
            "exact": (s[0], "This is sigma itself. The bound after k rounds was asked for, which is a little larger."),
            "one-less": (norm(2**k), "That is one round less than asked for."),
            "one-more": (norm(2 ** (k + 2)), "That is one round more than asked for."),
            "frobenius": (s.norm(), "This is the Frobenius norm, the bound for k = 0: the rounds change nothing."),
            "no-root": (norm(2 ** (k + 1)) ** (2**k), "The root at the end is missing: take the power 1/2^k."),
            "root-twice": (norm(2 ** (k + 1)) ** 0.5, "One root too many: the power at the end is 1/2^k."),
            "root-missing": (norm(2 ** (k + 1)) ** 2, "One root is missing: the power at the end is 1/2^k."),
            "sum": (s.sum(), "This is the nuclear norm, the sum of the singular values."),
        }  # fmt: skip
        if k == 0:
            hints = {code: hints[code] for code in ("exact", "sum", "one-more")}
        value = answer(W, k)
        found = as_tensor(value)
        if found is not None and found.numel() == 1 and float(found) < float(s[0]) * (1 - 1e-4):
            codes = [code for code, (wrong, _) in hints.items() if distance(found, wrong) < 1e-3]
            if not codes and float(found) > 0.3 * float(s[0]):
                raise Wrong(
                    "below",
                    f"{float(found):.4f} is less than sigma = {float(s[0]):.4f}: an upper bound was asked for. Power iteration comes from below.",
                )
        worst = max(worst, compare(value, norm(2 ** (k + 1)), 1e-4, "The bound", hints))
    for scale in (1e15, 1e-15):
        W = scale * torch.randn(6, 4, generator=rng)
        truth = scale * torch.linalg.vector_norm(torch.linalg.svdvals(W.double() / scale), ord=2**5)
        number = expect_number_or_overflow(answer(W, 4), scale)
        worst = max(worst, compare(number, truth, 1e-3, f"The bound for a matrix with entries around {scale:.0e}"))
    return worst


def expect_number_or_overflow(value, scale):
    """The answer as a number; Wrong("overflow") if it is infinite, NaN or zero."""
    number = as_tensor(value)
    if number is not None and number.numel() == 1 and (not bool(torch.isfinite(number).all()) or float(number) == 0):
        raise Wrong(
            "overflow",
            f"With entries around {scale:.0e} your result is {float(number)}: the squares leave the range of the numbers. "
            "Divide by the norm in each round, and keep the logarithm of what you divided by.",
        )
    return expect_number(value, "The bound")
