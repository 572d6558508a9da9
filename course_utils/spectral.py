"""Singular values: power iteration, several of them at once, and the true norm of a convolution.

Shapes follow the paper: a weight W is d_out x d_in, u (left) has d_out entries, v (right) has d_in entries.
Equation numbers are those of Miyato et al. 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .validation import require_kernel, require_matrix, require_no_hook, require_tensor, require_whole

LINEAR_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class SingularTriplet(NamedTuple):
    """An estimate of the largest singular value `sigma` (scalar) with its left vector `u` and right vector `v`."""

    sigma: Tensor
    u: Tensor
    v: Tensor


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Here layers and tensors are made in float32, whatever `torch.set_default_dtype` was told; also a decorator."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def own_precision(tensor: Tensor) -> AbstractContextManager:
    """A context in which autocast is off: products stay in the type of `tensor`. In bfloat16, u and v lose their length."""
    device = tensor.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def weight_matrix(weight: Tensor, dim: int = 0) -> Tensor:
    """Reshape a weight of any order to the matrix whose rows belong to the outputs.

    A convolution's weight of shape (d_out, d_in, k, k) becomes d_out x (d_in k k), as in the paper's section 2.1.
    `dim` is the axis of the outputs: 0 for linear layers and convolutions, 1 for transposed convolutions.
    """
    require_tensor(weight, "weight", "a tensor of at least two axes", 2, finite=False)
    return weight.movedim(dim, 0).flatten(1)


def output_dim(module: nn.Module) -> int:
    """Axis of `module.weight` that counts the outputs: 1 for transposed convolutions, else 0."""
    return 1 if isinstance(module, TRANSPOSED_LAYERS) else 0


def used_weight(layer: nn.Module) -> Tensor:
    """`layer.weight` without its graph, read in evaluation mode: in training mode, reading would move SN's u and v.

    The layer's modes, frozen parts included, are afterwards what they were. Raises ValueError for a weight that an older
    hook computes (torch.nn.utils.spectral_norm, weight_norm, pruning): until the next pass through the layer it is stale.
    """
    require_no_hook(layer, "weight")
    modes = {module: module.training for module in layer.modules()}
    weight = layer.eval().weight.detach()
    for module, mode in modes.items():
        module.training = mode
    return weight


def overflow_shown(norm: Tensor) -> Tensor:
    """`norm` with NaN in place of infinity: a length that overflows must show, and x / inf would be a silent zero."""
    return norm.masked_fill(norm.abs() == math.inf, math.nan)


def least_norm(eps: float, dtype: torch.dtype) -> float:
    """What counts as zero: eps, but no less than the smallest normal number of `dtype`. In float16 1e-12 is rounded to 0."""
    return max(eps, torch.finfo(dtype).tiny)


def unit(x: Tensor, eps: float = 1e-12) -> Tensor:
    """x / ||x|| for a vector, zero for x = 0: F.normalize(x, dim=0), but right in float16 and NaN if ||x|| overflows."""
    return x / overflow_shown(x.norm()).clamp_min(least_norm(eps, x.dtype))


def power_iteration_step(weight: Tensor, u: Tensor, eps: float = 1e-12) -> tuple[Tensor, Tensor]:
    """One round of power iteration, equations (18)-(19): v <- W^T u / ||W^T u||, then u <- W v / ||W v||.

    weight: d_out x d_in; u: d_out, of unit length. Returns the new (u, v), of unit length.
    Where W v vanishes (a zero matrix: v is zero then) the old u is kept, so that the iteration can go on once W moves.
    It is also kept where NaN or an overflow comes out; v is NaN then, so that it shows.
    """
    v = unit(torch.mv(weight.mT, u), eps)
    w_v = torch.mv(weight, v)
    norm = overflow_shown(w_v.norm())
    u = torch.where(norm > least_norm(eps, norm.dtype), w_v / norm, u)
    return u, v.masked_fill(norm.isnan(), math.nan)


def power_of_two(tensor: Tensor) -> float:
    """The largest power of two that no |entry| of a finite tensor exceeds, 1 if all are zero.

    To divide by it costs no rounding, and then squares neither overflow nor vanish.
    """
    largest = float(tensor.detach().abs().max())
    return max(2.0 ** (math.frexp(largest)[1] - 1), torch.finfo(tensor.dtype).tiny) if largest > 0 else 1.0


def power_iteration(
    weight: Tensor,
    u: Tensor | None = None,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    generator: torch.Generator | None = None,
) -> SingularTriplet:
    """Estimate the spectral norm of `weight` by power iteration, equations (18)-(19), and sigma ~ u^T W v.

    weight: d_out x d_in. u: start vector of d_out entries, any length but zero; a Gaussian one drawn from `generator`
    if None. Returns (sigma, u, v) with unit u and v; sigma never exceeds the true spectral norm, and it is
    differentiable in `weight` with u and v held constant, as in the paper. The scale of `weight` and u does not matter.
    Raises TypeError or ValueError for anything but a finite matrix, a fitting u, and a non-negative number of rounds.
    """
    require_matrix(weight)
    n_power_iterations = require_whole(n_power_iterations, "n_power_iterations", 0)
    if u is None:
        u = torch.randn(weight.shape[0], dtype=weight.dtype, device=weight.device, generator=generator)
    require_tensor(u, "u", "a vector (d_out)", 1, 1, finite=False)
    if (len(u), u.dtype, u.device) != (len(weight), weight.dtype, weight.device):
        expected, got = (f"{len(t)} entries of {t.dtype} on {t.device}" for t in (weight, u))
        raise ValueError(f"u must have {expected} like the rows of weight, got {got}")
    if not torch.isfinite(u).all() or not u.any():
        raise ValueError("u must be finite and not zero: from the zero vector power iteration never moves")
    scale = power_of_two(weight)
    with own_precision(weight):
        scaled = weight / scale
        with torch.no_grad():
            u = unit(u / power_of_two(u), eps)
            v = unit(scaled.mT @ u, eps)
            for _ in range(n_power_iterations):
                u, v = power_iteration_step(scaled, u, eps)
        return SingularTriplet(scale * (u @ (scaled @ v)), u, v)


def top_singular_values(
    weight: Tensor, k: int, n_iterations: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """The k largest singular values of a d_out x d_in matrix by subspace iteration: k vectors at once.

    A QR decomposition after each product keeps the k columns apart; without it all would turn to v_1.
    Returns k values, largest first, each at most the true one. Raises ValueError unless 1 <= k <= min(d_out, d_in).
    """
    require_matrix(weight)
    if not 1 <= k <= min(weight.shape):
        raise ValueError(f"k must lie between 1 and min(d_out, d_in) = {min(weight.shape)}, got {k}")
    start = torch.randn(weight.shape[1], k, dtype=weight.dtype, device=weight.device, generator=generator)
    with torch.no_grad(), own_precision(weight):
        v = torch.linalg.qr(start).Q
        for _ in range(n_iterations):
            u = torch.linalg.qr(weight @ v).Q
            v = torch.linalg.qr(weight.mT @ u).Q
        return torch.linalg.svdvals(weight @ v)


def spectral_norm_gradient(weight: Tensor) -> Tensor:
    """d sigma(W) / dW = u_1 v_1^T, the gradient of the spectral norm where sigma_1 > sigma_2. Shape of `weight`."""
    require_matrix(weight)
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    return torch.outer(u[:, 0], vh[0])


def gradient_through_sn(weight: Tensor, pull: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Equation (12) with any unit vectors u, v: the gradient in W of <pull, W / (u^T W v)>, u and v held constant.

    weight, pull: d_out x d_in, where pull is E[delta h^T]; u: d_out; v: d_in. With u_1, v_1 this is (12), with the vectors
    that an SN layer has stored its backward pass; it is orthogonal to `weight` in any case.
    Raises ValueError for shapes that do not fit, and where u^T W v is zero.
    """
    require_matrix(weight)
    expected = (weight.shape, weight.shape[:1], weight.shape[1:])
    if (got := (pull.shape, u.shape, v.shape)) != expected:
        wanted, found = (", ".join(str(tuple(shape)) for shape in shapes) for shapes in (expected, got))
        raise ValueError(f"pull, u and v must have the shapes {wanted} to fit weight, got {found}")
    sigma = u @ weight @ v
    if sigma == 0:
        raise ValueError("u^T W v is zero: nothing to divide by")
    lam = (pull * weight).sum() / sigma
    return (pull - lam * torch.outer(u, v)) / sigma


