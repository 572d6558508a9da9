"""Right and wrong answers to the exercises of lecture 06."""

import math

import numpy as np
import torch
from harness import Case, test_exercise  # noqa: F401


# ---------------------------------------------------------------- 6.1
def product_numpy(W, hs):
    P = np.eye(len(W))
    for h in hs.double().numpy():
        P = np.diag(1 - h * h) @ W.double().numpy() @ P
    return P


def product_backwards(W, hs):
    """From the newest state to the oldest, multiplying from the right."""
    P = torch.eye(len(W), dtype=W.dtype)
    for h in hs.flip(0):
        P = P @ (torch.diag(1 - h**2) @ W)
    return P


def product_chain(W, hs):
    factors = [torch.diag_embed(1 - h**2) @ W for h in hs]
    return torch.linalg.multi_dot(factors[::-1]) if len(factors) > 1 else factors[0]


def product_with(factor=lambda W, h: (1 - h**2)[:, None] * W, left=True, states=lambda hs: hs):
    def answer(W, hs):
        P = torch.eye(len(W), dtype=W.dtype)
        for h in states(hs):
            P = factor(W, h) @ P if left else P @ factor(W, h)
        return P

    return answer


def product_entrywise(W, hs):
    product = torch.ones_like(W)
    for h in hs:
        product = (1 - h**2)[:, None] * W * product
    return product


def product_inplace(W, hs):
    P = torch.eye(len(W), dtype=W.dtype)
    for h in hs.square_().neg_().add_(1):
        P = h[:, None] * (W @ P)
    return P


# ---------------------------------------------------------------- 6.2
def certain_loop(W, slope, eps):
    rate = slope * torch.linalg.svdvals(W)[0]
    if rate >= 1:
        return float("inf")
    T = 0
    while rate**T > eps:
        T += 1
    return T


def certain_tensor(W, slope, eps):
    rate = slope * torch.linalg.norm(W, 2)
    return torch.where(rate < 1, torch.ceil(np.log10(eps) / torch.log10(rate)), torch.inf)


def certain_numpy(W, slope, eps):
    rate = slope * np.linalg.norm(W.numpy(), 2)
    return np.ceil(np.log(eps) / np.log(rate)) if rate < 1 else np.inf


def certain_with(size=lambda W: float(torch.linalg.matrix_norm(W, ord=2)), power=1, rounding=math.ceil, sign=1, edge=1):
    def answer(W, slope, eps):
        rate = slope**power * size(W)
        if rate >= edge:
            return math.inf
        return rounding(sign * math.log(eps) / math.log(rate))

    return answer


radius = lambda W: float(torch.linalg.eigvals(W).abs().max())


# ---------------------------------------------------------------- 6.3
def bomb(r, W=lambda r: [[r, -r * r], [1.0, -r]], h=(1.0, 0.0), z=(1.0, -1.0)):
    W, h, z = (torch.tensor(v, dtype=torch.float64) for v in (W(r), h, z))
    return W, z - W @ h, h


def bomb_other_unit(r):
    """Unit 1 is off, with other sizes."""
    return bomb(r, lambda r: [[-r, -3 * r * r], [1 / 3, r]], (0.0, 2.0), (-0.7, 2.0))


def bomb_negative(r):
    """The entry that survives is -r: the sign alternates, the norm grows all the same."""
    return bomb(r, lambda r: [[-r, r], [-r, r]])


def bomb_single(r):
    return tuple(part.float() for part in bomb(r, lambda r: [[r, -r], [r, -r]]))


# ---------------------------------------------------------------- 6.4
def lstm_cell(x, h, c, W_x, W_h, b_x, b_h):
    cell = torch.nn.LSTMCell(len(x), len(h)).double()
    for p, value in zip((cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh), (W_x, W_h, b_x, b_h)):
        p.data = value
    return cell(x, (h, c))


def lstm_numpy(x, h, c, W_x, W_h, b_x, b_h):
    x, h, c, W_x, W_h, b_x, b_h = (t.numpy() for t in (x, h, c, W_x, W_h, b_x, b_h))
    z, n = W_x @ x + b_x + W_h @ h + b_h, len(h)
    sig = lambda v: 1 / (1 + np.exp(-v))
    c = sig(z[n : 2 * n]) * c + sig(z[:n]) * np.tanh(z[2 * n : 3 * n])
    return [sig(z[3 * n :]) * np.tanh(c), c]


