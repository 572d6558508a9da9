"""Checks of lecture 01, the Lipschitz bound."""

import math

import torch
from torch.nn.functional import softplus

from course_utils.checks.answers import as_tensor, written
from course_utils.checks.core import Wrong, compare, distance, exercise, expect_choice, expect_tensor, expect_tuple


def _uniform(rng, low, high):
    return low + (high - low) * torch.rand((), generator=rng).item()


def _whole(rng, low, high):
    return int(torch.randint(low, high, (), generator=rng))


def _spectral(matrix):
    return float(torch.linalg.svdvals(matrix.detach().double())[0])


def _compare_all(answer, draws, tol, what):
    """``compare`` over several draws, each (arguments, truth, hints).

    One value may equal a wrong formula's by chance. So the hint is the one that explains most of the wrong values, and
    it has to explain two thirds of them, and two at least. A hint is (mistake, message); the mistake is a wrong value,
    a list of them, or a function that says whether a tensor is one.
    """

    def explains(mistake, tensor):
        if callable(mistake):
            return mistake(tensor)
        some = mistake if isinstance(mistake, list) else [mistake]
        return any(distance(tensor, one) <= max(tol, 1e-3) for one in some)

    values = [answer(*arguments) for arguments, _, _ in draws]
    wrong, explained, messages = 0, {}, {}
    for value, (_, truth, hints) in zip(values, draws):
        tensor = as_tensor(value)
        if tensor is None or distance(tensor, truth) <= tol:
            continue
        finite = bool(torch.isfinite(tensor).all())
        wrong += finite
        for code, (mistake, message) in hints.items():
            if (finite or callable(mistake)) and explains(mistake, tensor):
                explained[code], messages[code] = explained.get(code, 0) + 1, message
    best = max(explained, key=explained.get, default=None)
    if best and explained[best] >= max(2, wrong * 2 / 3):
        raise Wrong(best, messages[best])
    worst = 0.0
    for value, (arguments, truth, _) in zip(values, draws):
        try:
            worst = max(worst, compare(value, truth, tol, what))
        except Wrong as error:
            small = [x for x in arguments if isinstance(x, torch.Tensor) and x.dim() == 2 and x.numel() <= 9]
            if error.code != "value" or not small:
                raise
            raise Wrong("value", f"{error} This was for W = {written(small[0])}.") from None
    return worst


def _reject_underflow(value):
    """The value, or Wrong if it is not finite (or clipped) far out: the densities themselves were computed."""
    if isinstance(value, torch.Tensor) and (not torch.isfinite(value).all() or value.abs().max() < 1000):
        raise Wrong(
            "underflow",
            "Right near the means, but not far out: there both densities are zero for the computer, and log 0 - log 0 "
            "means nothing. Take the logarithm on paper, before you compute anything.",
        )
    return value


def _with_epsilon(q, p):
    """What log q - log p becomes with an epsilon in the usual places, from 1e-3 to 1e-15."""
    found = []
    for epsilon in (10.0**-k for k in range(3, 16)):
        found += [((q + epsilon) / (p + epsilon)).log(), (q / p + epsilon).log()]
        found += [(q / (p + epsilon)).log(), (q / (p + epsilon) + epsilon).log()]
    return found


def _right_in_the_middle(value, truth):
    """Whether ``value`` is wrong only where the truth is 8 or more away from zero, and right elsewhere."""
    if value.shape != truth.shape or value.is_complex():
        return False
    off = ~((value.double() - truth).abs() <= 1e-3 * (1 + truth.abs()))
    return bool(off.any() and not off.all() and (truth[off].abs() > 8).all())


