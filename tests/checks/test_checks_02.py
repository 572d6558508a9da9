"""Right and wrong answers to the exercises of lecture 02."""

import torch
from harness import Case, test_exercise  # noqa: F401
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from course_utils.checks import core


def svd1(W):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return S[0], U[:, 0], Vh[0]


def uv(W):
    _, u, v = svd1(W)
    return torch.outer(u, v)


# 2.1 -----------------------------------------------------------------------------------------------------------------
def svd_columns(W):
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return U, Vh.T


def gradient_by_eigenvectors(W):
    v = torch.linalg.eigh(W.T @ W).eigenvectors[:, -1]
    return torch.einsum("i,j->ij", W @ v / (W @ v).norm(), v)


def gradient_in_double_other_sign(W):
    _, u, v = svd1(W.double())
    return (-u)[:, None] * (-v)[None, :]


def gradient_by_loops(W):
    U, _, Vh = torch.linalg.svd(W)
    return torch.tensor([[float(U[i, 0] * Vh[0, j]) for j in range(W.shape[1])] for i in range(W.shape[0])])


def gradient_columns(W):
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return torch.outer(U[:, 0], Vh[:, 0])


def gradient_rows(W):
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return torch.outer(U[0], Vh[0])


def gradient_all(W):
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return U @ Vh


def gradient_smallest(W):
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    return torch.outer(U[:, -1], Vh[-1])


# 2.2 -----------------------------------------------------------------------------------------------------------------
def direction_by_jvp(W, H):
    return torch.func.jvp(lambda A: A / torch.linalg.matrix_norm(A, 2), (W,), (H,))[1]


def direction_by_quotient_rule(W, H):
    s, u, v = svd1(W.double())
    slope = torch.einsum("i,ij,j->", u, H.double(), v).item()
    return H.double() / s - W.double() * slope / s**2


def direction_by_sum(W, H):
    s, u, v = svd1(W)
    result = torch.zeros_like(W)
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            unit = torch.zeros_like(W)
            unit[i, j] = 1
            result += H[i, j] * (unit - u[i] * v[j] * W / s) / s
    return result


def direction(change):
    """A wrong answer built from s, u v^T, W_SN and c = u^T H v."""

    def answer(W, H):
        s, u, v = svd1(W)
        return change(W, H, s, torch.outer(u, v), W / s, u @ H @ v)

    return answer


def orthogonal_to_normalized(W, H, s, uv, N, c):
    return (H - (H * N).sum() * N) / s


# 2.3 -----------------------------------------------------------------------------------------------------------------
def direction_by_columns(W, H):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return (H - (U[:, 0] @ H @ Vh[:, 0]) * W / S[0]) / S[0]


def gradient_with_columns(W, delta, h):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    E = delta.T @ h / len(h)
    return (E - (E * W).sum() / S[0] * torch.outer(U[:, 0], Vh[:, 0])) / S[0]


def gradient_over_features(W, delta, h):
    s, u, v = svd1(W)
    E = delta.T @ h / h.shape[1]
    return (E - (E * W).sum() / s * torch.outer(u, v)) / s


def vanish_with_column(W):
    U, S, Vh = torch.linalg.svd(W)
    return torch.stack([U[:, 0]] * 2), torch.stack([Vh[:, 0] + Vh[1], Vh[:, 0] - Vh[1]])


def vanish_with_row(W):
    U, S, Vh = torch.linalg.svd(W)
    return torch.stack([U[0]] * 2), torch.stack([Vh[0] + Vh[1], Vh[0] - Vh[1]])


def gradient_by_autograd(W, delta, h):
    leaf = W.clone().requires_grad_()
    y = h @ (leaf / torch.linalg.matrix_norm(leaf, 2)).T
    return torch.autograd.grad((delta * y).sum() / len(h), leaf)[0]


def gradient_by_einsum(W, delta, h):
    s, u, v = svd1(W.double())
    lam = torch.einsum("ni,ij,nj->n", delta.double(), W.double() / s, h.double()).mean()
    return (torch.einsum("ni,nj->ij", delta, h) / len(delta) - lam * torch.outer(u, v)) / s


def gradient_example_by_example(W, delta, h):
    s, u, v = svd1(W)
    total, lam = torch.zeros_like(W), 0.0
    for d, x in zip(delta, h):
        total = total + torch.outer(d, x) / len(h)
        lam += float(d @ (W @ x)) / float(s) / len(h)
    return (total - lam * torch.outer(u, v)) / s


def gradient(change):
    """A wrong answer built from E, lambda, u v^T, s, N (W_SN) and n."""

    def answer(W, delta, h):
        s, u, v = svd1(W)
        E = delta.T @ h / len(h)
        return change(E, (E * W).sum() / s, torch.outer(u, v), s, W / s, len(h))

    return answer


