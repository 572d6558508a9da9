import math

import numpy as np
import torch
from harness import Case, test_exercise  # noqa: F401
from torch.distributions import Normal

# ---------------------------------------------------------------- 1.1


def by_distributions(x, mean_q, std_q, mean_p, std_p):
    return Normal(mean_q, std_q).log_prob(x) - Normal(mean_p, std_p).log_prob(x)


def in_double(x, mean_q, std_q, mean_p, std_p):
    x = x.double()
    return (x - mean_p).square() / (2 * std_p**2) - (x - mean_q).square() / (2 * std_q**2) + math.log(std_p / std_q)


def as_polynomial(x, mean_q, std_q, mean_p, std_p):
    a = 0.5 / std_p**2 - 0.5 / std_q**2
    b = mean_q / std_q**2 - mean_p / std_p**2
    c = mean_p**2 / (2 * std_p**2) - mean_q**2 / (2 * std_q**2) + np.log(std_p) - np.log(std_q)
    return a * x**2 + b * x + c


def in_loops(x, mean_q, std_q, mean_p, std_p):
    values = [-(((v - mean_q) / std_q) ** 2) / 2 + ((v - mean_p) / std_p) ** 2 / 2 for v in x.flatten().tolist()]
    return torch.tensor(values).reshape(x.shape) - math.log(std_q) + math.log(std_p)


def densities(x, mean_q, std_q, mean_p, std_p):
    q = torch.exp(-((x - mean_q) ** 2) / (2 * std_q**2)) / std_q
    p = torch.exp(-((x - mean_p) ** 2) / (2 * std_p**2)) / std_p
    return q, p


def log_of_densities(*args):
    q, p = densities(*(a.double() if isinstance(a, torch.Tensor) else a for a in args))
    return torch.log(q) - torch.log(p)


def log_of_densities_eps(*args):
    q, p = densities(*(a.double() if isinstance(a, torch.Tensor) else a for a in args))
    return torch.log(q + 1e-300) - torch.log(p + 1e-300)


def without_normalizer(x, mean_q, std_q, mean_p, std_p):
    return -(((x - mean_q) / std_q) ** 2) / 2 + ((x - mean_p) / std_p) ** 2 / 2


def squared_normalizer(x, mean_q, std_q, mean_p, std_p):
    return without_normalizer(x, mean_q, std_q, mean_p, std_p) + 2 * math.log(std_p / std_q)


def turned_normalizer(x, mean_q, std_q, mean_p, std_p):
    return without_normalizer(x, mean_q, std_q, mean_p, std_p) + math.log(std_q / std_p)


def without_half(x, mean_q, std_q, mean_p, std_p):
    return 2 * without_normalizer(x, mean_q, std_q, mean_p, std_p) + math.log(std_p / std_q)


def with_squared_std(x, mean_q, std_q, mean_p, std_p):
    return by_distributions(x, mean_q, std_q**2, mean_p, std_p**2)


def plus(constant):
    """f*, and a constant too many."""
    return lambda x, mean_q, std_q, mean_p, std_p: (
        by_distributions(x, mean_q, std_q, mean_p, std_p) + constant(std_q, std_p)
    )


def as_variances(x, mean_q, std_q, mean_p, std_p):
    return by_distributions(x, mean_q, std_q**0.5, mean_p, std_p**0.5)


def with_epsilon(epsilon):
    def answer(*args):
        q, p = densities(*args)
        return torch.log(q + epsilon) - torch.log(p + epsilon)

    return answer


def epsilon_below(x, mean_q, std_q, mean_p, std_p):
    q, p = (Normal(m, s).log_prob(x).exp() for m, s in ((mean_q, std_q), (mean_p, std_p)))
    return torch.log(q / (p + 1e-8) + 1e-8)


def logit_of_d(*args):
    q, p = densities(*args)
    return torch.logit(q / (q + p))


def logs_of_d(*args):
    q, p = densities(*args)
    return torch.log(q / (q + p)) - torch.log(1 - q / (q + p))


