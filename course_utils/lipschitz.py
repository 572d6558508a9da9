"""Lipschitz constants: of activations, of whole networks from above (product bound) and from below (search).

Equation numbers are those of Miyato et al. 2018. The norm is the Euclidean one throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spectral import (
    LINEAR_LAYERS,
    TRANSPOSED_LAYERS,
    conv_norm,
    output_dim,
    used_weight,
    weight_matrix,
)
from .validation import require_batch, require_matrix


def activation_slopes(
    activation: Callable[[Tensor], Tensor], low: float = -10, high: float = 10, n: int = 20001
) -> tuple[Tensor, Tensor]:
    """Derivative of an element-wise activation on an even grid of n points; the grid and the slopes, both of n entries.

    The largest absolute slope is the activation's Lipschitz norm, up to the spacing of the grid.
    """
    h = torch.linspace(low, high, n, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(activation(h.clone()).sum(), h)  # a clone: some activations work in place
    return h.detach(), slopes


def activation_constant(activation: Callable[[Tensor], Tensor]) -> float:
    """Lipschitz norm of an element-wise activation: the largest |a'(h)|, measured on a grid (1 for ReLU)."""
    return float(activation_slopes(activation, -40, 40, 80001)[1].abs().max())


def jacobian_norm(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """sigma of the Jacobian of `function` at each point of a batch x, (batch, ...): the local stretch, `batch` values.

    The function must treat the points of a batch independently and change no buffers: put networks with batch or
    spectral norm in evaluation mode, else ValueError. For a scalar function this is the length of its gradient.
    """
    require_batch(x)
    try:
        jacobian = torch.func.vmap(torch.func.jacrev(lambda point: function(point[None].clone())[0].flatten()))(x)
    except RuntimeError as error:
        raise ValueError(
            f"no Jacobian at points of shape {tuple(x.shape[1:])}: does the function take this shape, and is it in "
            f"evaluation mode (batch norm and spectral norm change their buffers in training mode)? {error}"
        ) from error
    if not torch.isfinite(jacobian).all():
        raise ValueError("the function's Jacobian is NaN or infinite at some of the points")
    return torch.linalg.matrix_norm(jacobian.flatten(2).detach(), ord=2)


def sampled_lower_bound(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The largest local stretch over a batch of points: no Lipschitz constant of `function` can be smaller.

    Up to rounding, and at points where `function` is differentiable: on a kink, what autograd returns need not be a
    derivative (x - relu(x) + relu(-x) is zero everywhere, autograd says 1 at x = 0).
    """
    return float(jacobian_norm(function, x).max())


def ascent_lower_bound(
    function: Callable[[Tensor], Tensor], x: Tensor, steps: int = 200, lr: float = 0.05, distance: float = 0.1
) -> float:
    """A better lower bound of the Lipschitz norm: move pairs of points until their slope is largest.

    The slope |f(x) - f(x')| / |x - x'| is maximised by Adam, from the batch x, (batch, ...), and a partner at
    `distance`. The pairs only show the way: returned is the largest local stretch at the first points and at five points
    of each pair, where it was steepest and where it ended. So the bound holds even where the difference of two large
    outputs has lost its digits. For kinks and rounding see `sampled_lower_bound`.
    """
    require_batch(x)
    offset = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=torch.Generator(x.device).manual_seed(0))
    offset = distance * offset / offset.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    pair = torch.stack([x, x + offset]).requires_grad_()
    optimizer, steepest, best = torch.optim.Adam([pair], lr=lr), x.new_zeros(len(x)), pair.detach().clone()
    for _ in range(steps):
        rise = function(pair[0].clone()) - function(pair[1].clone())  # clones: some functions work in place
        slope = rise.flatten(1).norm(dim=1) / (pair[0] - pair[1]).flatten(1).norm(dim=1).clamp_min(1e-6)
        better = slope.detach() > steepest
        steepest, best[:, better] = torch.maximum(slope.detach(), steepest), pair.detach()[:, better]
        (pair.grad,) = torch.autograd.grad(-slope.sum(), pair)
        optimizer.step()
    ends = torch.cat([best, pair.detach()], dim=1)
    return sampled_lower_bound(function, torch.cat([x, *(torch.lerp(*ends, t) for t in (0.0, 0.25, 0.5, 0.75, 1.0))]))


class _RoundedReLU(nn.Module):
    """ReLU, or leaky ReLU with `slope`, whose kink is rounded over a `width`: a softplus of that width."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope, self.width = slope, 1.0

    def forward(self, h: Tensor) -> Tensor:
        return self.slope * h + (1 - self.slope) * F.softplus(h, beta=1 / self.width)


def rounded_lower_bound(model: nn.Sequential, x: Tensor, steps: int = 300, lr: float = 0.1) -> float:
    """The best lower bound here for a ReLU network with one output: climb the gradient's length with rounded kinks.

    In a ReLU network the gradient's length is piecewise constant: nothing to climb. With a softplus in place of each
    (leaky) ReLU it is smooth, and Adam climbs its logarithm from the batch x, (batch, ...), while the softplus narrows
    from width 1 to 1/50. Returns the largest gradient of `model` itself, kinks and all, among the points looked at
    (the first ones and every tenth step's). Raises ValueError without a ReLU to round or with more than one output.
    """
    require_batch(x)
    rounded, relus = copy.deepcopy(model).requires_grad_(False), []
    for path, layer in list(rounded.named_modules(remove_duplicate=False)):
        if isinstance(layer, (nn.ReLU, nn.LeakyReLU)) and path:
            relus.append(_RoundedReLU(getattr(layer, "negative_slope", 0.0)))
            rounded.set_submodule(path, relus[-1])
    if not relus or model(x[:1].clone()).numel() != 1:
        raise ValueError("expected a network with ReLU or leaky ReLU modules and one output for each point")
    best, point = sampled_lower_bound(model, x), x.clone().requires_grad_()
    optimizer = torch.optim.Adam([point], lr=lr)
    for step in range(1, steps + 1):
        for relu in relus:
            relu.width = 0.02 ** (step / steps)
        (gradient,) = torch.autograd.grad(rounded(point).sum(), point, create_graph=True)
        length = gradient.flatten(1).norm(dim=1)
        (point.grad,) = torch.autograd.grad(-length.clamp_min(1e-12).log().sum(), point)
        optimizer.step()
        if step % 10 == 0 or step == steps:
            best = max(best, sampled_lower_bound(model, point.detach()))
    return best


REARRANGING = (nn.Flatten, nn.Identity, nn.Unflatten)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus)
KNOWN_LAYERS = LINEAR_LAYERS + TRANSPOSED_LAYERS + REARRANGING + BATCH_NORMS + ACTIVATIONS


class LayerBound(NamedTuple):
    """An upper bound of one layer's Lipschitz norm, and how it was found."""

    name: str
    bound: float
    how: str


def _layer_bound(layer: nn.Module, x: Tensor, kernels: str) -> tuple[float, str]:
    """Bound of a single layer at inputs shaped like `x`; ValueError for a layer without a known constant."""
    kind = next((known for known in KNOWN_LAYERS if isinstance(layer, known)), None)
    if kind is None:
        raise ValueError(f"no Lipschitz constant is known here for {type(layer).__name__}")
    if type(layer).forward is not kind.forward:
        raise ValueError(f"{type(layer).__name__} has a forward of its own: the constant of {kind.__name__} is not its")
    if kind in LINEAR_LAYERS + TRANSPOSED_LAYERS:
        weight = used_weight(layer)
        matrix = weight_matrix(weight, output_dim(layer))
        require_matrix(matrix)
        if kernels == "exact" and not isinstance(layer, nn.Linear):
            known = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.dilation == (1, 1)
            if not known or layer.padding_mode != "zeros" or not isinstance(layer.padding, tuple):
                raise ValueError(f"kernels='exact' knows Conv2d with zero padding, no groups or dilation, not {layer}")
            norm = conv_norm(weight, tuple(x.shape[2:]), layer.stride, layer.padding, n_iterations=200)
            return float(norm), "norm of the convolution (power iteration)"
        return float(torch.linalg.matrix_norm(matrix, ord=2)), "sigma of the weight as a matrix"
    if kind in REARRANGING:
        return 1.0, "only rearranges"
    if kind in BATCH_NORMS:
        if layer.training or layer.running_var is None:
            raise ValueError("batch norm in training mode couples the images of a batch: it has no constant of its own")
        gain = torch.ones_like(layer.running_var) if layer.weight is None else layer.weight.detach()
        return float((gain / (layer.running_var + layer.eps).sqrt()).abs().max()), "gain / running deviation"
    return activation_constant(layer), "largest slope"


def layer_bounds(model: nn.Sequential, x: Tensor, kernels: str = "matrix") -> list[LayerBound]:
    """An upper bound for each layer of a chain of layers, whose product bounds the network, equation (7).

    x: (batch, ...), a batch that shows the layers their input sizes. kernels: "matrix" takes sigma of a convolution's
    reshaped weight, as spectral normalization does; "exact" the norm of the convolution itself, which makes (7) true
    (up to what power iteration still lacks after 200 rounds, some tenths of a percent). Changes nothing in `model`.
    A layer object that occurs twice counts twice. Raises ValueError for anything but a plain chain of known layers: a
    model that is no nn.Sequential, one with a forward of its own or a hook that changes what it returns (a residual sum
    is no product), an unknown layer, and a weight that an old-style hook computes (it may be out of date).
    """
    if kernels not in ("matrix", "exact"):
        raise ValueError(f"kernels must be 'matrix' or 'exact', got {kernels!r}")
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"the product bound needs an nn.Sequential, got {type(model).__name__}")
    if type(model).forward is not nn.Sequential.forward:
        raise ValueError(f"{type(model).__name__} has a forward of its own: it is no chain of its layers")
    for path, module in model.named_modules():
        if any(isinstance(vars(module).get(name), Tensor) for name in ("weight", "bias")):  # no parameter, no buffer
            raise ValueError(
                f"a hook computes the weight or bias of layer {path} (old-style spectral_norm, weight_norm or pruning), "
                "so they may be out of date: remove the hook, or use torch.nn.utils.parametrizations"
            )
    require_batch(x)
    bounds, first = [], x
    with torch.no_grad():
        for name, layer in model._modules.items():  # named_children() would skip a layer that has occurred before
            layer = copy.deepcopy(layer)  # so that neither buffers nor modes of `model` change
            if isinstance(layer, nn.Sequential):
                inner = layer_bounds(layer, x, kernels)
                bounds += [LayerBound(f"{name}.{b.name}", b.bound, b.how) for b in inner]
            else:
                bounds.append(LayerBound(name, *_layer_bound(layer, x, kernels)))
            try:
                x = _outputs(layer.eval(), x, f"layer {name}")
            except RuntimeError as error:
                raise ValueError(f"layer {name} does not take inputs of shape {tuple(x.shape)}: {error}") from error
        _outputs(copy.deepcopy(model).eval(), first, "the model")
    return bounds


def _outputs(module: nn.Module, x: Tensor, name: str) -> Tensor:
    """What `module` returns for x; ValueError if that is not what the forward of its class returns."""
    y, own = module(x.clone()), type(module).forward(module, x.clone())  # clones: some activations work in place
    if y.shape != own.shape or not torch.allclose(y, own, equal_nan=True):
        raise ValueError(f"{name} does not return what the forward of {type(module).__name__} does: a hook changes it")
    return y


def product_bound(model: nn.Sequential, x: Tensor, kernels: str = "matrix") -> float:
    """Equation (7): the product of the layers' Lipschitz norms, an upper bound of the network's. See `layer_bounds`."""
    bounds = torch.tensor([b.bound for b in layer_bounds(model, x, kernels)], dtype=torch.float64)
    return float(bounds.prod())