def lambda_of_entries(W, delta, h):
    s, u, v = svd1(W)
    return (delta.T @ h / len(h) - (delta * (h @ W.T / s)).mean() * torch.outer(u, v)) / s


def product_of_means(W, delta, h):
    s, u, v = svd1(W)
    E = torch.outer(delta.mean(0), h.mean(0))
    return (E - (E * W).sum() / s * torch.outer(u, v)) / s


def product_of_means_but_lambda(W, delta, h):
    s, u, v = svd1(W)
    lam = (delta * (h @ W.T / s)).sum(1).mean()
    return (torch.outer(delta.mean(0), h.mean(0)) - lam * torch.outer(u, v)) / s


def transposed_e(W, delta, h):
    s, u, v = svd1(W)
    E = h.T @ delta / len(h)
    return (E - (E * W).sum() / s * torch.outer(u, v)) / s


# 2.4 -----------------------------------------------------------------------------------------------------------------
def vanish_with_weights(W):
    _, u, v = svd1(W)
    other = torch.linalg.svd(W).Vh[1]
    return torch.stack([2 * u, u, u]), torch.stack([v, v + 3 * other, v - 3 * other])


def vanish_large_batch(W):
    """Random inputs; delta solved from h so that the mean of delta h^T is -5 u v^T."""
    _, u, v = svd1(W.double())
    h = torch.randn(40, W.shape[1], dtype=torch.float64)
    coefficients = torch.linalg.pinv(h.T) @ v * 40  # h^T c / 40 = v
    return -5 * coefficients[:, None] * u, h


def vanish_any_other_vector(W):
    """The reduced SVD, and a second input that is merely no multiple of v_1."""
    _, u, v = svd1(W)
    other = torch.zeros_like(v)
    other[v.abs().argmin()] = 1
    return torch.stack([u, u]), torch.stack([v + other, v - other])


def vanish_as_list(W):
    _, u, v = svd1(W)
    h = torch.stack([-v, torch.linalg.svd(W).Vh[-1]])
    return [torch.stack([-u, torch.zeros_like(u)]), h]


def vanish_swapped(W):
    _, u, v = svd1(W)
    other = torch.linalg.svd(W).U[:, -1] if len(W) > 1 else u
    return torch.stack([v, v]), torch.stack([u + other, u - other])


def vanish_order(W):
    return vanish_with_weights(W)[::-1]


def vanish_zero(W):
    _, u, v = svd1(W)
    other = torch.linalg.svd(W).Vh[1]
    return torch.stack([u, -u, u, -u]), torch.stack([v, v, other, other])


def vanish_along_weight(W):
    return W.T.clone(), torch.eye(W.shape[1], dtype=W.dtype)


def vanish_second(W):
    U, _, Vh = torch.linalg.svd(W)
    return torch.stack([U[:, 1], U[:, 1]]), torch.stack([Vh[1] + Vh[0], Vh[1] - Vh[0]])


def vanish_biased(W):
    U, _, Vh = torch.linalg.svd(W)
    return torch.stack([U[:, 0], U[:, 0]]), torch.stack([Vh[0] + Vh[1], Vh[0]])


# 2.6 -----------------------------------------------------------------------------------------------------------------
class Layer(nn.Module):
    """Right; the wrong ones below change one piece of it."""

    def __init__(self, weight):
        super().__init__()
        self.make_buffers(weight.detach())

    def make_buffers(self, weight):
        self.register_buffer("_u", F.normalize(weight.new_ones(weight.shape[0]), dim=0))
        self.register_buffer("_v", F.normalize(weight.T @ self._u, dim=0))

    def new_vectors(self, weight):
        v = F.normalize(weight.T @ self._u, dim=0)
        return F.normalize(weight @ v, dim=0), v

    def move(self, weight):
        with torch.no_grad():
            u, v = self.new_vectors(weight)
            self._u.copy_(u)
            self._v.copy_(v)

    def forward(self, weight):
        if self.training:
            self.move(weight)
        u, v = self._u.clone(), self._v.clone()
        return weight / (u @ weight @ v)


class TorchOrder(nn.Module):
    """From v, as torch does, new tensors instead of copies, a warm start."""

    def __init__(self, weight):
        super().__init__()
        v = torch.randn(weight.shape[1], dtype=weight.dtype)
        self.register_buffer("_v", v / v.norm())
        self.register_buffer("_u", torch.zeros_like(weight[:, 0].detach()))
        for _ in range(5):
            self.step(weight)

    @torch.no_grad()
    def step(self, weight):
        u = torch.mv(weight, self._v)
        self._u = u / u.norm()
        v = torch.mv(weight.t(), self._u)
        self._v = v / v.norm()

    def forward(self, weight):
        if self.training:
            self.step(weight.detach())
        return weight / torch.einsum("i,ij,j", self._u, weight, self._v)