def slope_of_f(x, *args):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(by_distributions(x, *args).sum(), x)[0]


# ---------------------------------------------------------------- 1.3


def by_eigenvalues(W):
    A = W.T @ W
    trace, det = A[0, 0] + A[1, 1], A[0, 0] * A[1, 1] - A[0, 1] * A[1, 0]
    return (0.5 * (trace + (trace**2 - 4 * det).clamp_min(0).sqrt())).sqrt()


def without_the_root(W):  # and NaN where both singular values are equal, if rounding is unlucky
    A = W.T @ W
    return 0.5 * (A.trace() + (A.trace() ** 2 - 4 * A.det()).sqrt())


def by_loop(W):
    W, best = W.tolist(), 0.0
    for i in range(1000):
        c, s = math.cos(math.pi * i / 1000), math.sin(math.pi * i / 1000)
        best = max(best, math.hypot(W[0][0] * c + W[0][1] * s, W[1][0] * c + W[1][1] * s))
    return best


def scanned(W, low=0.0, high=math.pi, pick=torch.max):
    t = torch.linspace(low, high, 5000)
    return pick((W @ torch.stack([t.cos(), t.sin()])).norm(dim=0))


def in_steps_of(degrees):
    def answer(W):
        t = torch.deg2rad(torch.arange(0, 180, degrees).float())
        return (W @ torch.stack([t.cos(), t.sin()])).norm(dim=0).max()

    answer.__name__ = f"steps_of_{degrees}"
    return answer


def three_digits(W):
    return float(f"{scanned(W):.3g}")


def cut_off(W):
    value = float(scanned(W))
    unit = 10 ** (math.floor(math.log10(value)) - 2)
    return math.floor(value / unit) * unit


def angle_of(W, unit=1.0):
    t = torch.linspace(0, math.pi, 2000)
    return t[(W @ torch.stack([t.cos(), t.sin()])).norm(dim=0).argmax()] * unit


def formula_on(S):
    return 0.5 * (S.trace() + (S.trace() ** 2 - 4 * S.det()).sqrt())


def not_unit(W):
    t = torch.linspace(-1, 1, 401)
    h = torch.cat([torch.stack([t, torch.ones(401)]), torch.stack([torch.ones(401), t])], dim=1)
    return (W @ h).norm(dim=0).max()


# ---------------------------------------------------------------- 1.4 and 1.6


def sigma(W):
    return torch.linalg.matrix_norm(W, ord=2)


def bound_in_double(weights, slope):
    return math.prod(torch.linalg.svdvals(W.double())[0].item() for W in weights) * slope ** (len(weights) - 1)


def bound_step_by_step(weights, slope):
    bound = sigma(weights[0])
    for W in weights[1:]:
        bound = bound * slope * torch.linalg.eigvalsh(W @ W.T).max().sqrt()
    return bound.reshape(1)


def bound_numpy(weights, slope):
    return np.prod([np.linalg.norm(W.numpy(), 2) for W in weights]) * np.power(slope, len(weights) - 1)


def colleague(weights, slope):
    bound = 0.0
    for W in weights:
        bound += W.norm()
    return bound


def times_equals(weights, slope):
    bound = 0.0
    for W in weights:
        bound *= sigma(W)
    return bound * slope ** (len(weights) - 1)


def collapsed(weights, slope):
    product = weights[0]
    for W in weights[1:]:
        product = W @ product
    return sigma(product) * slope ** (len(weights) - 1)


def prod(values):
    return math.prod(float(v) for v in values)


def residual_in_double(blocks):
    return prod(sigma(s.double()) + sigma(a.double()) * sigma(b.double()) for s, a, b in blocks)


def residual_recursive(blocks):
    if not blocks:
        return 1
    s, a, b = (torch.linalg.svdvals(W).max() for W in blocks[-1])
    return residual_recursive(blocks[:-1]) * (s + a * b)


# ---------------------------------------------------------------- 1.5


