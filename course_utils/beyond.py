"""After 2018: the Dirac-GAN and its dynamics, MaxMin networks and certificates, norms from above, updates of norm one.

A game's state y is (theta, d): the generator's point theta, then as many numbers of the discriminator; the last axis
holds both halves, so that many games can run side by side. Lecture 07 derives what is used here and gives the sources.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .validation import require_tensor

MUON = (3.4445, -4.7750, 2.0315)  # c1, c3, c5 of Muon's Newton-Schulz round (Jordan et al. 2024: a, b, c)
GAMES = ("wasserstein", "saturating", "non-saturating", "wgan-gp", "r1")


def pushes(score: Tensor, game: str) -> tuple[Tensor, Tensor]:
    """How hard G and D act on a fake with this score: |dV_G/df| and |dV_D/df|, both of the shape of `score`.

    "wasserstein": 1 and 1 (the hinge loss too, for scores above -1); "saturating": G minimises log(1 - D), so both
    are sigmoid(f); "non-saturating": G maximises log D, so sigmoid(-f) and sigmoid(f). "r1" is non-saturating,
    "wgan-gp" Wasserstein. Raises ValueError for another name.
    """
    if game not in GAMES:
        raise ValueError(f"unknown game {game!r}; choose one of: {', '.join(GAMES)}")
    if game in ("wasserstein", "wgan-gp"):
        return torch.ones_like(score), torch.ones_like(score)
    return torch.sigmoid(score if game == "saturating" else -score), torch.sigmoid(score)


def _halves(y: Tensor) -> tuple[Tensor, Tensor]:
    require_tensor(y, "y", "a state (..., 2d)", 1, finite=False)
    if y.shape[-1] % 2:
        raise ValueError(f"y must be a state (theta, d) with an even number of entries, got {tuple(y.shape)}")
    return y.chunk(2, dim=-1)


def dirac_field(y: Tensor, game: str, rho: float | Tensor = 0.0) -> Tensor:
    """Velocity of (theta, psi) when each player climbs its own value: data at 0, a fake at theta, f(x) = psi . x.

    y: (..., 2d). rho: strength of the penalty, rho/2 |psi|^2 for "r1", rho/2 (|psi| - 1)^2 for "wgan-gp".
    The fields of Mescheder, Geiger & Nowozin (2018) for d = 1, with psi's sign turned: here real data score high.
    """
    theta, psi = _halves(y)
    push_g, push_d = pushes((theta * psi).sum(-1, keepdim=True), game)
    pull = {"r1": psi, "wgan-gp": psi - F.normalize(psi, dim=-1)}.get(game, torch.zeros_like(psi))
    return torch.cat([push_g * psi, -push_d * theta - rho * pull], dim=-1)


def normalized_field(y: Tensor, game: str, eta_g: float | Tensor = 1.0, eta_d: float | Tensor = 1.0) -> Tensor:
    """The same for a spectrally normalized f(x) = w . x / |w|, with a learning rate for each player. y: (..., 2d)."""
    theta, w = _halves(y)
    size = w.norm(dim=-1, keepdim=True)
    score = (theta * w).sum(-1, keepdim=True) / size
    push_g, push_d = pushes(score, game)
    return torch.cat([eta_g * push_g * w / size, -eta_d * push_d * (theta - score * w / size) / size], dim=-1)


def flow(field: Callable[[Tensor], Tensor], y: Tensor, step: float, n: int) -> Tensor:
    """Follow dy/dt = field(y) for n steps of Runge and Kutta's fourth-order method; the path (n + 1, ...)."""
    path = [y]
    for _ in range(n):
        k1 = field(y)
        k2 = field(y + step / 2 * k1)
        k3 = field(y + step / 2 * k2)
        k4 = field(y + step * k3)
        y = y + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(y)
    return torch.stack(path)


