"""Spectral normalization and the methods it is compared with, each one small parametrization, penalty or projection.

Equation numbers are those of Miyato et al. 2018. `normalize(model, method)` chooses a method by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.utils import parametrize

from .spectral import (
    least_norm,
    linear_layers,
    output_dim,
    overflow_shown,
    own_precision,
    power_iteration_step,
    unit,
    weight_matrix,
)
from .validation import require_alike, require_eps, require_matrix, require_positive, require_weight, require_whole


class SpectralNorm(nn.Module):
    """The parametrization W -> W / sigma(W), equation (8), with sigma estimated by power iteration (Algorithm 1).

    `_u` and `_v` are buffers: saved with the model, not trained, moved by one forward pass in training mode only.
    A zero weight leaves `_u` at zero: no estimate. Training mode finds one as soon as the weight moves; evaluation
    mode, which moves nothing, returns the weight as it is until then. NaN, or numbers so large that sigma overflows,
    come out as NaN. Inside autocast u, v and sigma are computed in the type of the weight.
    """

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, eps: float = 1e-12, dim: int = 0) -> None:
        super().__init__()
        self.n_power_iterations, self.eps, self.dim = n_power_iterations, eps, dim
        if weight.ndim > 1:  # a vector is its own singular vector: nothing to iterate
            matrix = weight_matrix(weight.detach(), self.dim)
            self.register_buffer("_u", unit(matrix.new_empty(matrix.shape[0]).normal_(), eps))
            self.register_buffer("_v", unit(matrix.new_empty(matrix.shape[1]).normal_(), eps))
            with own_precision(matrix):
                self.iterate(matrix, 15)  # a warm start, so that the very first sigma is already close

    @torch.no_grad()
    def iterate(self, matrix: Tensor, n_power_iterations: int) -> None:
        """Move `_u` and `_v` in place by `n_power_iterations` rounds of power iteration on `matrix` (d_out x d_in).

        The paper's round starts from u, torch's from v; the same function on W^T, which has the same sigma, does that.
        """
        u, v = self._u, self._v
        for _ in range(n_power_iterations):
            v, u = power_iteration_step(matrix.mT, v, self.eps)
        self._u.copy_(u)
        self._v.copy_(v)

    def forward(self, weight: Tensor) -> Tensor:
        """Return weight / sigma(weight), of the same shape; the zero weight stays zero."""
        if weight.ndim == 1:
            return unit(weight, self.eps)
        matrix = weight_matrix(weight, self.dim)
        with own_precision(weight):
            if self.training:
                self.iterate(matrix, self.n_power_iterations)
            u, v = self._u.clone(), self._v.clone()  # the backward pass must see these, not the next round's
            sigma = overflow_shown(torch.dot(u, torch.mv(matrix, v)))  # u, v are constants here: the gradient is u v^T
        return weight / torch.where(sigma.abs() <= least_norm(self.eps, sigma.dtype), 1.0, sigma)

    def right_inverse(self, value: Tensor) -> Tensor:
        """What assigning to the normalized weight stores: the value itself, to be normalized when it is next used."""
        return value


def spectral_norm(
    module: nn.Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> nn.Module:
    """Replace `module.<name>` by W / sigma(W), equation (8), from scratch on torch's parametrization API.

    Signature, buffers, state_dict and behaviour are those of `torch.nn.utils.parametrizations.spectral_norm`, for real
    weights with data; where torch's stacks a second normalization on the first, or returns NaN for a zero weight, this
    one refuses, or returns zero.
    dim: axis of the outputs; None means 1 for transposed convolutions and 0 for everything else.
    Returns the module itself. Raises ValueError for a missing, empty, NaN or infinite weight, one that is already
    normalized, n_power_iterations < 1, a negative eps, and a dim that the weight does not have.
    """
    weight, dim = require_weight(module, name, output_dim(module) if dim is None else dim)
    n_power_iterations = require_whole(n_power_iterations, "n_power_iterations")
    require_eps(eps)
    parametrize.register_parametrization(module, name, SpectralNorm(weight, n_power_iterations, eps, dim))
    return module


class DivisionBySigma(torch.autograd.Function):
    """W -> W / sigma for sigma = u^T W v with constant u and v. Its backward pass is equation (12), written by hand.

    weight: of any order, its outputs on the axis `dim`; sigma: a number; u: d_out; v: d_in.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, sigma: Tensor, u: Tensor, v: Tensor, dim: int) -> Tensor:
        """Return weight / sigma, and keep what (12) needs."""
        weight_sn, ctx.dim = weight / sigma, dim
        ctx.save_for_backward(weight, weight_sn, sigma, u, v)
        return weight_sn

    @staticmethod
    def backward(ctx, pull: Tensor) -> tuple[Tensor | None, ...]:
        """Take pull = dV/dW_SN, which is E[delta h^T], to dV/dW = (pull - lambda u v^T) / sigma."""
        weight, weight_sn, sigma, u, v = ctx.saved_tensors
        pull, weight_sn = pull.movedim(ctx.dim, 0), weight_sn.movedim(ctx.dim, 0)
        matrix = pull.reshape(len(u), len(v))
        with own_precision(weight):
            lam = torch.dot(matrix.flatten(), weight_sn.flatten())
            if torch.is_grad_enabled():  # a gradient of this gradient is wanted: there sigma moves with W
                moving = torch.dot(u, torch.mv(weight_matrix(weight, ctx.dim), v))
                gradient = torch.addr(matrix, lam * u, v, alpha=-1) / (sigma + moving - moving.detach())
            elif matrix.is_cpu:  # with lambda and sigma as numbers it is one pass over the matrix
                scale = 1 / sigma.item()
                gradient = torch.addr(matrix, u, v, beta=scale, alpha=-scale * lam.item())
            else:  # a GPU is not to wait for numbers
                gradient = torch.addr(matrix, lam * u, v, alpha=-1).div_(sigma)
        return gradient.view(pull.shape).movedim(0, ctx.dim), None, None, None, None