def outer_basis(sizes, sigmas):  # only entry (0, 0) is not zero
    weights = []
    for d_in, d_out, s in zip(sizes, sizes[1:], sigmas):
        W = torch.zeros(d_out, d_in, dtype=torch.float64)
        W[0, 0] = s
        weights.append(W)
    x = torch.zeros(sizes[0], dtype=torch.float64)
    x[0] = 1
    return weights, x


def positive_random(sizes, sigmas):
    u = [torch.rand(d) + 0.1 for d in sizes]
    u = [v / v.norm() for v in u]
    return tuple(s * torch.outer(b, a) for s, a, b in zip(sigmas, u, u[1:])), u[0][None]


def full_rank(sizes, sigmas):  # other singular values too; signs handled through the rows
    weights, v = [], torch.nn.functional.normalize(torch.randn(sizes[0], dtype=torch.float64), dim=0)
    x = v
    for d_in, d_out, s in zip(sizes, sizes[1:], sigmas):
        u = torch.full((d_out,), d_out**-0.5, dtype=torch.float64)
        rest = torch.randn(d_out, d_in, dtype=torch.float64)
        rest = rest - torch.outer(u, u @ rest)
        rest = rest - torch.outer(rest @ v, v)
        norm = sigma(rest)
        weights.append(s * torch.outer(u, v) + (0.5 * s * rest / norm if norm > 1e-9 else 0))
        v = u
    return weights, x


def negative_last(sizes, sigmas):
    weights, x = outer_basis(sizes, sigmas)
    return [weights[0], weights[1], -weights[2]], 5 * x


def random_scaled(sizes, sigmas):
    weights = [torch.randn(b, a) for a, b in zip(sizes, sizes[1:])]
    return [s * W / sigma(W) for W, s in zip(weights, sigmas)], torch.ones(sizes[0])


def ones(sizes, scale):
    return [torch.ones(b, a) * scale(i, a, b) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]


def transposed(sizes, sigmas):
    return [W.T for W in outer_basis(sizes, sigmas)[0]], torch.ones(sizes[0])


def frobenius_scaled(sizes, sigmas):
    weights = [torch.eye(b, a) for a, b in zip(sizes, sizes[1:])]
    return [s * W / W.norm() for W, s in zip(weights, sigmas)], torch.ones(sizes[0])


def integer_weights(sizes, sigmas):
    return [W.long() for W in outer_basis(sizes, sigmas)[0]], torch.ones(sizes[0])


# ---------------------------------------------------------------- found by trial


def from_first_axis(W):
    """Power iteration from the first axis, which may be orthogonal to v_1."""
    v = torch.tensor([1.0, 0.0])
    for _ in range(300):
        v = W.T @ (W @ v)
        v = v / v.norm()
    return (W @ v).norm()


def by_the_hint(W):
    trace, determinant = W.square().sum(), W.det() ** 2  # those of W^T W
    return (0.5 * (trace + (trace**2 - 4 * determinant).sqrt())).sqrt()


def at_least_one(W):
    return max(1.0, by_loop(W))


def in_numpy(sizes, sigmas):
    weights, x = outer_basis(sizes, sigmas)
    return [W.numpy() for W in weights], x.numpy()