class ByHand(nn.Module):
    """Double sum for sigma, buffers written through .data."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("_u", torch.zeros(weight.shape[0], dtype=weight.dtype))
        self.register_buffer("_v", torch.zeros(weight.shape[1], dtype=weight.dtype))
        self._u[0] = 1
        self._v[0] = 1

    def forward(self, weight):
        if self.training:
            v = (weight.detach() * self._u[:, None]).sum(0)
            self._v.data = v / v.norm()
            u = (weight.detach() * self._v).sum(1)
            self._u.data = u / u.norm()
        sigma = (torch.outer(self._u, self._v) * weight).sum()
        return weight / sigma


class AsParameters(Layer):
    def make_buffers(self, weight):
        self._u = nn.Parameter(F.normalize(weight.new_ones(weight.shape[0]), dim=0))
        self._v = nn.Parameter(F.normalize(weight.new_ones(weight.shape[1]), dim=0))


class AsAttributes(Layer):
    def make_buffers(self, weight):
        self._u = F.normalize(weight.new_ones(weight.shape[0]), dim=0)
        self._v = F.normalize(weight.new_ones(weight.shape[1]), dim=0)


class SwappedBuffers(Layer):
    def make_buffers(self, weight):
        self.register_buffer("_u", F.normalize(weight.new_ones(weight.shape[1]), dim=0))
        self.register_buffer("_v", F.normalize(weight.new_ones(weight.shape[0]), dim=0))

    def new_vectors(self, weight):
        v = F.normalize(weight @ self._u, dim=0)
        return F.normalize(weight.T @ v, dim=0), v

    def forward(self, weight):
        if self.training:
            self.move(weight)
        return weight / (self._v.clone() @ weight @ self._u.clone())


class NotUnit(Layer):
    def make_buffers(self, weight):
        self.register_buffer("_u", weight.new_ones(weight.shape[0]))
        self.register_buffer("_v", weight.new_ones(weight.shape[1]))


class OtherDtype(Layer):
    def make_buffers(self, weight):
        super().make_buffers(weight)
        other = torch.float64 if weight.dtype == torch.float32 else torch.float32
        self._u, self._v = self._u.to(other), self._v.to(other)


class MovesAlways(Layer):
    def forward(self, weight):
        self.move(weight)
        return weight / (self._u.clone() @ weight @ self._v.clone())


class NeverMoves(Layer):
    def move(self, weight):
        self.new_vectors(weight)


class MovesOne(Layer):
    def move(self, weight):
        with torch.no_grad():
            self._u.copy_(self.new_vectors(weight)[0])


class ThreeRounds(Layer):
    def forward(self, weight):
        if self.training:
            for _ in range(2):
                self.move(weight)
        return super().forward(weight)


class Transposed(Layer):
    def new_vectors(self, weight):
        v = F.normalize(weight @ self._u, dim=0)
        return F.normalize(weight.T @ v, dim=0), v


class Simultaneous(Layer):
    def new_vectors(self, weight):
        return F.normalize(weight @ self._v, dim=0), F.normalize(weight.T @ self._u, dim=0)


class NoUnitRound(Layer):
    def new_vectors(self, weight):
        v = weight.T @ self._u
        return weight @ v, v


class Restarts(Layer):
    def new_vectors(self, weight):
        v = F.normalize(weight.T @ torch.ones_like(self._u), dim=0)
        return F.normalize(weight @ v, dim=0), v


class WithoutClone(Layer):
    def forward(self, weight):
        if self.training:
            self.move(weight)
        return weight / (self._u @ weight @ self._v)


class Detached(Layer):
    def forward(self, weight):
        if self.training:
            self.move(weight)
        return weight / (self._u @ weight @ self._v).detach()


class AllWithoutGrad(Layer):
    @torch.no_grad()
    def forward(self, weight):
        return super().forward(weight)


class ThroughVectors(Layer):
    def forward(self, weight):
        if not self.training:
            return super().forward(weight)
        u, v = self.new_vectors(weight)
        self._u, self._v = u.detach(), v.detach()
        return weight / (u @ weight @ v)


class GraphInBuffers(Layer):
    def move(self, weight):
        self._u, self._v = self.new_vectors(weight)


class ReturnsSigma(Layer):
    def forward(self, weight):
        super().forward(weight)
        return self._u.clone() @ weight @ self._v.clone()


class Multiplies(Layer):
    def forward(self, weight):
        super().forward(weight)
        return weight * (self._u.clone() @ weight @ self._v.clone())


class Exact(Layer):
    def forward(self, weight):
        super().forward(weight)
        return weight / torch.linalg.matrix_norm(weight, 2)


class Stale(Layer):
    def forward(self, weight):
        value = weight / (self._u.clone() @ weight @ self._v.clone())
        if self.training:
            self.move(weight)
        return value


class OnlyInTraining(Layer):
    def forward(self, weight):
        return super().forward(weight) if self.training else weight.clone()


class DetachedInEval(Layer):
    def forward(self, weight):
        value = super().forward(weight)
        u, v = self._u.clone(), self._v.clone()
        return value if self.training else weight / (u @ weight @ v).detach()


class KeepsItsWeight(Layer):
    def __init__(self, weight):
        super().__init__(weight)
        self.kept = weight

    def forward(self, weight):
        return super().forward(self.kept)


class CachesResult(Layer):
    cached = None

    def forward(self, weight):
        if self.training or self.cached is None:
            self.cached = super().forward(weight)
        return self.cached


class CachesSigma(Layer):
    cached = None

    def forward(self, weight):
        if self.training or self.cached is None:
            self.cached = weight.norm() / super().forward(weight).norm()
        return weight / self.cached


class AtMost(Layer):
    """Divides only by a sigma above 1."""

    def forward(self, weight):
        super().forward(weight)
        return weight / (self._u.clone() @ weight @ self._v.clone()).clamp(min=1)


class Absolute(Layer):
    def forward(self, weight):
        super().forward(weight)
        return weight / (self._u.clone() @ weight @ self._v.clone()).abs()


class Bilinear(Layer):
    """Right: sigma by torch's bilinear form."""

    def forward(self, weight):
        super().forward(weight)
        u, v = self._u[None].clone(), self._v[None].clone()
        return weight.div(F.bilinear(u, v, weight[None]).squeeze())