@exercise("1.1", "The log-ratio of two Gaussians")
def check_optimal(answer, rng):
    draws = []
    for shape in [(5,), (4, 3), (2, 3, 2), (3, 1)]:
        mean_q, mean_p = _uniform(rng, -2, 2), _uniform(rng, -2, 2)
        std_q, std_p = _uniform(rng, 0.5, 0.9), _uniform(rng, 1.2, 2)
        if len(shape) == 2:
            std_q, std_p = std_p, std_q
        x = 6 * torch.rand(shape, generator=rng) - 3  # near enough that no density underflows
        narrow, other, std = (mean_q, mean_p, std_q) if std_q < std_p else (mean_p, mean_q, std_p)
        x.view(-1)[0] = narrow + math.copysign(
            10.5 * std, other - narrow
        )  # one point where epsilons and roundings show

        def log_density(x, mean, std):
            return -((x.double() - mean) ** 2) / (2 * std**2) - math.log(std)

        q, p = log_density(x, mean_q, std_q), log_density(x, mean_p, std_p)
        normalizers = math.log(std_p) - math.log(std_q)
        root = math.sqrt(2 * math.pi)
        hints = {
            "epsilon": (
                _with_epsilon(q.exp(), p.exp()) + _with_epsilon(q.exp() / root, p.exp() / root),
                "An epsilon in the logarithm changes f* wherever a density is not much larger than it. No epsilon is "
                "needed if you take the logarithm on paper.",
            ),
            "through-d": (
                lambda value, truth=q - p: _right_in_the_middle(value, truth),
                "Right where q and p are of about the same size, wrong where one is much larger: there D = q / (q + p) "
                "rounds to 0 or 1. Do not go through D, take the logarithm on paper.",
            ),
            "sign": (p - q, "The sign is turned: f* = log q - log p is positive where the data are more likely."),
            "sigmoid": (
                (q - p).sigmoid(),
                "This is D*, the probability. The logit f* is asked for: leave out the sigmoid.",
            ),
            "ratio": (
                [(q - p).exp(), (p - q).exp()],
                "This is the ratio of the densities. Take the logarithm of q / p.",
            ),
            "slope": (
                (x.double() - mean_p) / std_p**2 - (x.double() - mean_q) / std_q**2,
                "This is the slope of f*, its derivative in x. f* itself is asked for.",
            ),
            "log-q": ([q, q - math.log(2 * math.pi) / 2], "This is log q alone. Subtract log p."),
            "log-p": (
                [p, p - math.log(2 * math.pi) / 2, -p, math.log(2 * math.pi) / 2 - p],
                "This is log p alone; f* = log q - log p.",
            ),
            "log-d": (
                [-softplus(p - q), softplus(p - q), -softplus(q - p), softplus(q - p)],
                "This is the logarithm of D* or of 1 - D*. The logit f* = log q - log p has no p in a sum with q.",
            ),
            "sum": (q + p, "The two logarithms are added. log(q / p) is their difference."),
            "argument-order": (
                [
                    log_density(x, mean_q, std_p) - log_density(x, mean_p, std_q),
                    log_density(x, mean_p, std_q) - log_density(x, mean_q, std_p),
                ]
                + [log_density(x, mean_q, abs(mean_p)) - log_density(x, std_q, std_p)],
                "The arguments have changed places: they come as x, mean_q, std_q, mean_p, std_p.",
            ),
            "normalizer": (
                q - p - normalizers,
                "The normalizing constants are missing: log std_q and log std_p do not cancel.",
            ),
            "variance": (
                log_density(x, mean_q, std_q**0.5) - log_density(x, mean_p, std_p**0.5),
                "std_q and std_p are standard deviations; they are used here as if they were variances.",
            ),
            "half": (2 * (q - p - normalizers) + normalizers, "The exponent of a Gaussian has a factor 1/2."),
            "log-sign": (
                q - p - 2 * normalizers,
                "The term with the logarithms of the standard deviations has the wrong sign.",
            ),
            "log-squared": (
                q - p + normalizers,
                "The standard deviation is in the normalizing constant once, not squared.",
            ),
            "squared-std": (
                log_density(x, mean_q, std_q**2) - log_density(x, mean_p, std_p**2),
                "The standard deviations are squared: torch's Normal wants the standard deviation; do not square it.",
            ),
            "no-log-std-q": (q - p + math.log(std_q), "One normalizing constant is missing: - log std_q, from log q."),
            "no-log-std-p": (q - p - math.log(std_p), "One normalizing constant is missing: + log std_p, from -log p."),
        }
        left_over = "A multiple of log 2 pi is left over: the same term stands in log q and in log p, so it cancels."
        for code, factor in (("two-pi", -1), ("two-pi-half", -0.5), ("two-pi-plus", 1), ("two-pi-plus-half", 0.5)):
            hints[code] = (q - p + factor * math.log(2 * math.pi), left_over)
        draws.append(((x, mean_q, std_q, mean_p, std_p), q - p, hints))
    worst = _compare_all(answer, draws, 1e-4, "f*")
    x = torch.tensor([-80.0, 1.0, 120.0])  # both densities are zero for the computer
    truth = -((x.double() - 1) ** 2) / 2 / 0.7**2 + (x.double() + 1) ** 2 / 2 / 1.3**2 + math.log(1.3 / 0.7)
    value = _reject_underflow(answer(x, 1.0, 0.7, -1.0, 1.3))
    return max(worst, compare(value, truth, 1e-4, "f* far from both means"))