class FusedSpectralNorm(SpectralNorm):
    """SpectralNorm at about half of its cost in training: no third look at W for sigma, and (12) as backward pass.

    The same parameters, buffers and state_dict; u and v are the same to the bit, the rest up to rounding. See `fuse`.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Return weight / sigma(weight); evaluation mode and all that is not plain sailing is left to SpectralNorm."""
        if not self.training or weight.ndim == 1 or torch.compiler.is_compiling():
            return super().forward(weight)
        with own_precision(weight), torch.no_grad():
            matrix, v = weight_matrix(weight.detach(), self.dim), self._v
            for _ in range(self.n_power_iterations):  # the rounds of `iterate`, which keep the lengths
                w_v = torch.mv(matrix, v)
                u = w_v / (length := vector_norm(w_v))
                w_u = torch.mv(matrix.mT, u)
                v = w_u / (sigma := vector_norm(w_u))  # u^T W v is the length of W^T u
        least = least_norm(self.eps, sigma.dtype)
        if not all(least < number.item() < math.inf for number in (length, sigma)):
            return super().forward(weight)  # zero, an overflow, NaN: once more, with all precautions
        self._u.copy_(u)
        self._v.copy_(v)
        return DivisionBySigma.apply(weight, sigma, u, v, self.dim)


def fuse(model: nn.Module, into: type[SpectralNorm] = FusedSpectralNorm) -> nn.Module:
    """Turn every SpectralNorm in `model` into FusedSpectralNorm, in place: faster, the same state_dict. Returns the model."""
    for module in model.modules():
        if type(module) is SpectralNorm:
            module.__class__ = into
    return model