class InPlace(Layer):
    def forward(self, weight):
        value = super().forward(weight)
        weight.data.copy_(value.detach())
        return value


class NotAModule:
    def __init__(self, weight):
        self._u = weight[:, 0]


class WithoutForward(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("_u", F.normalize(weight.detach()[:, 0], dim=0))
        self.register_buffer("_v", F.normalize(weight.detach()[0], dim=0))


# 2.7 -----------------------------------------------------------------------------------------------------------------
def update_with_module(W, u):
    from course_utils.spectral import power_iteration_step

    u, v = power_iteration_step(W, u)
    return [W / (u @ (W @ v)), u, v]


def update_by_norm(W, u):
    W, u = W.double(), u.double()
    v = F.normalize(u @ W, dim=0)
    return W / (W @ v).norm(), F.normalize((W * v).sum(1), dim=0), v


def update_thrice(W, u):
    for _ in range(3):
        W_sn, u, v = update_by_norm(W, u)
    return W_sn, u, v


def update_original(W, u):
    v = W @ u / (W @ u).norm()
    u = W.T @ v / (W.T @ v).norm()
    return u @ W @ v, u, v


def update_original_divided(W, u):
    _, u, v = update_original(W, u)
    return W / (u @ W @ v), u, v


def update(change):
    def answer(W, u0):
        v = F.normalize(W.T @ u0, dim=0)
        u = F.normalize(W @ v, dim=0)
        return change(W, u0, u, v, u @ W @ v)

    return answer


# 2.9 -----------------------------------------------------------------------------------------------------------------
def restarted(fill, rounds=15, train=True, back=True):
    """An answer that fills the stored weight by ``fill(layer, init)``, then lets u and v catch up."""

    def restart(layer, init):
        before = layer.training
        fill(layer, init)
        if train:
            layer.train()
        for _ in range(rounds):
            layer.weight  # noqa: B018
        return layer.train(before) if back else layer

    return restart


def fill_stored(layer, init):
    init(layer.parametrizations.weight.original)


def fill_assigned(layer, init):
    layer.weight = init(torch.empty_like(layer.weight))  # right_inverse stores it


def fill_data(layer, init):
    layer.parametrizations.weight.original.data.copy_(init(torch.zeros(layer.weight.shape)))


def fill_in_use(layer, init):
    init(layer.weight)


def fill_new_parameter(layer, init):
    new = nn.Parameter(init(torch.empty_like(layer.parametrizations.weight.original)))
    layer.parametrizations.weight.original = new


def restart_by_forward_passes(layer, init):
    before = layer.training
    init(layer.parametrizations.weight.original)
    layer.train(True)
    x = torch.zeros(1, layer.weight.shape[1], *[5] * (layer.weight.dim() - 2))
    for _ in range(20):
        layer(x)
    layer.train(before)
    return layer


def restart_half_in_training(layer, init):
    layer = restarted(fill_stored)(layer, init)
    before, layer.training = layer.training, True
    layer.training = before
    layer.parametrizations.train(not before)
    return layer


def restart_overwritten(layer, init):
    init(layer.parametrizations.weight.original)
    layer.weight = layer.weight.detach() / 2
    return layer


def restart_bare(layer, init):
    parametrize.remove_parametrizations(layer, "weight")
    init(layer.weight)
    return layer


def restart_twice(layer, init):
    fill_stored(layer, init)
    return parametrizations.spectral_norm(layer)


# 2.10 ----------------------------------------------------------------------------------------------------------------
def rest_from_all_down_tensor(a, rho):
    for m in range(len(a), 0, -1):  # from the most tied values to the fewest
        s = float(a[:m].sum()) / (m + rho)
        if s <= a[m - 1]:
            return torch.tensor([min(float(x), s) for x in a])


def rest_by_largest_ceiling(a, rho):
    sums = a.cumsum(0) / (torch.arange(1, len(a) + 1) + rho)
    return torch.minimum(a, sums.max()).numpy()


def rest_first(a, rho):
    a = a.clone()
    a[0] = a[0] / (1 + rho)
    return a


def rest_ceiling(a, rho, times=1.0):
    return max(float(a[:m].sum()) / (m + times * rho) for m in range(1, len(a) + 1))


class Division(torch.autograd.Function):
    """Right; the wrong ones below have another backward pass."""

    @staticmethod
    def forward(ctx, W, u, v):
        sigma = u @ W @ v
        ctx.save_for_backward(W / sigma, sigma, u, v)
        return W / sigma

    @staticmethod
    def backward(ctx, pull):
        W_SN, sigma, u, v = ctx.saved_tensors
        return torch.addr(pull, -(pull * W_SN).sum() * u, v) / sigma, None, None


def backward(change):
    """`Division` with a backward pass that returns change(pull, W_SN, sigma, u, v, lambda)."""

    class Changed(Division):
        @staticmethod
        def backward(ctx, pull):
            W_SN, sigma, u, v = ctx.saved_tensors
            result = change(pull, W_SN, sigma, u, v, (pull * W_SN).sum())
            return result if isinstance(result, tuple) else (result, None, None)

    return Changed


class SavesTheWeight(torch.autograd.Function):
    """Right: W itself is saved, and differentiated by autograd once more."""

    @staticmethod
    def forward(ctx, W, u, v):
        ctx.save_for_backward(W, u, v)
        return W / torch.einsum("i,ij,j", u, W, v)

    @staticmethod
    def backward(ctx, pull):
        W, u, v = ctx.saved_tensors
        with torch.enable_grad():
            leaf = W.detach().requires_grad_()
            return torch.autograd.grad(leaf / (u @ leaf @ v), leaf, pull)[0], None, None


class OtherForward(Division):
    @staticmethod
    def forward(ctx, W, u, v):
        return Division.forward(ctx, W, u, v) * (u @ W @ v)


def uv_exact(W):
    _, u, v = svd1(W)
    return torch.outer(u, v)


CASES = [
    Case(
        "2.1",
        right=[gradient_by_eigenvectors, gradient_in_double_other_sign, gradient_by_loops, lambda W: uv(W).numpy()],
        wrong={
            "transposed": lambda W: uv(W).T,
            "scaled": lambda W: svd1(W)[0] * uv(W),
            "sign": lambda W: -uv(W),
            "all": gradient_all,
            "smallest": gradient_smallest,
            "normalized": lambda W: W / svd1(W)[0],
            "column": [gradient_columns, gradient_rows],
            "frobenius": lambda W: W / W.norm(),
            "absolute": [lambda W: uv(W).abs(), lambda W: torch.outer(svd1(W)[1].abs(), svd1(W)[2].abs())],
            "second": lambda W: torch.outer(*[x[:, min(1, x.shape[1] - 1)] for x in svd_columns(W)]),
            "one": lambda W: svd1(W)[0],
            "shape": lambda W: svd1(W)[1],
            "value": torch.zeros_like,
            "none": lambda W: None,
        },
    ),
    Case(
        "2.2",
        right=[direction_by_jvp, direction_by_quotient_rule, direction_by_sum],
        wrong={
            "ignored": direction(lambda W, H, s, uv, N, c: H / s),
            "raw": direction(lambda W, H, s, uv, N, c: (H - c * W) / s),
            "undivided": direction(lambda W, H, s, uv, N, c: H - c * N),
            "squared": direction(lambda W, H, s, uv, N, c: (H - c * N) / s**2),
            "sign": direction(lambda W, H, s, uv, N, c: (H + c * N) / s),
            "adjoint": direction(lambda W, H, s, uv, N, c: (H - (H * N).sum() * uv) / s),
            "rank-one": direction(lambda W, H, s, uv, N, c: (H - c * uv) / s),
            "projection": direction(lambda W, H, s, uv, N, c: (H - (H * W).sum() / W.square().sum() * W) / s),
            "orthogonal": direction(orthogonal_to_normalized),
            "gradient-only": direction(lambda W, H, s, uv, N, c: c),
            "second-term": direction(lambda W, H, s, uv, N, c: -c * N / s),
            "entrywise": direction(lambda W, H, s, uv, N, c: (H - uv * H * N) / s),
            "matrix-product": [
                direction(lambda W, H, s, uv, N, c: (H - (uv @ H if W.shape[0] == W.shape[1] else uv.T @ H) * N) / s),
                direction(lambda W, H, s, uv, N, c: (H - uv.T @ H @ N) / s),
                direction(lambda W, H, s, uv, N, c: (H - N @ (uv.T @ H)) / s),
            ],
            "whole-step": lambda W, H: (W + H) / svd1(W + H)[0],
            "column": direction_by_columns,
            "swapped": lambda W, H: (H - (svd1(W)[2] @ H @ svd1(W)[1]) * W / svd1(W)[0]) / svd1(W)[0],
            "entrywise+undivided": direction(lambda W, H, s, uv, N, c: H - uv * H * N),
            "raw+sign": direction(lambda W, H, s, uv, N, c: (H + c * W) / s),
            "unchanged": lambda W, H: H,
            "value": [lambda W, H: W, direction(lambda W, H, s, uv, N, c: s * H + c)],
            "inplace": lambda W, H: H.sub_(1),
        },
    ),
    Case(
        "2.3",
        right=[gradient_by_autograd, gradient_by_einsum, gradient_example_by_example],
        wrong={
            "sum": gradient(lambda E, lam, uv, s, N, n: n * (E - lam * uv) / s),
            "mean-twice": gradient(lambda E, lam, uv, s, N, n: (E - lam * uv) / s / n),
            "lambda-sum": gradient(lambda E, lam, uv, s, N, n: (E - n * lam * uv) / s),
            "lambda-entries": lambda_of_entries,
            "lambda-raw": gradient(lambda E, lam, uv, s, N, n: (E - s * lam * uv) / s),
            "plain": gradient(lambda E, lam, uv, s, N, n: E / s),
            "undivided": gradient(lambda E, lam, uv, s, N, n: E - lam * uv),
            "nothing": gradient(lambda E, lam, uv, s, N, n: E),
            "sign": gradient(lambda E, lam, uv, s, N, n: (E + lam * uv) / s),
            "lambda-first": gradient(lambda E, lam, uv, s, N, n: (E - (E * uv).sum() * uv) / s),
            "descent": gradient(lambda E, lam, uv, s, N, n: (lam * uv - E) / s),
            "weight": gradient(lambda E, lam, uv, s, N, n: (E - lam * N) / s),
            "adjoint": gradient(lambda E, lam, uv, s, N, n: (E - (E * uv).sum() * N) / s),
            "means": product_of_means,
            "means-outside": product_of_means_but_lambda,
            "transposed": transposed_e,
            "transposed-all": gradient(lambda E, lam, uv, s, N, n: ((E - lam * uv) / s).T),
            "column": gradient_with_columns,
            "features": gradient_over_features,
            "lambda-entrywise": gradient(lambda E, lam, uv, s, N, n: (E - E * N * uv) / s),
            "lambda-mean": gradient(lambda E, lam, uv, s, N, n: (E - (E * N).mean() * uv) / s),
            "sum+sign": gradient(lambda E, lam, uv, s, N, n: n * (E + lam * uv) / s),
            "sum+undivided": gradient(lambda E, lam, uv, s, N, n: n * (E - lam * uv)),
            "value": gradient(lambda E, lam, uv, s, N, n: uv),
            "raises": lambda W, delta, h: delta @ h,
        },
    ),
    Case(
        "2.4",
        right=[vanish_with_weights, vanish_large_batch, vanish_any_other_vector, vanish_as_list],
        wrong={
            "order": [vanish_order, vanish_swapped],
            "zero": [vanish_zero, lambda W: (torch.zeros(4, W.shape[0]), torch.randn(4, W.shape[1]))],
            "single": lambda W: (svd1(W)[1][None], svd1(W)[2][None]),
            "parallel": lambda W: (svd1(W)[1].expand(3, -1), svd1(W)[2].expand(3, -1)),
            "weight": vanish_along_weight,
            "not-v1": [vanish_with_column, vanish_biased],
            "not-u1": vanish_with_row,
            "gradient": [vanish_second, lambda W: (torch.randn(9, len(W)), torch.randn(9, len(W.T)))],
            "shape": [lambda W: (svd1(W)[1], svd1(W)[2]), lambda W: (torch.randn(2, 9), torch.randn(2, 9))],
            "type": lambda W: torch.zeros(4),
        },
    ),
    Case(
        "2.5",
        right=[
            lambda: ("grows", 100),
            lambda: ["Grows", 100.0],
            lambda: ("grows ", "100"),
            lambda: ("grows", torch.tensor(100)),
        ],  # fmt: skip
        wrong={
            "choice-shrinks": lambda: ("shrinks", 100),
            "choice-stays": lambda: ("stays", 100),
            "choice-varies": lambda: ("varies", 100),
            "factor-1": lambda: ("grows", 1),
            "factor-10": lambda: ("grows", 10),
            "factor-1000": lambda: ("grows", 1000),
            "option": [lambda: ("grows", 50), lambda: ("falls", 100), lambda: ("grows", "many")],
            "type": [lambda: "grows", lambda: (100, "grows")],
            "shape": lambda: ("grows",),
        },
    ),
    Case(
        "2.7",
        right=[Layer, TorchOrder, ByHand, Bilinear],
        wrong={
            "parameter": AsParameters,
            "buffer": AsAttributes,
            "swapped": SwappedBuffers,
            "unit": [NotUnit, NoUnitRound],
            "dtype": OtherDtype,
            "eval-moves": MovesAlways,
            "frozen": NeverMoves,
            "half": MovesOne,
            "rounds": ThreeRounds,
            "transposed": Transposed,
            "simultaneous": Simultaneous,
            "round": Restarts,
            "clone": WithoutClone,
            "detached": [Detached, DetachedInEval],
            "own-weight": CachesResult,
            "twice": KeepsItsWeight,
            "old-sigma": CachesSigma,
            "small-sigma": AtMost,
            "absolute": Absolute,
            "no-grad": AllWithoutGrad,
            "through": [ThroughVectors, GraphInBuffers],
            "number": ReturnsSigma,
            "multiplied": Multiplies,
            "exact": Exact,
            "stale": Stale,
            "unchanged": OnlyInTraining,
            "inplace": InPlace,
            "type": NotAModule,
            "raises": WithoutForward,
        },
    ),
    Case(
        "2.6",
        right=[update_with_module, update_by_norm],
        wrong={
            "swapped": [update_original, update_original_divided],
            "sigma": update(lambda W, u0, u, v, s: (s, u, v)),
            "order": update(lambda W, u0, u, v, s: (W / s, v, u)),
            "unit": update(lambda W, u0, u, v, s: (W / s, W @ v, v)),
            "old-u": update(lambda W, u0, u, v, s: (W / s, u0, v)),
            "stale": update(lambda W, u0, u, v, s: (W / (u0 @ W @ v), u, v)),
            "multiplied": update(lambda W, u0, u, v, s: (W * s, u, v)),
            "rank-one": update(lambda W, u0, u, v, s: (s * torch.outer(u, v), u, v)),
            "scaled-rank-one": update(lambda W, u0, u, v, s: (torch.outer(u, v), u, v)),
            "unchanged": update(lambda W, u0, u, v, s: (W.clone(), u, v)),
            "exact": [
                update(lambda W, u0, u, v, s: (W / svd1(W)[0], u, v)),
                lambda W, u: (W / svd1(W)[0], *svd1(W)[1:]),
            ],
            "frobenius": update(lambda W, u0, u, v, s: (W / W.norm(), u, v)),
            "rounds": update_thrice,
            "sign": update(lambda W, u0, u, v, s: (W / s, -u, -v)),
            "type": lambda W, u: W,
        },
    ),
    Case(
        "2.9",
        right=[
            restarted(fill_stored, rounds=40),
            restarted(fill_assigned),
            restarted(fill_data, rounds=20),
            restart_by_forward_passes,
        ],
        wrong={
            "ignored": [restarted(fill_in_use), lambda layer, init: layer],
            "stale": [restarted(fill_stored, rounds=0), restarted(fill_assigned, rounds=0)],
            "eval": restarted(fill_stored, train=False),
            "mode": [
                restarted(fill_stored, back=False),
                lambda l, i: restarted(fill_stored)(l, i).eval(),
                restart_half_in_training,
            ],
            "parameter": restarted(fill_new_parameter),
            "overwritten": restart_overwritten,
            "bare": restart_bare,
            "twice": restart_twice,
            "type": lambda layer, init: layer.weight,
            "none": fill_stored,
            "raises": lambda layer, init: init(layer.original),
        },
    ),
    Case(
        "2.10",
        right=[
            rest_from_all_down_tensor,
            rest_by_largest_ceiling,
            lambda a, rho: rest_by_largest_ceiling(a.double(), rho),
        ],
        wrong={
            "all": lambda a, rho: a / (1 + rho),
            "first": rest_first,
            "first-sorted": lambda a, rho: rest_first(a, rho).sort(descending=True).values,
            "cut": lambda a, rho: a.clamp(max=float(a[0]) / (1 + rho)),
            "clip": lambda a, rho: a.clamp(max=1),
            "double": lambda a, rho: a.clamp(max=rest_ceiling(a, rho, 2)),
            "half": lambda a, rho: a.clamp(max=rest_ceiling(a, rho, 0.5)),
            "everyone": lambda a, rho: torch.full_like(a, float(a.sum()) / (len(a) + rho)),
            "mean": lambda a, rho: a.clamp(max=float(a.sum()) / (len(a) + rho)),
            "ceiling": rest_ceiling,
            "value": [lambda a, rho: a, lambda a, rho: a / a[0], lambda a, rho: torch.zeros_like(a)],
            "type": lambda a, rho: "1.6",
        },
    ),
    Case(
        "2.8",
        right=[
            Division,
            SavesTheWeight,
            backward(lambda P, N, s, u, v, lam: P / s - torch.einsum("ij,ij", P, N) / s * u[:, None] * v),
        ],
        wrong={
            "constant": backward(lambda P, N, s, u, v, lam: P / s),
            "nothing": backward(lambda P, N, s, u, v, lam: P.clone()),
            "undivided": backward(lambda P, N, s, u, v, lam: P - lam * torch.outer(u, v)),
            "squared": backward(lambda P, N, s, u, v, lam: (P - lam * torch.outer(u, v)) / s**2),
            "multiplied": backward(lambda P, N, s, u, v, lam: (P - lam * torch.outer(u, v)) * s),
            "sign": backward(lambda P, N, s, u, v, lam: (P + lam * torch.outer(u, v)) / s),
            "lambda-raw": backward(lambda P, N, s, u, v, lam: (P - s * lam * torch.outer(u, v)) / s),
            "lambda-small": backward(lambda P, N, s, u, v, lam: (P - lam / s * torch.outer(u, v)) / s),
            "lambda-mean": backward(lambda P, N, s, u, v, lam: (P - (P * N).mean() * torch.outer(u, v)) / s),
            "lambda-first": backward(lambda P, N, s, u, v, lam: (P - (u @ P @ v) * torch.outer(u, v)) / s),
            "weight": backward(lambda P, N, s, u, v, lam: (P - lam * N) / s),
            "adjoint": backward(lambda P, N, s, u, v, lam: (P - (u @ P @ v) * N) / s),
            "exact": backward(lambda P, N, s, u, v, lam: (P - lam * uv_exact(N)) / s),
            "count": backward(lambda P, N, s, u, v, lam: ((P - lam * torch.outer(u, v)) / s,)),
            "none": backward(lambda P, N, s, u, v, lam: (None, None, None)),
            "inplace": backward(lambda P, N, s, u, v, lam: P.sub_(lam * torch.outer(u, v)) / s),
            "transposed": backward(lambda P, N, s, u, v, lam: (P - lam * torch.outer(v, u)) / s),
            "transposed-all": backward(lambda P, N, s, u, v, lam: ((P - lam * torch.outer(u, v)) / s).T),
            "shape": backward(lambda P, N, s, u, v, lam: (P - lam * torch.outer(u, v))[1:] / s),
            "raises": backward(lambda P, N, s, u, v, lam: (P @ torch.outer(u, v)[1:]) / s),
            "forward": OtherForward,
            "type": [lambda W, u, v: W / (u @ W @ v), backward(lambda P, N, s, u, v, lam: (1.0, None, None))],
            "value": backward(lambda P, N, s, u, v, lam: N),
        },
    ),
]


def test_a_wrong_matrix_is_shown_on_a_small_one():
    for id, answer, inputs in (
        ("2.2", lambda W, H: (H @ H.T @ H) / 3, ("W = ", "H = ")),
        ("2.3", lambda W, delta, h: W.exp(), ("W = ", "delta = ", "h = ")),
        ("2.1", lambda W: torch.zeros_like(W), ("W = [[2, 0], [0, 1]]", "expected [[1, 0], [0, 0]]")),
    ):
        line = core.run(id, answer, 0).line
        assert "The smallest failing case" in line and all(words in line for words in inputs), line
