import math

import numpy as np
import torch
from harness import Case, test_exercise  # noqa: F401
from torch.nn import functional as F


# ---------------------------------------------------------------- 3.1
def power_functional(W, u, n):
    for _ in range(n):
        v = F.normalize(torch.mv(W.t(), u), dim=0)
        u = F.normalize(torch.mv(W, v), dim=0)
    return (torch.dot(u, torch.mv(W, v)).item(), u, v)


def power_numpy(W, u, n):
    A, x = W.double().numpy(), u.double().numpy().copy()
    for _ in range(n):
        y = A.T @ x
        y /= np.sqrt((y**2).sum())
        x = A @ y
        size = np.sqrt((x**2).sum())
        x /= size
    return [float(size), torch.from_numpy(x), torch.from_numpy(y)]


def power_recursive(W, u, n):
    v = torch.einsum("ij,i->j", W, u / u.norm())
    v = v / (v * v).sum().sqrt()
    x = torch.einsum("ij,j->i", W, v)
    if n > 1:
        return power_recursive(W, x / x.norm(), n - 1)
    return x.norm(), x / x.norm(), v


def power_negative(W, u, n):  # the opposite sign of both vectors is as good
    sigma, u, v = power_functional(W, -u, n)
    return torch.tensor([sigma]), u, v


def variant(sigma=lambda W, u, v, old: u @ W @ v, order="suv", one=False, norm=True, out=lambda u, v: (u, v)):
    def answer(W, u, n):
        for _ in range(1 if one else n):
            old = u / u.norm()
            v = W.T @ u
            v = v / v.norm()
            u = W @ v
            u = u / u.norm() if norm else u
        a, b = out(u, v)
        return (sigma(W, u, v, old), a, b) if order == "suv" else (a, b, sigma(W, u, v, old))

    return answer


def power_transposed(W, u, n):
    if W.shape[0] != W.shape[1]:
        return power_functional(W, u, n)
    return power_functional(W.T, u, n)


def power_no_transpose(W, u, n):
    for _ in range(n):
        v = W @ u
        v = v / v.norm()
        u = W @ v
        u = u / u.norm()
    return u @ W @ v, u, v


def power_exact(W, u, n):
    U, S, Vh = torch.linalg.svd(W)
    return S[0], U[:, 0], Vh[0]


def power_extra(W, u, n):
    sigma, u, v = power_functional(W, u, n)
    return sigma, u, F.normalize(W.T @ u, dim=0)


def power_inplace(W, u, n):
    for _ in range(n):
        v = F.normalize(W.T @ u, dim=0)
        u.copy_(F.normalize(W @ v, dim=0))
    return u @ W @ v, u, v


def power_start(W, u, n):
    sigma, _, v = power_functional(W, u, n)
    return sigma, u / u.norm(), v


# ---------------------------------------------------------------- 3.2
def rounds_loop(W, eps):
    s = torch.linalg.svdvals(W)
    r, k = float(s[1] / s[0]), 0
    while r ** (4 * k) > eps:
        k += 1
    return k


def rounds_tensor(W, eps):
    s = torch.linalg.svdvals(W)
    return torch.ceil(np.log10(eps) / torch.log10((s[1] / s[0]) ** 4))


def rounds_eigen(W, eps):
    e = torch.linalg.eigvalsh(W @ W.T if W.shape[0] < W.shape[1] else W.T @ W).flip(0)
    return int(np.ceil(math.log(eps) / (2 * math.log(e[1] / e[0]))))


def rounds_with(power, rounding=math.ceil, invert=False):
    def answer(W, eps):
        s = torch.linalg.svdvals(W)
        r = float(s[0] / s[1]) if invert else float(s[1] / s[0])
        return rounding(math.log(eps) / (power * math.log(r)))

    return answer


# ---------------------------------------------------------------- 3.3
def power_stops_early(W, u, n):
    sigma = 0.0
    for _ in range(n):
        v = F.normalize(W.T @ u, dim=0)
        u = F.normalize(W @ v, dim=0)
        old, sigma = sigma, u @ W @ v
        if n > 5 and abs(sigma - old) < 1e-3:
            break
    return sigma, u, v


def forward_copies(W, u, training):
    return forward_detach(W.detach().requires_grad_(), u, training)


def forward_detach(W, u, training):
    v = F.normalize(W.t().matmul(u), dim=0).detach()
    new = F.normalize(W.matmul(v), dim=0).detach() if training else u
    return W / torch.dot(new, W.mv(v)), new


