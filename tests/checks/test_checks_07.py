import math

import numpy as np
import torch
from harness import Case, test_exercise  # noqa: F401


# ---------------------------------------------------------------- 7.1
def scale_tensor(m, n):
    return 1 / (torch.tensor(float(m)).sqrt() + torch.tensor(float(n)).sqrt())


def scale_by_nu(m, n):
    nu = 3.0
    return nu / (nu * (m**0.5 + n**0.5))


# ---------------------------------------------------------------- 7.2
def rate_eigvals(rho):
    return torch.linalg.eigvals(torch.tensor([[0.0, 0.5], [-0.5, -rho]])).real.max()


def rate_numpy(rho):
    return np.roots([1, rho, 0.25]).real.max()


def rate_complex_root(rho):
    return (-rho / 2 + (complex(rho) ** 2 - 1) ** 0.5 / 2).real


def rate_one_slope(rho):
    return rate_eigvals_of([[0.0, 1.0], [-1.0, -rho]]).real.max()


def rate_eigvals_of(rows):
    return torch.linalg.eigvals(torch.tensor(rows, dtype=torch.float64))


# ---------------------------------------------------------------- 7.3
def orbit_squares(size_w, eta_G, eta_D):
    return math.sqrt(size_w**2 * eta_G / eta_D)


def orbit_bisection(size_w, eta_G, eta_D):
    low, high = 0.0, 1e6
    for _ in range(200):
        r = (low + high) / 2
        low, high = (r, high) if eta_D * r / size_w**2 < eta_G / r else (low, r)
    return torch.tensor(low, dtype=torch.float64)


# ---------------------------------------------------------------- 7.4
ROOT = 1 / math.sqrt(2)


def abs_with(column, maxmin_row, relu_row):
    def answer(kind):
        row = maxmin_row if kind == "maxmin" else relu_row
        return torch.tensor([[v] for v in column]), torch.tensor([row])

    return answer


def abs_swapped(kind):  # -x first
    return np.array([[-ROOT], [ROOT]]), np.array([[ROOT, -ROOT if kind == "maxmin" else ROOT]])


def abs_unequal(kind):  # MaxMin works in exactly this way only; ReLU allows both rows and columns scaled alike
    if kind == "maxmin":
        return torch.tensor([[ROOT], [-ROOT]]).double(), torch.tensor([[ROOT, -ROOT]]).double()
    return [torch.tensor([[-ROOT], [ROOT]]), torch.tensor([[ROOT, ROOT]])]


# ---------------------------------------------------------------- 7.5
def radius_loop(logits, y, K):
    found = []
    for row, label in zip(logits, y):
        others = max(float(v) for j, v in enumerate(row) if j != label)
        found.append(max(float(row[label]) - others, 0.0) / (math.sqrt(2) * K))
    return torch.tensor(found)


def radius_numpy(logits, y, K):
    scores, rows = logits.numpy().astype(float), np.arange(len(y))
    own = scores[rows, y.numpy()].copy()
    scores[rows, y.numpy()] = -np.inf
    return np.maximum(own - scores.max(1), 0) / (2**0.5 * K)


def radius_with(factor=lambda K: math.sqrt(2) * K, shape=lambda margin: margin.clamp_min(0), mask=True):
    def answer(logits, y, K):
        own = logits.gather(1, y[:, None])[:, 0]
        others = logits.scatter(1, y[:, None], -math.inf) if mask else logits
        return shape(own - others.amax(1)) / factor(K)

    return answer


def radius_of_prediction(logits, y, K):
    best = logits.topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]) / (math.sqrt(2) * K)


def radius_in_place(logits, y, K):
    own = logits.gather(1, y[:, None])[:, 0].clone()
    logits.scatter_(1, y[:, None], -math.inf)
    return (own - logits.amax(1)).clamp_min(0) / (math.sqrt(2) * K)


def radius_softmax(logits, y, K):
    return radius_with()(logits.softmax(1), y, K)


def radius_alone(logits, y, K):
    return logits.gather(1, y[:, None])[:, 0].clamp_min(0) / (math.sqrt(2) * K)


# ---------------------------------------------------------------- 7.6
def gram_rows(W, k):  # W W^T has the same singular values
    log_c = 0.0
    for _ in range(k):
        c = W.abs().max()
        W = (W / c) @ (W / c).T
        log_c = 2 * (log_c + c.log())
    return torch.exp((log_c + torch.log(W.norm())) / 2**k)


def gram_double(W, k):
    log_c, A = 0.0, W.double().numpy()
    for _ in range(k):
        c = np.linalg.norm(A)
        A = A / c
        A, log_c = A.T @ A, 2 * (log_c + np.log(c))
    return float(np.exp((log_c + np.log(np.linalg.norm(A))) / 2**k))


def gram_plain(W, k):
    for _ in range(k):
        W = W.T @ W
    return W.norm() ** (1 / 2**k)


def gram_power_iteration(W, k):
    v = torch.ones(W.shape[1]) / math.sqrt(W.shape[1])
    for _ in range(k + 1):
        v = W.T @ (W @ v)
        v = v / v.norm()
    return (W @ v).norm()