@exercise("1.2", "Before you run it")
def check_predict(answer, rng):
    return expect_choice(answer(), "abc", "b", {
        "b": "On fakes that D recognises, log(1 - D) lies against its ceiling 0, and the slope there has the factor D, "
             "which is nearly 0.",
        "a": "A spring would do that. But log(1 - D) cannot exceed 0: where D is 0 on all fakes, the function is flat. "
             "Run the cells of section 3.",
        "c": "The direction may stay, but the length has a factor D (the derivative of log(1 - D) is -D times the slope "
             "of f): what is D at a fake that is recognised?",
    })  # fmt: skip


@exercise("1.3", "Sigma by hand")
def check_sigma(answer, rng):
    def turn(angle):
        return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    draws = []
    # The first two matrices tell all mistakes below apart (v_1 in the first quadrant; eigenvalues complex, then real).
    cases = [_uniform(rng, 0.8, 1.3) * torch.tensor(A) for A in ([[1.6, 1.2], [-0.3, 1.0]], [[0.5, 1.4], [0.6, 1.2]])]
    # v_1 in the second and in the first quadrant, halfway between two multiples of 10 degrees: such steps are too coarse.
    for degrees in (5 + 10 * _whole(rng, 11, 16), 5 + 10 * _whole(rng, 2, 7), 175):
        v_angle = math.radians(degrees)
        small, large = _uniform(rng, 0.2, 0.8), _uniform(rng, 1.5, 3)
        cases.append(turn(_uniform(rng, 0, 6)) @ torch.diag(torch.tensor([large, small])) @ turn(v_angle).T)
    cases += [torch.randn(2, 2, generator=rng), torch.tensor([[1.0, 1.0], [0.0, 1.0]])]
    cases += [torch.outer(*torch.randn(2, 2, generator=rng)), 0.1 * torch.randn(2, 2, generator=rng)]
    cases += [torch.diag(torch.tensor([0.7, _uniform(rng, 1.5, 3)]))]  # v_1 is orthogonal to the first axis
    # Nearly a turn; for an exact one rounding may turn the formula of the hint into the root of -1e-7.
    cases += [turn(_uniform(rng, 0, 6)) @ torch.diag(torch.tensor([1.7, 1.6])) @ turn(_uniform(rng, 0, 6))]
    for number, W in enumerate(cases):
        # sigma begins with a digit from 5 to 9, so that three correct digits, even cut off, are 2e-3 of it at most
        W = W * _uniform(rng, 5.05, 9.5) / (1 if number % 2 else 10) / _spectral(W)
        s = torch.linalg.svdvals(W.double())
        angles = torch.linspace(0, math.pi / 2, 2001, dtype=torch.float64)
        quadrant = (W.double() @ torch.stack([angles.cos(), angles.sin()])).norm(dim=0).max()
        eigenvalue = torch.linalg.eigvals(W.double()).abs().max()
        v = torch.linalg.svd(W.double()).Vh[0]
        angle = math.atan2(v[1], v[0]) % math.pi
        elementwise = torch.linalg.eigvalsh((W.T * W).double())[-1]
        hints = {
            "angle": (
                lambda value, t=angle: value.numel() == 1 and any(abs((float(value) - t * unit) / unit) < 0.06 for unit in (1, 180 / math.pi)),
                "This is the angle at which the stretch is largest. The stretch itself is asked for.",
            ),
            "elementwise": (
                [elementwise.clamp_min(0).sqrt(), elementwise],
                "W.T * W multiplies entry by entry. The matrix product is W.T @ W.",
            ),
            "det": ([s.prod(), -s.prod()], "This is the determinant, the factor by which areas grow. Only the longest half-axis is asked for."),
            "squared": (s[0] ** 2, "This is sigma squared, the largest eigenvalue of W^T W: take the square root."),
            "frobenius": (s.norm(), "This is the Frobenius norm, which adds up both singular values. Only the largest stretch is asked for."),
            "eigenvalue": ([eigenvalue, torch.linalg.eigvals(W.double()).real.max()], "This is the largest eigenvalue of W. The most stretched direction need not keep its direction: use W^T W."),
            "determinant": (s.prod().sqrt(), "This is the root of |det W|, the geometric mean of the two singular values. Only the largest is asked for."),
            "smallest": (s[1], "This is the smallest stretch. The maximum is asked for, not the minimum."),
            "quadrant": (quadrant, "You tried angles from 0 to 90 degrees only: v_1 may lie in the second quadrant. Go to 180 degrees."),
            "largest-entry": (W.abs().max(), "This is the largest entry of W. Stretch unit vectors in all directions, not only along the axes."),
            "columns": (W.norm(dim=0).max(), "This is the longest column: the stretch along the two axes. Try the directions in between as well."),
            "rows": (W.norm(dim=1).max(), "This is the longest row. Multiply W by unit vectors and take the longest result."),
            "sum": (W.abs().sum(1).max(), "This is the largest absolute row sum, another norm. The Euclidean stretch is asked for."),
            "column-sum": (W.abs().sum(0).max(), "This is the largest absolute column sum, another norm. The Euclidean stretch is asked for."),
            "nuclear": (s.sum(), "This is the sum of the singular values. Only the largest is asked for."),
        }  # fmt: skip
        draws.append(((W,), s[0], hints))
    try:
        return _compare_all(answer, draws, 2.1e-3, "sigma")
    except Wrong as wrong:
        values = [as_tensor(answer(W)) for (W,), _, _ in draws] if wrong.code == "value" else []
        ratios = [float(value) / float(truth) for value, (_, truth, _) in zip(values, draws)]
        if ratios and 0.9 < min(ratios) and max(ratios) < 1 + 1e-4:
            raise Wrong(
                "coarse",
                f"Never above sigma, and up to {1 - min(ratios):.1e} of it below (2.1e-3 would pass): too few angles.",
            ) from None
        if ratios and min(ratios) > 1 + 1e-4:
            raise Wrong("above", "More than any unit vector is stretched: does each of your h have length 1?") from None
        raise


