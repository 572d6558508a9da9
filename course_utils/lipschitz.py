"""Lipschitz constants: of activations, of whole networks from above (product bound) and from below (search).

Equation numbers are those of Miyato et al. 2018. The norm is the Euclidean one throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .spectral import (
    LINEAR_LAYERS,
    TRANSPOSED_LAYERS,
    check_matrix,
    check_tensor,
    conv_norm,
    output_dim,
    used_weight,
    weight_matrix,
)


def check_batch(x: Tensor, name: str = "x") -> None:
    """Raise TypeError or ValueError unless `x` is a non-empty, finite batch of floating-point numbers, (batch, ...)."""
    check_tensor(x, name, "a batch (batch, ...)", 2)


def activation_slopes(
    activation: Callable[[Tensor], Tensor], low: float = -10, high: float = 10, n: int = 20001
) -> tuple[Tensor, Tensor]:
    """Derivative of an element-wise activation on an even grid of n points; the grid and the slopes, both of n entries.

    The largest absolute slope is the activation's Lipschitz norm, up to the spacing of the grid.
    """
    h = torch.linspace(low, high, n, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(activation(h).sum(), h)
    return h.detach(), slopes


def activation_constant(activation: Callable[[Tensor], Tensor]) -> float:
    """Lipschitz norm of an element-wise activation: the largest |a'(h)|, measured on a grid (1 for ReLU)."""
    return float(activation_slopes(activation, -40, 40, 80001)[1].abs().max())


def jacobian_norm(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """sigma of the Jacobian of `function` at each point of a batch x, (batch, ...): the local stretch, `batch` values.

    The function must treat the points of a batch independently and change no buffers: put networks with batch or
    spectral norm in evaluation mode, else ValueError. For a scalar function this is the length of its gradient.
    """
    check_batch(x)
    try:
        jacobian = torch.func.vmap(torch.func.jacrev(lambda point: function(point[None])[0].flatten()))(x)
    except RuntimeError as error:
        raise ValueError(
            f"no Jacobian at points of shape {tuple(x.shape[1:])}: does the function take this shape, and is it in "
            f"evaluation mode (batch norm and spectral norm change their buffers in training mode)? {error}"
        ) from error
    if not torch.isfinite(jacobian).all():
        raise ValueError("the function's Jacobian is NaN or infinite at some of the points")
    return torch.linalg.matrix_norm(jacobian.flatten(2).detach(), ord=2)


def sampled_lower_bound(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The largest local stretch over a batch of points: no Lipschitz constant of `function` can be smaller."""
    return float(jacobian_norm(function, x).max())


def ascent_lower_bound(
    function: Callable[[Tensor], Tensor], x: Tensor, steps: int = 200, lr: float = 0.05, distance: float = 0.1
) -> float:
    """A better lower bound of the Lipschitz norm: move pairs of points until their slope is largest.

    The slope |f(x) - f(x')| / |x - x'| is maximised by Adam, from the batch x, (batch, ...), and a partner at
    `distance`. (The gradient's length itself is piecewise constant in a ReLU network: nothing to climb.) Returns the
    largest slope met, or the largest local stretch at the first or the final points if that is larger.
    """
    check_batch(x)
    a = x.clone().requires_grad_()
    offset = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=torch.Generator(x.device).manual_seed(0))
    b = (x + distance * offset / offset.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))).requires_grad_()
    optimizer, best = torch.optim.Adam([a, b], lr=lr), sampled_lower_bound(function, x)
    for _ in range(steps):
        slope = (function(a) - function(b)).flatten(1).norm(dim=1) / (a - b).flatten(1).norm(dim=1).clamp_min(1e-6)
        best = max(best, float(slope.detach().max()))
        a.grad, b.grad = torch.autograd.grad(-slope.sum(), [a, b])
        optimizer.step()
    return max(best, sampled_lower_bound(function, a.detach()))


class LayerBound(NamedTuple):
    """An upper bound of one layer's Lipschitz norm, and how it was found."""

    name: str
    bound: float
    how: str


def _layer_bound(layer: nn.Module, x: Tensor, kernels: str) -> tuple[float, str]:
    """Bound of a single layer at inputs shaped like `x`; ValueError for a layer without a known constant."""
    if isinstance(layer, LINEAR_LAYERS + TRANSPOSED_LAYERS):
        weight = used_weight(layer)
        matrix = weight_matrix(weight, output_dim(layer))
        check_matrix(matrix)
        if kernels == "exact" and not isinstance(layer, nn.Linear):
            known = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.dilation == (1, 1)
            if not known or layer.padding_mode != "zeros" or not isinstance(layer.padding, tuple):
                raise ValueError(f"kernels='exact' knows Conv2d with zero padding, no groups or dilation, not {layer}")
            norm = conv_norm(weight, tuple(x.shape[2:]), layer.stride, layer.padding, n_iterations=200)
            return float(norm), "norm of the convolution (power iteration)"
        return float(torch.linalg.matrix_norm(matrix, ord=2)), "sigma of the weight as a matrix"
    if isinstance(layer, (nn.Flatten, nn.Identity, nn.Unflatten)):
        return 1.0, "only rearranges"
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        if layer.training or layer.running_var is None:
            raise ValueError("batch norm in training mode couples the images of a batch: it has no constant of its own")
        gain = torch.ones_like(layer.running_var) if layer.weight is None else layer.weight.detach()
        return float((gain / (layer.running_var + layer.eps).sqrt()).abs().max()), "gain / running deviation"
    if isinstance(layer, (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus)):
        return activation_constant(layer), "largest slope"
    raise ValueError(f"no Lipschitz constant is known here for {type(layer).__name__}")


def layer_bounds(model: nn.Sequential, x: Tensor, kernels: str = "matrix") -> list[LayerBound]:
    """An upper bound for each layer of a chain of layers, whose product bounds the network, equation (7).

    x: (batch, ...), a batch that shows the layers their input sizes. kernels: "matrix" takes sigma of a convolution's
    reshaped weight, as spectral normalization does; "exact" the norm of the convolution itself, which makes (7) true
    (up to what power iteration still lacks after 200 rounds, some tenths of a percent). Changes nothing in `model`.
    Raises ValueError for a model that is not an nn.Sequential (a residual sum is no product) or an unknown layer.
    """
    if kernels not in ("matrix", "exact"):
        raise ValueError(f"kernels must be 'matrix' or 'exact', got {kernels!r}")
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"the product bound needs an nn.Sequential, got {type(model).__name__}")
    check_batch(x)
    bounds = []
    with torch.no_grad():
        for name, layer in model.named_children():
            if isinstance(layer, nn.Sequential):
                inner = layer_bounds(layer, x, kernels)
                bounds += [LayerBound(f"{name}.{b.name}", b.bound, b.how) for b in inner]
            else:
                bounds.append(LayerBound(name, *_layer_bound(layer, x, kernels)))
            try:
                x = copy.deepcopy(layer).eval()(x)  # only its shape matters; the layer's own buffers stay as they are
            except RuntimeError as error:
                raise ValueError(f"layer {name} does not take inputs of shape {tuple(x.shape)}: {error}") from error
    return bounds


def product_bound(model: nn.Sequential, x: Tensor, kernels: str = "matrix") -> float:
    """Equation (7): the product of the layers' Lipschitz norms, an upper bound of the network's. See `layer_bounds`."""
    bounds = torch.tensor([b.bound for b in layer_bounds(model, x, kernels)], dtype=torch.float64)
    return float(bounds.prod())