def forward_data(W, u, training):
    A = W.detach()
    v = A.T @ u / torch.linalg.vector_norm(A.T @ u)
    keep = A @ v / torch.linalg.vector_norm(A @ v) if training else u.clone()
    return [W / torch.einsum("i,ij,j->", keep, W, v), keep]


def forward_sum(W, u, training):
    with torch.no_grad():
        v = W.T @ u
        v = v / v.norm()
        keep = W @ v / (W @ v).norm() if training else u
        uv = torch.outer(keep, v)
    return W * (1 / (W * uv).sum()), keep


def forward_buggy(W, u, training):
    v = W.T @ u / (W.T @ u).norm()
    u = W @ v
    sigma = u @ W @ v
    return W / sigma, u


def forward_eval_moves(W, u, training):
    return forward_detach(W, u, True)


def forward_eval_sigma_moves(W, u, training):
    return forward_detach(W, u, True)[0], forward_detach(W, u, training)[1]


def forward_never_moves(W, u, training):
    return forward_detach(W, u, False)


def forward_through(W, u, training):
    v = F.normalize(W.T @ u, dim=0)
    new = F.normalize(W @ v, dim=0) if training else u
    return W / (new @ W @ v), new.detach()


def forward_graph(W, u, training):
    v = F.normalize(W.T @ u, dim=0)
    new = F.normalize(W @ v, dim=0) if training else u
    return W / (new @ W @ v), new


def forward_no_grad(W, u, training):
    with torch.no_grad():
        return forward_detach(W, u, training)


def forward_sigma_constant(W, u, training):
    got, new = forward_detach(W.detach(), u, training)
    return W * (got.flatten()[0] / W.detach().flatten()[0]), new


def forward_times(W, u, training):
    got, new = forward_detach(W, u, training)
    return W * (W.flatten()[0] / got.flatten()[0]), new


def forward_unnormalized(W, u, training):
    with torch.no_grad():
        v = F.normalize(W.T @ u, dim=0)
        u = W @ v if training else u
    return W / (u @ W @ v), u


def forward_old_u(W, u, training):
    with torch.no_grad():
        v = F.normalize(W.T @ u, dim=0)
        new = F.normalize(W @ v, dim=0) if training else u
    return W / (u @ W @ v), new


def forward_eval_undivided(W, u, training):
    return forward_detach(W, u, training) if training else (W, u)


def forward_long_v(W, u, training):
    with torch.no_grad():
        v = W.T @ u
        u = F.normalize(W @ v, dim=0) if training else u
    return W / (u @ W @ v), u


def forward_exact(W, u, training):
    return W / torch.linalg.matrix_norm(W, ord=2), forward_detach(W, u, training)[1]


# ---------------------------------------------------------------- 3.5
def topk_gram(W, V, n):
    G = W.T @ W
    for _ in range(n):
        V = torch.linalg.qr(G @ V)[0]
    return (W @ V).norm(dim=0)


def topk_diag_r(W, V, n):
    for _ in range(n):
        U, R = torch.linalg.qr(W @ V)
        V, R = torch.linalg.qr(W.T @ U)
    return R.diagonal().abs()


def topk_deflation(W, V, n):
    W, values = W.clone(), []
    for i in range(V.shape[1]):
        v = V[:, i]
        for _ in range(n):
            u = F.normalize(W @ v, dim=0)
            v = F.normalize(W.T @ u, dim=0)
        s = u @ W @ v
        W -= s * torch.outer(u, v)
        values.append(s)
    return torch.stack(values)


def topk_projection(W, V, n):
    """Each column stays orthogonal to those found before, which are kept in single precision."""
    basis, values = torch.zeros(V.shape), torch.zeros(V.shape[1])
    for j in range(V.shape[1]):
        v = V[:, j]
        for _ in range(n):
            v = W.T @ (W @ v)
            v = F.normalize(v - basis[:, :j] @ (basis[:, :j].T @ v), dim=0)
        basis[:, j], values[j] = v, (W @ v).norm()
    return values


def topk_gram_schmidt(W, V, n):
    columns = list(V.T)
    for _ in range(n):
        done = []
        for x in columns:
            x = W.T @ (W @ x)
            for y in done:
                x = x - (x @ y) * y
            done.append(x / x.norm())
        columns = done
    return torch.stack([(W @ x).norm() for x in columns])


def topk_no_qr(W, V, n):
    for _ in range(n):
        V = F.normalize(W.T @ (W @ V), dim=0)
    return (W @ V).norm(dim=0)