@exercise("1.4", "Three mistakes")
def check_bug(answer, rng):
    draws = []
    for sizes in [(4, 4, 4, 4), (3, 6, 5, 1), (6, 2, 4, 3, 2), (5, 3)]:
        weights = [torch.randn(o, i, generator=rng) for i, o in zip(sizes[:-1], sizes[1:])]
        sigma = torch.tensor([_spectral(W) for W in weights], dtype=torch.float64)
        frobenius = torch.stack([W.double().norm() for W in weights])
        chain = weights[0].double()
        for W in weights[1:]:
            chain = W.double() @ chain
        n = len(weights) - 1
        for slope in (0.25, 1.129, 1.0):
            hints = {
                "untouched": (frobenius.sum(), "This is still the colleague's number: Frobenius norms, added up, and no activation."),
                "sum": (sigma.sum() * slope**n, "The stretches of a chain multiply; yours are added."),
                "frobenius": (frobenius.prod() * slope**n, "These are Frobenius norms: never too small, but not the bound (7). Use the spectral norm."),
                "only-above-1": (sigma.prod() * max(slope, 1) ** n, "A slope below 1 counts as well: it makes the bound smaller, and it stays a bound."),
                "activation": (sigma.prod(), "The activations are forgotten: each contributes its slope, which matters unless it is 1."),
                "frobenius-activation": (frobenius.prod(), "Two mistakes are left: these are Frobenius norms, and the activations are forgotten."),
                "sum-activation": (sigma.sum(), "Two mistakes are left: the stretches are added instead of multiplied, and the activations are forgotten."),
                "frobenius-sum": (frobenius.sum() * slope**n, "Two mistakes are left: these are Frobenius norms, and they are added."),
                "once-too-often": (sigma.prod() * slope ** (n + 1), "One activation too many: there is none after the last layer, so L + 1 matrices have L."),
                "too-few": (sigma.prod() * slope ** max(n - 1, 0), "One activation is missing: L + 1 matrices have L in between, that is len(weights) - 1."),
                "slope-times": (sigma.prod() * slope * n, "The slopes of a chain multiply: slope ** L, not slope * L."),
                "sum-inside": ([(sigma * slope).sum(), sigma[-1] + slope * sigma[:-1].sum()], "The stretches of a chain multiply; yours are added, each with its slope."),
                "first-only": (sigma[0], "This is sigma of the first matrix alone: the loop returns too early."),
                "once": (sigma.prod() * slope, "The slope enters once for each activation; there are L of them."),
                "frobenius-too-often": (frobenius.prod() * slope ** (n + 1), "Two mistakes are left: these are Frobenius norms, and there is no activation after the last layer."),
                "collapsed": (_spectral(chain) * slope**n, "This is sigma of the product of all matrices. With activations in between they do not "
                              "merge into one matrix: take the product of the sigmas."),
                "largest": (sigma.max() * slope**n, "This is the largest sigma. In a chain all of them multiply."),
                "squared": ((sigma**2).prod() * slope**n, "The sigmas are squared: take the square root of the eigenvalues of W^T W."),
                "zero": (0.0, "The result is 0. A product has to start from 1."),
                "last": (sigma[:-1].prod() * slope**n, "The last matrix is missing."),
                "last-slope": (sigma[:-1].prod() * slope ** max(n - 1, 0), "The last matrix is missing, and with it an activation."),
                "last-activation": (sigma[:-1].prod(), "Two mistakes are left: the last matrix is missing, and the activations are forgotten."),
            }  # fmt: skip
            draws.append(((weights, slope), sigma.prod() * slope**n, hints))
    return _compare_all(answer, draws, 1e-3, "The bound")