def gram_exponent(power, rounds=lambda k: k):
    def answer(W, k):
        return gram_rows(W, rounds(k)) ** power(k)

    return answer


def nothing(*arguments):
    pass


CASES = [
    Case(
        "7.1",
        right=[scale_tensor, scale_by_nu],
        wrong={
            "lecun": lambda m, n: 1 / n**0.5,
            "outputs": lambda m, n: 1 / m**0.5,
            "root-of-sum": lambda m, n: (m + n) ** -0.5,
            "xavier": lambda m, n: (2 / (m + n)) ** 0.5,
            "variance": lambda m, n: 1 / (m**0.5 + n**0.5) ** 2,
            "sigma": lambda m, n: m**0.5 + n**0.5,
            "no-roots": lambda m, n: 1 / (m + n),
            "none": nothing,
        },
    ),
    Case(
        "7.2",
        right=[rate_eigvals, rate_numpy, rate_complex_root],
        wrong={
            "one-slope": rate_one_slope,
            "smaller": lambda rho: -rho / 2 - math.sqrt(max(rho**2 - 1, 0)) / 2,
            "sign": lambda rho: rho / 2 - math.sqrt(max(rho**2 - 1, 0)) / 2,
            "half-only": lambda rho: -rho / 2,
            "imaginary-counted": lambda rho: -rho / 2 + math.sqrt(abs(rho**2 - 1)) / 2,
            "twice": lambda rho: -rho + math.sqrt(max(rho**2 - 1, 0)),
            "modulus": lambda rho: rate_eigvals_of([[0.0, 0.5], [-0.5, -rho]]).abs().max(),
            "complex": lambda rho: -rho / 2 + (complex(rho) ** 2 - 1) ** 0.5 / 2,
            "raises": lambda rho: -rho / 2 + math.sqrt(rho**2 - 1) / 2,
        },
    ),
    Case(
        "7.3",
        right=[orbit_squares, orbit_bisection],
        wrong={
            "root-of-size": lambda s, g, d: math.sqrt(s * g / d),
            "inverted": lambda s, g, d: s * math.sqrt(d / g),
            "no-root": lambda s, g, d: s * g / d,
            "squared": lambda s, g, d: s**2 * g / d,
            "no-ratio": lambda s, g, d: s,
            "no-size": lambda s, g, d: math.sqrt(g / d),
            "value": lambda s, g, d: 3.0 * s * math.sqrt(g / d),
        },
    ),
    Case(
        "7.4",
        right=[abs_swapped, abs_unequal],
        wrong={
            "norm": [
                abs_with([1.0, -1.0], [0.5, -0.5], [0.5, 0.5]),
                abs_with([ROOT, -ROOT], [1.0, -1.0], [1.0, 1.0]),
            ],
            "zero": abs_with([ROOT, -ROOT], [ROOT, ROOT], [ROOT, ROOT]),
            "negative": abs_with([ROOT, -ROOT], [-ROOT, ROOT], [-ROOT, -ROOT]),
            "linear": [
                abs_with([ROOT, ROOT], [ROOT, ROOT], [ROOT, ROOT]),
                abs_with([ROOT, -ROOT], [ROOT, -ROOT], [ROOT, -ROOT]),
            ],
            "one-side": abs_with([ROOT, -ROOT], [ROOT, -ROOT], [1.0, 0.0]),
            "slope": abs_with([0.5, -0.5], [0.5, -0.5], [ROOT, ROOT]),
            "shape": lambda kind: (torch.tensor([[ROOT, -ROOT]]), torch.tensor([[ROOT], [-ROOT]])),
            "type": lambda kind: torch.tensor([[ROOT], [-ROOT]]),
        },
    ),
    Case(
        "7.5",
        right=[radius_loop, radius_numpy],
        wrong={
            "no-root": radius_with(factor=lambda K: K),
            "half": radius_with(factor=lambda K: 2 * K),
            "k-forgotten": radius_with(factor=lambda K: math.sqrt(2)),
            "k-times": radius_with(factor=lambda K: math.sqrt(2) / K),
            "k-squared": radius_with(factor=lambda K: math.sqrt(2) * K**2),
            "negative": radius_with(shape=lambda margin: margin),
            "absolute": radius_with(shape=torch.abs),
            "not-masked": radius_with(mask=False),
            "own-prediction": radius_of_prediction,
            "softmax": radius_softmax,
            "no-runner-up": radius_alone,
            "inplace": radius_in_place,
        },
    ),
    Case(
        "7.6",
        right=[gram_rows, gram_double],
        wrong={
            "overflow": gram_plain,
            "exact": lambda W, k: torch.linalg.matrix_norm(W, ord=2),
            "below": gram_power_iteration,
            "frobenius": lambda W, k: W.norm(),
            "no-root": gram_exponent(lambda k: 2**k),
            "root-missing": gram_exponent(lambda k: 2),
            "root-twice": gram_exponent(lambda k: 0.5),
            "one-less": gram_exponent(lambda k: 1, rounds=lambda k: max(k - 1, 0)),
            "one-more": gram_exponent(lambda k: 1, rounds=lambda k: k + 1),
            "none": nothing,
        },
    ),
]