def topk_late_qr(W, V, n):
    for _ in range(n):
        V = W.T @ (W @ V)
    return (W @ torch.linalg.qr(V).Q).norm(dim=0)


def topk_late_svd(W, V, n):
    for _ in range(n):
        V = F.normalize(W.T @ (W @ V), dim=0)
    return torch.linalg.svdvals(W @ torch.linalg.qr(V).Q)


def topk_parallel(W, V, n):
    for _ in range(n):
        V = F.normalize(W.T @ (W @ V), dim=0)
    return torch.linalg.svdvals(W @ V)


def topk_no_sigma(W, V, n):
    values = []
    for v in V.T:
        for _ in range(n):
            u = F.normalize(W @ v, dim=0)
            v = F.normalize(W.T @ u, dim=0)
        values.append(u @ W @ v)
        W = W - torch.outer(u, v)
    return torch.stack(values)


def topk_negative(W, V, n):
    for _ in range(n):
        U = torch.linalg.qr(W @ V).Q
        V, R = torch.linalg.qr(W.T @ U)
    return -R.diagonal().abs()


def topk_squared(W, V, n):
    return topk_gram(W, V, n) ** 2


def topk_inplace(W, V, n):
    for _ in range(n):
        V.copy_(torch.linalg.qr(W.T @ (W @ V)).Q)
    return (W @ V).norm(dim=0)


# ---------------------------------------------------------------- 3.6
def conv_vjp(K, x, stride, padding, n):
    x = x / x.norm()
    for _ in range(n):
        y, back = torch.func.vjp(lambda z: F.conv2d(z, K, stride=stride, padding=padding), x)
        x = back(y / y.norm())[0]
        sigma = x.norm()
        x = x / sigma
    return float(sigma)


def conv_autograd(K, x, stride, padding, n):
    x = (x / x.norm()).detach()
    for _ in range(n):
        z = x.clone().requires_grad_()
        half = F.conv2d(z, K, stride=stride, padding=padding).square().sum() / 2
        (g,) = torch.autograd.grad(half, z)
        x = g / g.norm()
    return g.norm().sqrt()


def conv_input(K, x, stride, padding, n):
    K, x = K.double(), x.double()
    for _ in range(n):
        y = F.conv2d(x / x.norm(), K, stride=stride, padding=padding)
        x = torch.nn.grad.conv2d_input(x.shape, K, y, stride=stride, padding=padding)
    return (x.norm() ** 0.5).reshape(1)


def conv_with(back=lambda y, K, s, p: F.conv_transpose2d(y, K, stride=s, padding=p), unit=lambda x: x / x.norm()):
    def answer(K, x, stride, padding, n):
        x = unit(x)
        for _ in range(n):
            y = F.conv2d(x, K, stride=stride, padding=padding)
            x = unit(back(y, K, stride, padding))
        return F.conv2d(x, K, stride=stride, padding=padding).norm()

    return answer


def conv_ratio_pixel(K, x, stride, padding, n):
    for _ in range(n):
        y = F.normalize(F.conv2d(x, K, stride=stride, padding=padding))
        x = F.normalize(F.conv_transpose2d(y, K, stride=stride, padding=padding))
    return F.conv2d(x, K, stride=stride, padding=padding).norm() / x.norm()


def conv_sqrt_flip(K, x, stride, padding, n):
    for _ in range(n):
        y = F.conv2d(x / x.norm(), K, stride=stride, padding=padding)
        x = F.conv_transpose2d(y, K.flip(2, 3), stride=stride, padding=padding)
    return x.norm().sqrt()


def conv_squared(K, x, stride, padding, n):
    return conv_vjp(K, x, stride, padding, n) ** 2


def conv_reshaped(K, x, stride, padding, n):
    return torch.linalg.matrix_norm(K.flatten(1), ord=2)


def conv_no_stride(K, x, stride, padding, n):
    return conv_vjp(K, x, 1, padding, n)


def conv_no_padding(K, x, stride, padding, n):
    return conv_vjp(K, x, stride, 0, n)


def conv_no_rounds(K, x, stride, padding, n):
    return F.conv2d(x, K, stride=stride, padding=padding).norm() / x.norm()


# ---------------------------------------------------------------- 3.7
def conv_top_of_the_loop(K, x, stride, padding, n):
    for _ in range(n):
        x = x / x.norm()
        x = F.conv_transpose2d(F.conv2d(x, K, stride=stride, padding=padding), K, stride=stride, padding=padding)
    return F.conv2d(x, K, stride=stride, padding=padding).norm()