@exercise("1.5", "An exact bound, to order")
def check_tight(answer, rng):
    worst = 0.0
    for sizes in 3 * [(3, 4, 5, 1), (6, 6, 6, 1), (2, 7, 3, 1), (5, 1, 4, 1)]:  # luck with the signs runs out
        sigmas = [_uniform(rng, 0.3, 0.8), _uniform(rng, 1.3, 3), _uniform(rng, 0.9, 1.2)]
        found = answer(list(sizes), list(sigmas))
        if isinstance(found, (list, tuple)) and [getattr(W, "ndim", 0) for W in found] in ([2, 2, 2], [2, 2, 2, 1]):
            raise Wrong(
                "pair",
                "Return two things, (weights, x): the three matrices go into one list, weights, and x is the point.",
            )
        weights, x = expect_tuple(found, 2, "The answer, (weights, x),")
        weights = list(expect_tuple(weights, 3, "weights"))
        for number, (W, d_in, d_out, sigma) in enumerate(zip(weights, sizes[:-1], sizes[1:], sigmas), start=1):
            if isinstance(W, torch.Tensor) and tuple(W.shape) == (d_in, d_out) != (d_out, d_in):
                raise Wrong(
                    "transposed",
                    f"W^{number} has the shape {d_in} x {d_out}: a weight is d_out x d_in, here {d_out} x {d_in}.",
                )
            W = weights[number - 1] = expect_tensor(W, (d_out, d_in), f"W^{number}")
            if not W.is_floating_point():
                raise Wrong("dtype", f"W^{number} should hold floating-point numbers, not {W.dtype}.")
            frobenius = W.double().norm()
            if abs(_spectral(W) / sigma - 1) > 2e-3:
                if abs(float(frobenius) / sigma - 1) < 2e-3:
                    raise Wrong(
                        "frobenius", f"The Frobenius norm of W^{number} is s_{number}; its spectral norm should be."
                    )
                if abs(_spectral(W) - 1) < 2e-3:
                    raise Wrong("unit", f"W^{number} has the spectral norm 1. Multiply it by s_{number} = {sigma:.3f}.")
                raise Wrong(
                    "scale",
                    f"W^{number} has the spectral norm {_spectral(W):.4f}; it should be s_{number} = {sigma:.4f}.",
                )
        x = expect_tensor(x, None, "x")
        if x.numel() != sizes[0] or x.dim() not in (1, 2):
            raise Wrong(
                "shape", f"x should be a point with d_0 = {sizes[0]} entries, but its shape is {tuple(x.shape)}."
            )
        if not bool(x.any()):
            raise Wrong("kink", "At x = 0 every ReLU sits on its kink, where PyTorch takes the derivative 0. Choose a point "
                        "at which the hidden units are positive.")  # fmt: skip
        x = x.reshape(-1).double().requires_grad_()
        W1, W2, W3 = (W.double() for W in weights)
        h1 = W1 @ x
        h2 = W2 @ h1.relu()
        (gradient,) = torch.autograd.grad((W3 @ h2.relu()).sum(), x)
        target, reached = math.prod(sigmas), float(gradient.norm())
        if reached > target * (1 - 2e-3):
            worst = max(worst, abs(reached / target - 1))
            continue
        linear = float((W3 @ W2 @ W1).norm())
        if linear > target * (1 - 2e-3):
            raise Wrong("relu-off", f"Without ReLUs the network would reach its bound, but at your x some that matter are off: the gradient "
                        f"is {reached:.4f} instead of {target:.4f}. Mind the signs of u, v and x.")  # fmt: skip
        raise Wrong("loose", f"Shapes and spectral norms are right, but the gradient at your x is {reached:.4f} and the bound {target:.4f}. "
                    "Does v_1 of each layer point along u_1 of the layer before?")  # fmt: skip
    return worst