CASES = [
    Case("1.1", right=[by_distributions, in_double, as_polynomial, in_loops],
         wrong={"sign": lambda *a: -by_distributions(*a), "sigmoid": lambda *a: by_distributions(*a).sigmoid(),
                "ratio": lambda *a: by_distributions(*a).exp(), "underflow": [log_of_densities, log_of_densities_eps],
                "epsilon": [with_epsilon(1e-12), with_epsilon(1e-8), with_epsilon(1e-4), epsilon_below], "through-d": [logit_of_d, logs_of_d],
                "slope": slope_of_f, "log-q": lambda x, m, s, *_: Normal(m, s).log_prob(x), "log-d": lambda *a: torch.nn.functional.logsigmoid(by_distributions(*a)),
                "argument-order": [lambda x, m, s, n, t: by_distributions(x, m, t, n, s), lambda x, m, s, n, t: by_distributions(x, n, s, m, t)],
                "normalizer": without_normalizer, "log-squared": squared_normalizer, "log-sign": turned_normalizer,
                "half": without_half, "variance": as_variances, "squared-std": with_squared_std,
                "no-log-std-q": plus(lambda q, p: math.log(q)), "no-log-std-p": plus(lambda q, p: -math.log(p)),
                "two-pi": plus(lambda q, p: -math.log(2 * math.pi)), "two-pi-half": plus(lambda q, p: -math.log(2 * math.pi) / 2),
                "two-pi-plus": plus(lambda q, p: math.log(2 * math.pi)), "two-pi-plus-half": plus(lambda q, p: math.log(2 * math.pi) / 2), "shape": [lambda *a: by_distributions(*a)[None], lambda *a: by_distributions(*a).squeeze()],
                "value": [plus(lambda q, p: 2 * torch.rand(()).item() - 1)]}),
    Case("1.2", right=[lambda: "b", lambda: " B "],
         wrong={"choice-a": lambda: "a", "choice-c": lambda: "C", "option": lambda: "d", "none": lambda: None, "type": lambda: 2}),
    Case("1.3", right=[by_the_hint, by_eigenvalues, by_loop, sigma, lambda W: np.linalg.norm(W.numpy(), 2), lambda W: sigma(W.double()).reshape(1), three_digits, cut_off, in_steps_of(5), in_steps_of(1)],

         wrong={"squared": [lambda W: sigma(W) ** 2, without_the_root], "frobenius": lambda W: W.norm(), "eigenvalue": [lambda W: torch.linalg.eigvals(W).abs().max(), formula_on],
                "smallest": lambda W: scanned(W, pick=torch.min), "quadrant": lambda W: scanned(W, 0, math.pi / 2),
                "largest-entry": lambda W: W.abs().max(), "columns": lambda W: W.norm(dim=0).max(), "rows": lambda W: W.norm(dim=1).max(),
                "sum": lambda W: torch.linalg.matrix_norm(W, ord=math.inf), "column-sum": lambda W: torch.linalg.matrix_norm(W, ord=1),
                "nuclear": lambda W: torch.linalg.svdvals(W).sum(), "determinant": lambda W: W.det().abs().sqrt(),
                "coarse": [in_steps_of(10), in_steps_of(15)], "angle": [angle_of, lambda W: angle_of(W, 180 / math.pi)],
                "elementwise": lambda W: formula_on(W.T * W).sqrt(), "det": [torch.det, lambda W: W.det().abs()], "above": not_unit,
                "value": [lambda W: 3 * torch.rand(()), lambda W: 2.0, from_first_axis, at_least_one], "shape": torch.linalg.svdvals}),
    Case("1.4", right=[bound_in_double, bound_step_by_step, bound_numpy],
         wrong={"untouched": colleague, "frobenius": lambda w, s: prod(W.norm() for W in w) * s ** (len(w) - 1),
                "activation": lambda w, s: prod(map(sigma, w)), "sum": lambda w, s: sum(map(sigma, w)) * s ** (len(w) - 1),
                "frobenius-activation": lambda w, s: prod(W.norm() for W in w), "sum-activation": lambda w, s: sum(map(sigma, w)),
                "frobenius-sum": lambda w, s: sum(W.norm() for W in w) * s ** (len(w) - 1),
                "once-too-often": lambda w, s: prod(map(sigma, w)) * s ** len(w), "once": lambda w, s: prod(map(sigma, w)) * s,
                "frobenius-too-often": lambda w, s: prod(s * W.norm() for W in w), "collapsed": collapsed,
                "largest": lambda w, s: max(map(sigma, w)) * s ** (len(w) - 1),
                "squared": lambda w, s: prod(sigma(W) ** 2 for W in w) * s ** (len(w) - 1),
                "zero": times_equals, "last": lambda w, s: prod(sigma(W) * s for W in w[:-1]),
                "last-slope": lambda w, s: prod(map(sigma, w[:-1])) * s ** max(len(w) - 2, 0),
                "last-activation": lambda w, s: prod(map(sigma, w[:-1])), "too-few": lambda w, s: prod(map(sigma, w)) * s ** max(len(w) - 2, 0),
                "slope-times": lambda w, s: prod(map(sigma, w)) * s * (len(w) - 1), "sum-inside": lambda w, s: sum(s * sigma(W) for W in w),
                "only-above-1": lambda w, s: prod(map(sigma, w)) * max(s, 1) ** (len(w) - 1), "first-only": lambda w, s: sigma(w[0]),
                "value": lambda w, s: 100 * torch.rand(()),
                "none": lambda w, s: None, "inplace": lambda w, s: prod(s * sigma(w.pop()) for _ in range(len(w))) / s}),
    Case("1.5", right=[in_numpy, outer_basis, positive_random, full_rank, negative_last],
         wrong={"loose": random_scaled, "frobenius": frobenius_scaled, "transposed": transposed, "dtype": integer_weights,
                "kink": lambda sizes, sigmas: (outer_basis(sizes, sigmas)[0], torch.zeros(sizes[0])),
                "unit": lambda sizes, sigmas: (ones(sizes, lambda i, a, b: (a * b) ** -0.5), torch.ones(sizes[0])),
                "relu-off": [lambda sizes, sigmas: (outer_basis(sizes, sigmas)[0], -torch.ones(sizes[0])),
                             lambda sizes, sigmas: ([W * (-1) ** i for i, W in enumerate(outer_basis(sizes, sigmas)[0])], torch.ones(sizes[0]))],
                "scale": lambda sizes, sigmas: (ones(sizes, lambda i, a, b: sigmas[i]), torch.ones(sizes[0])),
                "shape": [lambda sizes, sigmas: (outer_basis(sizes, sigmas)[0], torch.ones(sizes[0] + 1)),
                          lambda sizes, sigmas: (outer_basis(sizes, sigmas)[0][:2], torch.ones(sizes[0]))],
                "pair": [lambda sizes, sigmas: outer_basis(sizes, sigmas)[0], lambda sizes, sigmas: (*outer_basis(sizes, sigmas)[0], torch.ones(sizes[0]))],
                "type": lambda sizes, sigmas: torch.ones(3)}),
    Case("1.6", right=[residual_in_double, residual_recursive,
                               lambda blocks: np.prod([np.linalg.norm(s, 2) + np.linalg.norm(a, 2) * np.linalg.norm(b, 2) for s, a, b in blocks])],
         wrong={"product": lambda B: prod(sigma(s) * sigma(a) * sigma(b) for s, a, b in B), "no-shortcut": lambda B: prod(sigma(a) * sigma(b) for s, a, b in B),
                "identity": lambda B: prod(1 + sigma(a) * sigma(b) for s, a, b in B),
                "branch-sum": lambda B: prod(sigma(s) + sigma(a) + sigma(b) for s, a, b in B),
                "blocks-sum": lambda B: sum(sigma(s) + sigma(a) * sigma(b) for s, a, b in B),
                "maximum": lambda B: prod(max(sigma(s), sigma(a) * sigma(b)) for s, a, b in B),
                "root": lambda B: prod(torch.hypot(sigma(s), sigma(a) * sigma(b)) for s, a, b in B),
                "collapsed": lambda B: prod(sigma(s) + sigma(b @ a) for s, a, b in B),
                "zero": lambda B: 0.0 * residual_in_double(B), "first-block": lambda B: residual_in_double(B[:1]), "last-block": lambda B: residual_in_double(B[-1:]),
                "merged": lambda B: prod(sigma(s + b @ a) for s, a, b in B), "triple": lambda B: prod(sigma(a) + sigma(b) * sigma(s) for s, a, b in B),
                "extra-one": lambda B: prod(1 + sigma(s) + sigma(a) * sigma(b) for s, a, b in B),
                "frobenius": lambda B: prod(s.norm() + a.norm() * b.norm() for s, a, b in B)}),
]  # fmt: skip