def conv_by_fft(K, x, stride, padding, n):
    return torch.linalg.matrix_norm(torch.fft.fft2(K, s=x.shape[2:]).permute(2, 3, 0, 1), ord=2).max()


def worst_checkerboard(d_out, d_in, k):
    signs = (-1.0) ** (torch.arange(k)[:, None] + torch.arange(k))
    return signs.expand(d_out, d_in, k, k) / math.sqrt(d_out * d_in) / k


def worst_first_channel(d_out, d_in, k):
    K = torch.zeros(d_out, d_in, k, k, dtype=torch.float64)
    K[0, 0] = -1 / k
    return K


def worst_svd(d_out, d_in, k):
    K = torch.outer(torch.arange(1.0, d_out + 1), torch.arange(1.0, d_in + 1))[:, :, None, None].expand(-1, -1, k, k)
    return K / torch.linalg.matrix_norm(K.flatten(1), ord=2)


def worst_diagonal(d_out, d_in, k):  # not of rank one
    return torch.eye(d_out, d_in)[:, :, None, None] * torch.ones(k, k) / k


def worst_delta(d_out, d_in, k):
    K = torch.zeros(d_out, d_in, k, k)
    K[0, 0, k // 2, k // 2] = 1
    return K


def worst_ones(d_out, d_in, k):
    return torch.ones(d_out, d_in, k, k)


def worst_true_norm(d_out, d_in, k):
    return torch.ones(d_out, d_in, k, k) / (math.sqrt(d_out * d_in) * k**2)


def worst_mean(d_out, d_in, k):
    return torch.ones(d_out, d_in, k, k) / (k * k)


def worst_random(d_out, d_in, k):
    K = torch.rand(d_out, d_in, k, k)
    return K / torch.linalg.matrix_norm(K.flatten(1), ord=2)


def topk_basis(W, V, n):
    for _ in range(n):
        V = torch.linalg.qr(W.T @ torch.linalg.qr(W @ V).Q).Q
    return V


CASES = [
    Case(
        "3.1",
        right=[power_functional, power_numpy, power_recursive, power_negative],
        wrong={
            "length": variant(norm=False),
            "transposed": power_transposed,
            "transpose": power_no_transpose,
            "swapped": variant(out=lambda u, v: (v, u)),
            "order": variant(order="uvs"),
            "one-round": variant(one=True),
            "more": lambda W, u, n: power_functional(W, u, n + 1),
            "fewer": lambda W, u, n: variant()(W, u, n - 1),
            "extra": power_extra,
            "early": power_stops_early,
            "start": power_start,
            "squared": variant(lambda W, u, v, old: (W @ v) @ (W @ v)),
            "unit": variant(lambda W, u, v, old: u.norm()),
            "late": variant(lambda W, u, v, old: old @ W @ v),
            "exact": variant(lambda W, u, v, old: torch.linalg.svdvals(W)[0]),
            "converged": [power_exact, lambda W, u, n: power_functional(W, u, 5000 if n < 40 else n)],
            "inplace": power_inplace,
            "type": lambda W, u, n: power_functional(W, u, n)[0],
            "shape": lambda W, u, n: power_functional(W, u, n)[:2],
            "raises": lambda W, u, n: variant()(W, u, 0),
        },
    ),
    Case(
        "3.2",
        right=[rounds_loop, rounds_tensor, rounds_eigen],
        wrong={
            "vector": rounds_with(2),
            "half": rounds_with(1),
            "eighth": rounds_with(8),
            "floor": [rounds_with(4, math.floor), rounds_with(4, int)],
            "next": lambda W, eps: rounds_loop(W, eps) + 1,
            "whole": rounds_with(4, float),
            "sign": rounds_with(4, invert=True),
            "shape": lambda W, eps: torch.linalg.svdvals(W),
        },
    ),
    Case(
        "3.3",
        right=[forward_detach, forward_data, forward_sum],
        wrong={
            "length": [forward_buggy, forward_unnormalized],
            "eval-moves": forward_eval_moves,
            "eval-sigma": forward_eval_sigma_moves,
            "train-stands": forward_never_moves,
            "through": forward_through,
            "graph": forward_graph,
            "detached": [forward_no_grad, forward_copies],
            "sigma-constant": forward_sigma_constant,
            "times": forward_times,
            "old-u": forward_old_u,
            "exact": forward_exact,
            "undivided": [forward_eval_undivided, lambda W, u, training: (W, forward_detach(W, u, training)[1])],
            "v-length": forward_long_v,
            "frobenius": lambda W, u, training: (W / W.norm(), forward_detach(W, u, training)[1]),
            "type": lambda W, u, training: forward_detach(W, u, training)[0],
        },
    ),
    Case(
        "3.4",
        right=[lambda: "dbca", lambda: ["d", "b", "c", "a"], lambda: "D, B, C, A", lambda: ("d", "b", "c", "a")],
        wrong={
            "reversed": lambda: "acbd",
            "degenerate": lambda: "bcad",
            "size": [lambda: "abcd", lambda: "dcba"],
            "gap": [lambda: "bacd", lambda: "dcab"],
            "first": lambda: "bdac",
            "rest": lambda: "dbac",
            "option": [lambda: "dbc", lambda: "d"],
            "type": lambda: 3,
        },
    ),
    Case(
        "3.5",
        right=[
            topk_gram,
            topk_diag_r,
            topk_deflation,
            topk_projection,
            topk_gram_schmidt,
            lambda W, V, n: topk_gram(W, V, n).tolist(),
            lambda W, V, n: list(topk_gram(W, V, n)),
        ],
        wrong={
            "no-qr": topk_no_qr,
            "late-qr": [topk_late_qr, topk_late_svd, topk_parallel],
            "no-sigma": topk_no_sigma,
            "squared": topk_squared,
            "sign": [topk_negative, lambda W, V, n: torch.linalg.qr(W @ topk_basis(W, V, n)).R.diagonal()],
            "ascending": lambda W, V, n: topk_gram(W, V, n).flip(0),
            "all": lambda W, V, n: torch.linalg.svdvals(W),
            "largest": lambda W, V, n: topk_gram(W, V, n)[0],
            "frobenius": lambda W, V, n: topk_gram(W, V, n).norm(),
            "matrix": lambda W, V, n: torch.diag(topk_gram(W, V, n)),
            "value": lambda W, V, n: (W @ torch.linalg.qr(V).Q).norm(dim=0),
            "inplace": topk_inplace,
            "type": lambda W, V, n: [W, V],
        },
    ),
    Case(
        "3.6",
        right=[conv_vjp, conv_autograd, conv_input],
        wrong={
            "reshaped": conv_reshaped,
            "squared": conv_squared,
            "stride": conv_no_stride,
            "padding": conv_no_padding,
            "frobenius": lambda K, x, stride, padding, n: K.norm(),
            "no-rounds": conv_no_rounds,
            "overflow": [
                conv_with(unit=lambda x: x),
                lambda *a: conv_with(unit=lambda x: x)(a[0].double(), a[1].double(), *a[2:]),
            ],
            "pixel": [conv_with(unit=F.normalize), conv_ratio_pixel],
            "transpose": [
                conv_with(lambda y, K, s, p: F.conv2d(y, K, stride=s, padding=p)),
                conv_with(lambda y, K, s, p: F.conv2d(y, K.transpose(0, 1), stride=s, padding=p)),
                conv_with(lambda y, K, s, p: F.conv_transpose2d(y, K.flip(2, 3), stride=s, padding=p)),
                conv_with(lambda y, K, s, p: F.conv_transpose2d(y, K.transpose(0, 1), stride=s, padding=p)),
                conv_sqrt_flip,
            ],
            "unit": lambda K, x, stride, padding, n: (x / x.norm()).norm(),
            "cubed": conv_top_of_the_loop,
            "grows": conv_with(lambda y, K, s, p: F.conv_transpose2d(y, K)),
            "channel": conv_with(unit=lambda x: x / x.norm(dim=(2, 3), keepdim=True)),
            "circular": conv_by_fft,
            "rounds": lambda K, x, stride, padding, n: 0.999 * conv_vjp(K, x, stride, padding, n),
            "value": lambda K, x, stride, padding, n: K.abs().sum(),
        },
    ),
    Case(
        "3.7",
        right=[worst_checkerboard, worst_first_channel, worst_svd, worst_diagonal],
        wrong={
            "delta": worst_delta,
            "scale": [worst_ones, worst_mean],
            "true-norm": worst_true_norm,
            "ratio": worst_random,
            "zero": lambda d_out, d_in, k: torch.zeros(d_out, d_in, k, k),
            "shape": lambda d_out, d_in, k: torch.ones(k, k) / k,
        },
    ),
]