@exercise("1.6", "A bound for residual networks")
def check_residual(answer, rng):
    worst = 0.0
    for sizes in [(4, 4, 4), (3, 5, 2, 4), (6, 6, 6, 6, 6), (4, 4)]:  # the last: one plain block, W_s = I
        blocks, hidden = [], 7
        for i, (d_in, d_out) in enumerate(zip(sizes[:-1], sizes[1:])):
            shortcut = torch.eye(d_in) if len(sizes) == 2 else torch.randn(d_out, d_in, generator=rng)
            W1, W2 = torch.randn(hidden, d_in, generator=rng), torch.randn(d_out, hidden, generator=rng)
            branch = (1.6 if i % 2 else 0.7) * _uniform(rng, 0.9, 1.1) * _spectral(shortcut)  # now larger, now smaller
            blocks.append((shortcut, W1, W2 * branch / (_spectral(W1) * _spectral(W2))))
        s, s1, s2 = torch.tensor([[_spectral(W) for W in block] for block in blocks], dtype=torch.float64).T
        s21 = torch.tensor([_spectral(W2 @ W1) for _, W1, W2 in blocks], dtype=torch.float64)
        merged = torch.tensor([_spectral(W + W2 @ W1) for W, W1, W2 in blocks], dtype=torch.float64)
        f, f1, f2 = torch.tensor([[W.norm().item() for W in block] for block in blocks], dtype=torch.float64).T
        hints = {
            "product": ((s * s1 * s2).prod(), "Inside a block, shortcut and branch are added, not chained: sigma(W_s) plus the branch."),
            "no-shortcut": ((s1 * s2).prod(), "The shortcut is forgotten: it adds sigma(W_s) to each block."),
            "identity": ((1 + s1 * s2).prod(), "1 is the shortcut's norm only if W_s is the identity; in general it is sigma(W_s)."),
            "branch-sum": ((s + s1 + s2).prod(), "W_1 and W_2 follow one another: their sigmas multiply. Only the shortcut is added."),
            "blocks-sum": ((s + s1 * s2).sum(), "The blocks follow one another: their bounds multiply, yours are added."),
            "maximum": (torch.maximum(s, s1 * s2).prod(), "A sum of two functions can stretch by the sum of their norms, not only by the larger one."),
            "root": ((s**2 + (s1 * s2) ** 2).sqrt().prod(), "Shortcut and branch may stretch in the same direction: the norms add, without squares and root."),
            "collapsed": ((s + s21).prod(), "The ReLU stands between W_1 and W_2: sigma(W_2 W_1) may be too small for a bound."),
            "zero": (0.0, "The result is 0. A product has to start from 1."),
            "first-block": ((s + s1 * s2)[0], "This is the bound of the first block alone: the loop returns too early."),
            "last-block": ((s + s1 * s2)[-1], "This is the bound of the last block alone: multiply the bounds of all blocks."),
            "merged": (merged.prod(), "sigma(W_s + W_2 W_1) would be right without the ReLU. With it in between, the matrices do not merge."),
            "triple": ([(s1 + s * s2).prod(), (s2 + s * s1).prod()], "A block is the triple (W_s, W_1, W_2), in this order: the shortcut comes first."),
            "extra-one": ([(1 + s + s1 * s2).prod(), (1 + s).prod() * (s1 * s2).prod()], "There is no 1 to be added: the shortcut is W_s, with sigma(W_s), and the branch is all the rest."),
            "squared": ((s**2 + (s1 * s2) ** 2).prod(), "The norms add as they are, not their squares."),
            "frobenius": ((f + f1 * f2).prod(), "These are Frobenius norms. The Lipschitz norm of a matrix is its spectral norm."),
        }  # fmt: skip
        worst = max(worst, compare(answer(blocks), (s + s1 * s2).prod(), 1e-3, "The bound", hints))
    return worst
