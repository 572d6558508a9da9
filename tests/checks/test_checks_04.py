import math

import numpy as np
import torch
from harness import Case, test_exercise  # noqa: F401
from torch.nn import functional as F


# 4.1
def rank_by_loop(W, sigma):
    return sum(float(x) ** 2 for x in W.flatten()) / float(sigma) ** 2


def rank_by_svd(W, sigma):
    s = torch.linalg.svdvals(W.flatten(1).double()) / float(sigma)
    return (s @ s).item()


def rank_by_trace(W, sigma):
    M = W.reshape(len(W), -1) / sigma
    return torch.trace(M @ M.T)


# 4.2
def normalize_rows_by_loop(W):
    rows = torch.stack([row / torch.sqrt((row * row).sum()) for row in W])
    return rows, W.shape[0]


def normalize_rows_by_f(W):
    rows = F.normalize(W.double().flatten(1), dim=1)
    return [rows.reshape(W.shape), (rows @ rows.T).trace()]


def normalize_rows_in_numpy(W):
    rows = W.flatten(1).numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows).view(W.shape), float((np.linalg.svd(rows, compute_uv=False) ** 2).sum())


def constraint(dims, root=True, total=None):
    def weight_normalize(W):
        axes = dims(W)
        squared = W.square().sum(dim=axes, keepdim=True)
        result = W / (squared.sqrt() if root else squared)
        return result, (total or (lambda V, raw: V.square().sum()))(result, W)

    return weight_normalize


rows = lambda W: tuple(range(1, W.ndim))
sigmas = lambda W: torch.linalg.svdvals(W.flatten(1))


def in_place(W):
    W /= W.flatten(1).norm(dim=1).view(-1, *[1] * (W.ndim - 1))
    return W, float(len(W))


# 4.3
def strongest_signs(h, d_out):
    signs = torch.tensor([(-1.0) ** i for i in range(d_out)])
    return torch.outer(signs, F.normalize(h, dim=0))


def strongest_repeat(h, d_out):
    return (-h.double() / torch.linalg.norm(h.double())).repeat(d_out, 1)


def strongest_rows(h, d_out):
    return torch.stack([h / h.square().sum().sqrt() for _ in range(d_out)])


# 4.6
def clip_by_diag(W, bound):
    U, S, V = torch.svd(W)
    return U @ torch.diag(torch.minimum(S, torch.tensor(bound, dtype=S.dtype))) @ V.T


def clip_by_loop(W, bound):
    U, S, Vh = torch.linalg.svd(W.double())
    return sum(min(float(S[t]), bound) * torch.outer(U[:, t], Vh[t]) for t in range(len(S)))


def clip_by_difference(W, bound):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return W - (U * F.relu(S - bound)) @ Vh


def rebuilt(change, transposed=False):
    def clip_singular_values(W, bound):
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        return U * change(S, bound) @ (Vh.T if transposed else Vh)

    return clip_singular_values


def clip_by_eigenvectors(W, bound):
    """Right unless a singular value is zero."""
    squared, V = torch.linalg.eigh(W.T @ W)
    S = squared.sqrt()
    return (W @ V / S * S.clamp(max=bound)) @ V.T


# 4.4
def mended(dims, root=True):
    return lambda weight: constraint(lambda W: dims, root)(weight)[0]


def mended_by_view(weight):
    flat = weight.view(len(weight), -1)
    return (flat / flat.norm(dim=1)[:, None]).view(weight.shape)


def mended_by_einsum(weight):
    norms = torch.einsum("oikl,oikl->o", weight.double(), weight.double()) ** 0.5
    return weight / norms[:, None, None, None]