def lstm_with(order="ifgo", out=torch.tanh, biases=(1, 1), back=lambda h, c: (h, c), new=True):
    def answer(x, h, c, W_x, W_h, b_x, b_h):
        z = dict(zip(order, (W_x @ x + W_h @ h + biases[0] * b_x + biases[1] * b_h).chunk(4)))
        old, c = c, z["f"].sigmoid() * c + z["i"].sigmoid() * z["g"].tanh()
        return back(z["o"].sigmoid() * out(c if new else old), c)

    return answer


same = lambda c: c


def lstm_gates_squashed_wrong(x, h, c, W_x, W_h, b_x, b_h):
    i, f, g, o = (W_x @ x + W_h @ h + b_x + b_h).chunk(4)
    c = f.tanh() * c + i.tanh() * g.sigmoid()
    return o.sigmoid() * c.tanh(), c


# ---------------------------------------------------------------- 6.5
def bias_numpy(T):
    return -np.log(np.expm1(np.log(2) / T))


def bias_tensor(T):
    return -torch.log(torch.expm1(torch.log(torch.tensor(2.0, dtype=torch.float64)) / T))


def bias_logit(T):
    return torch.logit(torch.tensor(2.0, dtype=torch.float64) ** (-1 / T))


gate = lambda T: 2 ** (-1 / T)


# ---------------------------------------------------------------- 6.6
def implicit_inverse(W, h, c):
    D = torch.diag(1 - h**2)
    return (torch.linalg.inv(torch.eye(len(h)).double() - D @ W) @ D).T @ c


def implicit_row(W, h, c):
    D = torch.diag(1 - h**2)
    return torch.linalg.solve(torch.eye(len(h)).double() - D @ W, D, left=True).T @ c[:, None]


def implicit_series(W, h, c):
    """Neumann's series: the sum of the transposed products."""
    D, lam, total = 1 - h**2, c, torch.zeros_like(c)
    for _ in range(300):
        total, lam = total + lam, W.T @ (D * lam)
    return D * total


def implicit_with(
    matrix=lambda W, D: torch.eye(len(D)).double() - D[:, None] * W, transpose=True, last=lambda D, v: D * v
):
    def answer(W, h, c):
        D = 1 - h**2
        M = matrix(W, D)
        return last(D, torch.linalg.solve(M.T if transpose else M, c))

    return answer