def play(field: Callable[[Tensor], Tensor], y: Tensor, step: float | Tensor, n: int, in_turn: bool = True) -> Tensor:
    """n updates of both players, D first and G against the new D (`in_turn`), or both at once; the path (n + 1, ...)."""
    path = [y]
    for _ in range(n):
        theta, d = _halves(y)
        d = d + step * _halves(field(y))[1]
        seen = torch.cat([theta, d], dim=-1) if in_turn else y
        y = torch.cat([theta + step * _halves(field(seen))[0], d], dim=-1)
        path.append(y)
    return torch.stack(path)


def maxmin(h: Tensor) -> Tensor:
    """Sort neighbouring pairs, larger first (GroupSort 2, Anil, Lucas & Grosse 2019): (..., 2n) -> (..., 2n).

    Its Jacobian is a permutation: 1-Lipschitz, and no gradient is ever lost. Raises ValueError for an odd size.
    """
    if h.shape[-1] % 2:
        raise ValueError(f"maxmin needs an even number of entries, got {h.shape[-1]}")
    pairs = h.unflatten(-1, (-1, 2))
    return torch.stack([pairs.amax(-1), pairs.amin(-1)], dim=-1).flatten(-2)


def orthonormalize(weight: Tensor, rounds: int = 8) -> Tensor:
    """Move all singular values towards 1, from below, by Bjorck's iteration W <- 3/2 W - 1/2 W W^T W.

    weight: (..., m, n), first divided by an upper bound of sigma; then each singular value s in (0, 1] becomes
    3/2 s - 1/2 s^3 in a round, which is at most 1.
    """
    weight = weight / gram_bound(weight.detach(), 3)[..., None, None]
    tall = weight.shape[-2] > weight.shape[-1]
    for _ in range(rounds):
        cube = weight @ (weight.mT @ weight) if tall else (weight @ weight.mT) @ weight
        weight = 1.5 * weight - 0.5 * cube
    return weight


def certified_radius(logits: Tensor, labels: Tensor, K: float) -> Tensor:
    """How far each input may move before a K-Lipschitz classifier can err: margin / (sqrt(2) K), 0 where it errs now.

    logits: (N, classes); labels: (N); K: Lipschitz norm of x -> logits. N radii (Tsuzuku, Sato & Sugiyama 2018).
    """
    require_tensor(logits, "logits", "a batch of scores (N, classes)", 2, 2)
    if not K > 0:
        raise ValueError(f"K must be positive, got {K}")
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return ((own - others) / (2**0.5 * K)).clamp_min(0)


def gram_bound(weight: Tensor, k: int) -> Tensor:
    """An upper bound of sigma(W) after k rounds of W <- W^T W, rescaled so that nothing overflows (Delattre et al. 2023).

    It is (sum of sigma_i^p)^(1/p) with p = 2^(k+1): at least sigma, and at most min(m, n)^(1/p) sigma.
    weight: (..., m, n), not zero; one bound for each matrix.
    """
    require_tensor(weight, "weight", "a matrix (..., m, n)", 2)
    if k < 0:
        raise ValueError(f"k must be 0 or more, got {k}")
    log_scale = 0.0  # the Gram matrix reached so far is exp(log_scale) times `weight`
    for _ in range(k):
        size = torch.linalg.matrix_norm(weight, keepdim=True)
        weight, log_scale = (weight / size).mT @ (weight / size), 2 * (log_scale + size.log())
    bound = ((torch.linalg.matrix_norm(weight, keepdim=True).log() + log_scale) / 2**k).exp()
    return bound[..., 0, 0]


def newton_schulz(matrix: Tensor, rounds: int = 5, coefficients: tuple[float, float, float] = MUON) -> Tensor:
    """Push all singular values towards 1 with products only: X <- c1 X + (c3 X X^T + c5 (X X^T)^2) X, from G / |G|_F.

    matrix: (..., m, n), for example a gradient G. Each singular value s becomes c1 s + c3 s^3 + c5 s^5 in a round.
    """
    c1, c3, c5 = coefficients
    x = matrix / matrix.flatten(-2).norm(dim=-1).clamp_min(1e-12)[..., None, None]
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(rounds):
        gram = x @ x.mT
        x = c1 * x + (c3 * gram + c5 * gram @ gram) @ x
    return x.mT if tall else x