class Memory(NamedTuple):
    """Stored u, v against u_1, v_1: sigma(W) / u^T W v; the angle of u to u_1 in degrees; |gradient - (12)| / |(12)|."""

    excess: float
    angle: float
    gradient_error: float


def compare_with_exact(weight: Tensor, pull: Tensor, u: Tensor, v: Tensor) -> Memory:
    """Compare u, v with u_1, v_1 by an SVD in double precision; needs sigma_1 > sigma_2, shapes as `gradient_through_sn`."""
    weight, pull, u, v = (tensor.detach().double() for tensor in (weight, pull, u, v))
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    followed, exact = gradient_through_sn(weight, pull, u, v), gradient_through_sn(weight, pull, left[:, 0], right[0])
    angle = math.degrees(math.acos(min(1.0, abs(float(u @ left[:, 0])))))
    error = float((followed - exact).norm() / exact.norm())
    return Memory(float(values[0] / (u @ weight @ v)), angle, error)


def stable_rank(weight: Tensor, dim: int = 0) -> float:
    """||W||_F^2 / sigma_1^2: 1 for a rank-one matrix, the rank if all singular values are equal, 0 for W = 0.

    Unlike the rank it hardly moves when small singular values appear. `weight`: any order >= 2, see `weight_matrix`.
    """
    matrix = weight_matrix(weight, dim).detach()
    require_matrix(matrix)
    squared = torch.linalg.svdvals(matrix / power_of_two(matrix)).square()
    return float(squared.sum() / squared[0]) if squared[0] > 0 else 0.0