CASES = [
    Case(
        "6.1",
        right=[product_numpy, product_backwards, product_chain],
        wrong={
            "reversed": product_with(left=False),
            "columns": product_with(lambda W, h: W * (1 - h**2)),
            "columns-reversed": product_with(lambda W, h: W * (1 - h**2), left=False),
            "squares": product_with(lambda W, h: (h**2)[:, None] * W),
            "values": product_with(lambda W, h: (1 - h)[:, None] * W),
            "tanh-twice": product_with(lambda W, h: (1 - torch.tanh(h) ** 2)[:, None] * W),
            "no-slopes": product_with(lambda W, h: W),
            "last-missing": product_with(states=lambda hs: hs[:-1]),
            "first-missing": product_with(states=lambda hs: hs[1:]),
            "transposed": lambda W, hs: product_backwards(W, hs).T,
            "entrywise": product_entrywise,
            "sum": lambda W, hs: sum((1 - h**2)[:, None] * W for h in hs),
            "inplace": product_inplace,
            "shape": lambda W, hs: product_backwards(W, hs)[0],
            "none": lambda W, hs: None,
        },
    ),
    Case(
        "6.2",
        right=[certain_loop, certain_tensor, certain_numpy],
        wrong={
            "radius": certain_with(radius),
            "frobenius": certain_with(lambda W: float(W.norm())),
            "slope": certain_with(power=0),
            "slope-squared": certain_with(power=2),
            "floor": [certain_with(rounding=math.floor), certain_with(rounding=int)],
            "next": lambda W, slope, eps: certain_loop(W, slope, eps) + 1,
            "sign": [certain_with(sign=-1), certain_with(rounding=math.floor, sign=-1)],
            "whole": certain_with(rounding=float),
            "never": [
                lambda W, slope, eps: min(certain_loop(W, slope, eps), 10**9),
                lambda W, slope, eps: certain_loop(
                    W, min(slope, 0.999 / float(torch.linalg.matrix_norm(W, ord=2))), eps
                ),
            ],
            "inf": lambda W, slope, eps: math.inf,
            "type": lambda W, slope, eps: "soon",
        },
    ),
    Case(
        "6.3",
        right=[bomb, bomb_other_unit, bomb_negative, bomb_single],
        wrong={
            "radius": [
                lambda r: bomb(r, lambda r: [[r, 1.0], [1.0, 0.0]]),
                lambda r: bomb(r, lambda r: [[r, 1.0], [1.0, -r]]),
            ],
            "diagonal": lambda r: bomb(r, lambda r: [[r, 0.0], [0.0, -r]]),
            "not-fixed": lambda r: (*bomb(r)[:2], torch.tensor([2.0, 0.0])),
            "kink": lambda r: bomb(r, z=(1.0, 0.0)),
            "both-on": lambda r: bomb(r, h=(1.0, 1.0), z=(1.0, 1.0)),
            "both-off": lambda r: bomb(r, h=(0.0, 0.0), z=(-1.0, -1.0)),
            "norm": lambda r: bomb(r, lambda r: [[r / 2**0.5, -r / 2**0.5], [r / 2**0.5, -r / 2**0.5]]),
            "growth": lambda r: bomb(r * r),
            "zero": lambda r: (torch.zeros(2, 2), torch.ones(2), torch.ones(2)),
            "shape": lambda r: bomb(r)[:2],
        },
    ),
    Case(
        "6.4",
        right=[lstm_cell, lstm_numpy, lstm_with()],
        wrong={
            "order": lstm_with("igfo"),
            "output": lstm_with(out=same),
            "bias": [lstm_with(biases=(1, 0)), lstm_with(biases=(0, 1))],
            "order-output": lstm_with("igfo", out=same),
            "order-bias": lstm_with("igfo", biases=(1, 0)),
            "output-bias": lstm_with(out=same, biases=(1, 0)),
            "order-output-bias": lstm_with("igfo", out=same, biases=(1, 0)),
            "torch-order": lstm_with("ifog"),
            "swapped": lstm_with(back=lambda h, c: (c, h)),
            "old-cell": lstm_with(new=False),
            "h": lstm_with(out=torch.sigmoid),
            "value": lstm_gates_squashed_wrong,
            "type": lambda *a: lstm_cell(*a)[0],
        },
    ),
    Case(
        "6.5",
        right=[bias_numpy, bias_tensor, bias_logit],
        wrong={
            "one-over-e": math.log,
            "gate": gate,
            "decay": lambda T: math.log(2) / T,
            "sign": lambda T: math.log(math.expm1(math.log(2) / T)),
            "chain": lambda T: math.log(T / math.log(2)),
            "base-two": lambda T: math.log2(gate(T) / (1 - gate(T))),
            "twice": lambda T: bias_numpy(T) / 2,
            "cancellation": [
                lambda T: float(torch.logit(torch.tensor(2.0) ** (-1 / T))),
                lambda T: float(-torch.log(torch.tensor(2.0) ** (1 / T) - 1)),
            ],
            "value": [lambda T: 2.0, lambda T: bias_numpy(T) if T > 1 else 0.5],
            "type": lambda T: f"{bias_numpy(T)}",
        },
    ),
    Case(
        "6.6",
        right=[implicit_inverse, implicit_row, implicit_series],
        wrong={
            "no-transpose": lambda W, h, c: implicit_with(transpose=False, last=lambda D, v: v)(W, h, (1 - h**2) * c),
            "half-transpose": implicit_with(transpose=False),
            "no-slopes-in-system": implicit_with(lambda W, D: torch.eye(len(D)).double() - W),
            "columns": implicit_with(lambda W, D: torch.eye(len(D)).double() - W * D),
            "no-slopes": implicit_with(last=lambda D, v: v),
            "one-step": lambda W, h, c: (1 - h**2) * c,
            "plus": implicit_with(lambda W, D: torch.eye(len(D)).double() + D[:, None] * W),
            "shape": lambda W, h, c: implicit_inverse(W, h, c).sum(),
            "value": lambda W, h, c: h * c,
        },
    ),
]