class WeightNorm(nn.Module):
    """The parametrization that scales each row of W to unit length, so that sum_t sigma_t^2 = d_out, equation (13).

    The trainable gain of Salimans & Kingma (2016) is left out, as in the paper. A zero row (norm at most eps) stays.
    """

    def __init__(self, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight` with every row (slice along `dim`) divided by its Euclidean norm, NaN where that overflows."""
        axes = [axis for axis in range(weight.ndim) if axis != self.dim]
        norms = overflow_shown(torch.linalg.vector_norm(weight, dim=axes, keepdim=True))
        return weight / torch.where(norms <= least_norm(self.eps, weight.dtype), 1.0, norms)

    def right_inverse(self, value: Tensor) -> Tensor:
        """Store an assigned value as it is."""
        return value


class Gain(nn.Module):
    """The parametrization W -> gamma W with one trainable gamma, equation (32); put it on top of SpectralNorm."""

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(float(gamma)))

    def forward(self, weight: Tensor) -> Tensor:
        """Return gamma * weight."""
        return self.gamma * weight

    def right_inverse(self, value: Tensor) -> Tensor:
        """Store an assigned value as it is."""
        return value


def weight_norm(module: nn.Module, name: str = "weight", dim: int | None = None) -> nn.Module:
    """Replace `module.<name>` by its weight-normalized version without gain, equation (13). Returns the module."""
    weight, dim = require_weight(module, name, output_dim(module) if dim is None else dim)
    parametrize.register_parametrization(module, name, WeightNorm(dim))
    return module


def spectral_norm_gain(module: nn.Module, name: str = "weight", gamma: float = 1.0) -> nn.Module:
    """Replace `module.<name>` by gamma W / sigma(W) with a trainable scalar gamma, equation (32)."""
    weight, _ = require_weight(module, name, output_dim(module))
    parametrize.register_parametrization(spectral_norm(module, name), name, Gain(gamma).to(weight))
    return module


def bias_only(norm: nn.Module) -> nn.Module:
    """Keep the gain of a batch, layer or group norm at 1 and train its bias alone, as the paper does; return the module."""
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def clip_weights_(model: nn.Module, c: float = 0.01) -> None:
    """Weight clipping, in place: move every entry of every layer's weight into [-c, c] (Arjovsky et al. 2017)."""
    require_positive(c, "c")
    for layer in linear_layers(model):
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError("clipping acts on plain weights, but these are computed anew by a parametrization")
        layer.weight.clamp_(-c, c)


def clip_singular_values(weight: Tensor, bound: float = 1.0) -> Tensor:
    """The matrix with the singular vectors of `weight` (d_out x d_in) and the singular values min(sigma_t, bound).

    Of all matrices of spectral norm at most `bound` the nearest in the Frobenius norm. Raises ValueError unless bound > 0.
    """
    require_matrix(weight)
    require_positive(bound, "bound")
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return (u * s.clamp(max=bound)) @ vh


def orthonormal_penalty(model: nn.Module) -> Tensor:
    """Sum over the layers of ||W W^T - I||_F^2 (rows) or ||W^T W - I||_F^2 (columns), equation (14).

    The smaller of the two products is taken: the larger one can never be the identity. Returns a scalar.
    """
    total = torch.zeros((), dtype=torch.float32)  # a scalar on the CPU may be added to those of any device
    for layer in linear_layers(model):
        matrix = weight_matrix(layer.weight, output_dim(layer))
        with own_precision(matrix):
            gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
        total = total + (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()
    return total


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """E[(||grad f(x_hat)|| - 1)^2] at random points x_hat between real and fake images, equations (29)-(31).

    real, fake: (batch, ...), of the same shape; the factor lambda is left to the caller. Returns a scalar.
    """
    require_alike(real=real, fake=fake)
    t = torch.rand(len(real), *[1] * (real.ndim - 1), dtype=real.dtype, device=real.device, generator=generator)
    x = torch.lerp(real.detach(), fake.detach(), t).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