def normalized_spectrum(weight: Tensor, dim: int = 0) -> Tensor:
    """Squared singular values, largest scaled to 1 and largest first: what the paper's Figure 3 shows."""
    matrix = weight_matrix(weight, dim).detach()
    require_matrix(matrix)
    squared = torch.linalg.svdvals(matrix / power_of_two(matrix)).square()
    return squared / squared[0] if squared[0] > 0 else squared


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All linear, convolutional and transposed convolutional layers of `model` by name, in order; TypeError if no model."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model (torch.nn.Module), got {type(model).__name__}")
    return {n: m for n, m in model.named_modules() if isinstance(m, LINEAR_LAYERS + TRANSPOSED_LAYERS)}


def linear_layers(model: nn.Module) -> list[nn.Module]:
    """All linear, convolutional and transposed convolutional layers of `model`, in order."""
    return list(named_layers(model).values())


def spectra(model: nn.Module) -> dict[str, Tensor]:
    """Normalized spectrum of the weight each linear or convolutional layer really uses, by the layer's name."""
    return {name: normalized_spectrum(used_weight(m), output_dim(m)) for name, m in named_layers(model).items()}


def conv_norm(
    weight: Tensor,
    input_size: tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    n_iterations: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Spectral norm of the linear map x -> conv2d(x, weight) with zero padding, by power iteration.

    The map's transpose is a transposed convolution, so no matrix is ever built (Gouk et al. 2018, Farnia et al. 2019).
    weight: (d_out, d_in, k, k); input_size: (height, width). Returns a scalar, at most the true norm and
    differentiable in `weight`. Raises ValueError for other shapes, NaN or infinite entries.
    """
    require_kernel(weight, input_size, padding, stride)
    x = torch.randn(1, weight.shape[1], *input_size, dtype=weight.dtype, device=weight.device, generator=generator)
    scale = power_of_two(weight)
    with own_precision(weight):
        scaled = weight / scale
        with torch.no_grad():
            x = x / x.norm()
            for _ in range(n_iterations):
                y = F.conv2d(x, scaled, stride=stride, padding=padding)
                x_next = torch.nn.grad.conv2d_input(x.shape, scaled, y, stride=stride, padding=padding)
                if not x_next.any():
                    break
                x = x_next / x_next.norm()
        return scale * F.conv2d(x, scaled, stride=stride, padding=padding).norm()


def conv_norm_fft(weight: Tensor, input_size: tuple[int, int]) -> Tensor:
    """Exact spectral norm of a stride-1 convolution with circular padding (Sedghi, Gupta, Long 2019).

    The Fourier transform turns the convolution into one small d_out x d_in matrix per frequency; the norm is the
    largest of their largest singular values. weight: (d_out, d_in, k, k); input_size: (height, width), each >= k.
    """
    require_kernel(weight, input_size)
    transform = torch.fft.fft2(weight, s=tuple(input_size))  # d_out x d_in x height x width
    return torch.linalg.matrix_norm(transform.permute(2, 3, 0, 1), ord=2).max()