CASES = [
    Case(
        "4.1",
        right=[rank_by_loop, rank_by_svd, rank_by_trace],
        wrong={
            "sigma": lambda W, sigma: W.square().sum() / sigma,
            "root": [lambda W, sigma: W.norm() / sigma, lambda W, sigma: (W.square().sum() / sigma**2) ** 0.5],
            "inverse": lambda W, sigma: sigma**2 / W.square().sum(),
            "unsquared": lambda W, sigma: sigmas(W).sum() / sigma,
            "rank": lambda W, sigma: torch.linalg.matrix_rank(W.flatten(1)),
            "energy": [
                lambda W, sigma: W.square().sum(),
                lambda W, sigma: W.square().sum() / max(sigma, 1.0) ** 2,
            ],
            "value": [
                lambda W, sigma: W.square().sum() / (sigma**2 + 1e-4),
            ],
            "absolute": lambda W, sigma: W.abs().sum() / sigma**2,
            "sum": lambda W, sigma: W.sum() / sigma**2,
            "norm": lambda W, sigma: W.norm() / sigma**2,
            "mean": lambda W, sigma: W.square().mean() / sigma**2,
            "fourth": lambda W, sigma: W.norm() ** 4 / sigma**2,
            "share": lambda W, sigma: W.square().sum() / sigma**2 / min(W.flatten(1).shape),
            "type": lambda W, sigma: [W.square().sum() / sigma**2],
            "shape": lambda W, sigma: W.flatten(1).square().sum(1) / sigma**2,
        },
    ),
    Case(
        "4.2",
        right=[normalize_rows_by_loop, normalize_rows_by_f, normalize_rows_in_numpy],
        wrong={
            "columns": constraint(lambda W: (0, *range(2, W.ndim))),
            "frobenius": lambda W: (W / W.norm(), 1.0),
            "square": constraint(rows, root=False),
            "kernels": constraint(lambda W: (2, 3) if W.ndim == 4 else (1,)),
            "last": lambda W: (W / W.norm(dim=1, keepdim=True), float(len(W))),
            "entries": lambda W: (W / W.abs().sum(dim=rows(W), keepdim=True), float(len(W))),
            "sigma": lambda W: (W / sigmas(W)[0], float(len(W))),
            "keepdim": lambda W: (W / W.norm(dim=1) if W.ndim == 2 else W, float(len(W))),
            "min-max": lambda W: ((W - W.min()) / (W.max() - W.min()), float(len(W))),
            "maximum": lambda W: (W / W.abs().amax(rows(W), keepdim=True), float(len(W))),
            "mean": lambda W: (W / W.square().mean(rows(W), keepdim=True).sqrt(), float(len(W))),
            "unsquared": constraint(rows, total=lambda V, W: sigmas(V).sum()),
            "raw": constraint(rows, total=lambda V, W: sigmas(W).square().sum()),
            "root": constraint(rows, total=lambda V, W: V.norm()),
            "input": [
                constraint(rows, total=lambda V, W: V.flatten(1).shape[1]),
            ],
            "first": constraint(rows, total=lambda V, W: sigmas(V)[0] ** 2),
            "value": [
                lambda W: (W / (W.square().sum(rows(W), keepdim=True).sqrt() + 1e-3), float(len(W))),
                lambda W: (W / W.square().sum(rows(W), keepdim=True).sqrt().clamp(min=1), float(len(W))),
            ],
            "order": lambda W: normalize_rows_by_f(W)[::-1],
            "inplace": in_place,
            "type": lambda W: normalize_rows_by_f(W)[0],
            "shape": lambda W: (W.flatten(1) / W.flatten(1).norm(dim=1, keepdim=True), float(len(W))),
        },
    ),
    Case(
        "4.3",
        right=[strongest_signs, strongest_repeat, strongest_rows],
        wrong={
            "length": lambda h, d_out: torch.outer(torch.ones(d_out), h),
            "frobenius": lambda h, d_out: torch.outer(torch.ones(d_out) / math.sqrt(d_out), h / h.norm()),
            "transposed": [
                lambda h, d_out: torch.outer(h / h.norm(), torch.ones(d_out)),
                lambda h, d_out: (h / h.norm()).repeat(d_out, 1).T,
            ],
            "stretch": [
                lambda h, d_out: F.normalize(torch.ones(d_out, len(h)), dim=1),
                lambda h, d_out: F.normalize(torch.eye(d_out, len(h)) + 1e-3, dim=1),
                lambda h, d_out: F.normalize(torch.sign(h).repeat(d_out, 1), dim=1),
            ],
            "rows": [
                lambda h, d_out: h.repeat(d_out, 1) / h.abs().sum(),
                lambda h, d_out: torch.outer(torch.arange(1.0, d_out + 1), h / h.norm()),
            ],
            "shape": lambda h, d_out: h / h.norm(),
        },
    ),
    Case(
        "4.5",
        right=[lambda: "b", lambda: " B "],
        wrong={
            "choice-a": lambda: "a",
            "choice-c": lambda: "c",
            "choice-d": lambda: "d",
            "option": lambda: "e",
            "none": lambda: None,
        },
    ),
    Case(
        "4.6",
        right=[clip_by_diag, clip_by_loop, clip_by_difference],
        wrong={
            "rescaled": lambda W, bound: W * bound / torch.linalg.matrix_norm(W, ord=2),
            "entries": lambda W, bound: W.clamp(-bound, bound),
            "floor": rebuilt(lambda S, bound: S.clamp(min=bound)),
            "equal": rebuilt(lambda S, bound: torch.full_like(S, bound)),
            "one": rebuilt(lambda S, bound: S.clamp(max=1.0)),
            "kept": lambda W, bound: W.clone(),
            "cut": rebuilt(lambda S, bound: torch.where(S > bound, 0.0, S)),
            "transposed": rebuilt(lambda S, bound: S.clamp(max=bound), transposed=True),
            "shape": lambda W, bound: torch.linalg.svdvals(W).clamp(max=bound),
            "squared": rebuilt(lambda S, bound: S.clamp(max=bound) ** 2),
            "subtracted": rebuilt(lambda S, bound: (S - bound).clamp(min=0)),
            "first-only": rebuilt(lambda S, bound: torch.cat([S[:1].clamp(max=bound), S[1:]])),
            "frobenius": lambda W, bound: W * min(1.0, bound / float(W.norm())),
            "value": rebuilt(lambda S, bound: bound * torch.tanh(S / bound)),
            "nan": clip_by_eigenvectors,
            "none": lambda W, bound: None,
        },
    ),
    Case(
        "4.4",
        right=[mended_by_view, mended_by_einsum, mended((1, 2, 3))],
        wrong={
            "unchanged": lambda weight: weight / weight.square().sum(dim=(2, 3), keepdim=True),
            "kernels": mended((2, 3)),
            "square": mended((1, 2, 3), root=False),
            "columns": mended((0, 2, 3)),
            "frobenius": mended((0, 1, 2, 3)),
            "last": lambda weight: weight / weight.norm(dim=1, keepdim=True),
            "keepdim": lambda weight: weight / weight.norm(dim=1),
            "axes": mended((1, 2)),
            "min-max": [
                lambda weight: (weight - weight.min()) / (weight.max() - weight.min()),
                lambda weight: 2 * (weight - weight.min()) / (weight.max() - weight.min()) - 1,
            ],
            "maximum": lambda weight: weight / weight.abs().max(),
            "entries": lambda weight: weight / weight.abs().sum((1, 2, 3), keepdim=True),
            "mean": lambda weight: weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt(),
            "budget": lambda weight: weight / weight.norm() * math.sqrt(len(weight)),
            "shape": lambda weight: weight.flatten(1) / weight.flatten(1).norm(dim=1, keepdim=True),
            "value": [
                lambda weight: weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1),
                lambda weight: weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-3).sqrt(),
            ],
        },
    ),
]
