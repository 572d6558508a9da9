"""What functions ask of their arguments: each `require_...` says what was expected and what came, or says nothing.

Pages that show a function from here leave these calls out (`show_source`): they guard the mathematics and are none.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, Dataset


def require_choice(value: object, name: str, choices: Collection) -> None:
    """Raise ValueError, with the list of what there is, unless `value` is one of `choices`."""
    if not isinstance(value, str | None) or value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of: {', '.join(map(str, choices))}")


def require_positive(value: float, name: str) -> None:
    """Raise ValueError unless `value` is above 0."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")


def require_tensor(
    tensor: Tensor, name: str, expected: str, at_least: int, at_most: int | None = None, finite: bool = True
) -> None:
    """Say clearly what is wrong with an argument: the check behind all functions of this module and its neighbours.

    Raises TypeError for anything but a (dense) floating-point tensor, and ValueError for one without entries, with fewer axes
    than `at_least` or more than `at_most`, or (unless `finite` is False: looking at the entries costs time) with NaN or
    infinite entries. The message calls the argument `name` and what it should be `expected`.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__ + _way_out(tensor)
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    if tensor.ndim < at_least or (at_most is not None and tensor.ndim > at_most) or tensor.numel() == 0:
        raise ValueError(f"{name} must be {expected} with at least one entry, got {tuple(tensor.shape)}")
    if finite and (tensor.is_meta or tensor.layout != torch.strided):
        raise TypeError(f"{name} must be a dense tensor with data, got {tensor.layout} on {tensor.device}")
    if finite and not torch.isfinite(tensor).all():
        bad = f"{int(tensor.isnan().sum())} NaN and {int(tensor.isinf().sum())} infinite values"
        raise ValueError(f"{name} must be finite, but it contains {bad}")


def _way_out(value: object) -> str:
    if isinstance(getattr(value, "images", None), Tensor):
        return ", images with their labels: hand over its .images"
    if isinstance(value, (DataLoader, Dataset)):
        return ": join its images to one tensor (torch.cat, torch.stack)"
    return ": torch.from_numpy makes a tensor of it" if hasattr(value, "__array__") else ""


def require_whole(value: object, name: str, at_least: int = 1) -> int:
    """`value` as an int, whether Python's or numpy's; ValueError for anything else, a truth value too, and if too small."""
    whole = hasattr(value, "__index__") and not isinstance(value, (bool, Tensor)) and type(value).__name__ != "bool_"
    if not whole or value.__index__() < at_least:
        raise ValueError(f"{name} must be a whole number, {at_least} or more, got {value!r}")
    return value.__index__()


def require_bool(value: object, name: str) -> None:
    """Raise ValueError unless `value` is True or False: a word such as "no" would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def require_counts(**counts: int | None) -> None:
    """Raise ValueError unless each of the arguments, by its name, is None or a whole number of 1 or more."""
    for name, count in counts.items():
        if count is not None:
            require_whole(count, name)


def require_range(images: Tensor, name: str = "images") -> None:
    """Raise ValueError, naming the range found, unless all values lie in [-1, 1], give or take 0.001 for rounding."""
    low, high = (float(end) for end in images.detach().aminmax())
    if not -1.001 <= low <= high <= 1.001:  # NaN fails as well
        raise ValueError(f"{name} must be finite numbers in [-1, 1], got values from {low:.4g} to {high:.4g}")


def require_matrix(weight: Tensor, name: str = "weight") -> None:
    """Raise TypeError or ValueError unless `weight` is a finite, non-empty matrix, float32 or float64 (LAPACK's types)."""
    require_tensor(weight, name, "a matrix (d_out x d_in)", 2, 2)
    if weight.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32 or float64, got {weight.dtype}: convert it with .float()")


def require_eps(eps: float) -> None:
    """Raise ValueError unless `eps` is a number, finite and not negative."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be a number, 0 or more and finite, got {eps!r}")


def require_no_hook(module: nn.Module, name: str) -> None:
    """Raise ValueError if `module.<name>` is computed by a hook before each pass, as older normalizations and pruning do."""
    if sources := [n for n, _ in module.named_parameters(recurse=False) if n in (f"{name}_orig", f"{name}_g")]:
        raise ValueError(
            f"{name} of {type(module).__name__} is computed by a hook from {sources[0]} (an older normalization, or pruning): "
            "remove it first (torch.nn.utils.remove_spectral_norm, remove_weight_norm, prune.remove)"
        )


def require_weight(module: nn.Module, name: str, dim: int) -> tuple[Tensor, int]:
    """Return `module.<name>` and its axis `dim`, counted from 0.

    Raises TypeError or ValueError unless the weight is a plain one, a finite floating-point tensor with entries that
    nothing computes from others, and has that axis.
    """
    if parametrize.is_parametrized(module, name):
        there = ", ".join(type(part).__name__ for part in module.parametrizations[name])
        raise ValueError(
            f"{name} of {type(module).__name__} is already normalized or parametrized ({there}), and a second layer on top "
            "would be another method: make the network anew, or remove the first one with "
            f"torch.nn.utils.parametrize.remove_parametrizations(module, {name!r})"
        )
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no parameter or buffer named {name!r} to normalize")
    require_no_hook(module, name)
    require_tensor(weight, name, "a weight", 0)
    if isinstance(dim, bool) or not hasattr(dim, "__index__") or not -weight.ndim <= dim < weight.ndim:
        raise ValueError(f"dim must be an axis of {name}, whose shape is {tuple(weight.shape)}, got {dim!r}")
    return weight, dim.__index__() % weight.ndim


def require_kernel(weight: Tensor, input_size: tuple[int, int], padding=0, stride=1) -> None:
    """Raise TypeError or ValueError unless `weight` is a 2-D convolution's that fits into images of `input_size`."""
    require_tensor(weight, "weight", "the weight of a 2-D convolution, (d_out, d_in, k, k),", 4, 4)
    require_matrix(weight.flatten(1))
    pads, strides = ((n, n) if isinstance(n, int) else n for n in (padding, stride))
    for name, pair, least in (("input_size", input_size, 1), ("padding", pads, 0), ("stride", strides, 1)):
        numbers = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
        if not numbers or min(pair) < least:
            raise ValueError(f"{name} must be (height, width), whole numbers of at least {least}, got {pair!r}")
    if any(k > n + 2 * p for k, n, p in zip(weight.shape[2:], input_size, pads)):
        raise ValueError(f"the kernel {tuple(weight.shape[2:])} must fit into {input_size} with padding {padding}")


def require_input(x: Tensor, *expected: int | str) -> None:
    """Raise TypeError or ValueError unless `x` is a non-empty batch (batch, *expected); a word stands for any number."""
    shape = f"a batch (batch, {', '.join(map(str, expected))})"
    require_tensor(x, "the network's input", shape, len(expected) + 1, len(expected) + 1, finite=False)
    if any(isinstance(n, int) and n != m for n, m in zip(expected, x.shape[1:])):
        raise ValueError(f"the network's input must be {shape}, got {tuple(x.shape)}")


def require_batch(x: Tensor, name: str = "x") -> None:
    """Raise TypeError or ValueError unless `x` is a non-empty, finite batch of floating-point numbers, (batch, ...)."""
    require_tensor(x, name, "a batch (batch, ...)", 2)


def require_images(images: Tensor) -> None:
    """Raise TypeError or ValueError unless `images` are a batch (N, channels, size, size) in [-1, 1]."""
    require_tensor(images, "images", "a batch (N, channels, size, size)", 4, 4)
    require_range(images)


def require_scores(*scores: Tensor) -> None:
    """Raise ValueError if a batch of scores is empty: it has no mean."""
    for batch in scores:
        if batch.numel() == 0:
            raise ValueError(f"the scores of a batch must not be empty, got shape {tuple(batch.shape)}")


def require_alike(**batches: Tensor) -> None:
    """Raise TypeError or ValueError unless the two batches (batch, ...) agree in shape, type and device."""
    for name, batch in batches.items():
        require_tensor(batch, name, "a batch (batch, ...)", 2, finite=False)
    if len({(batch.shape, batch.dtype, batch.device) for batch in batches.values()}) > 1:
        got = " and ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in batches.values())
        raise ValueError(f"{' and '.join(batches)} must agree in shape, type and device, got {got}")


def require_labelled(data: object) -> None:
    """Raise TypeError or ValueError unless `data` has images in [-1, 1] and for each a label, an int64 from 0 on."""
    images, labels = getattr(data, "images", None), getattr(data, "labels", None)
    if images is None or labels is None:
        raise TypeError(f"data must be Images, images with their labels, got {type(data).__name__}")
    require_images(images)
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor of torch.int64, got {type(labels).__name__}")
    if labels.shape != (len(images),) or labels.dtype != torch.int64:
        got = f"{len(images)} images and {len(labels) if labels.ndim else 'one'} labels of {labels.dtype}"
        raise ValueError(f"need one label of torch.int64 for each image, got {got}, shape {tuple(labels.shape)}")
    if labels.min() < 0:
        raise ValueError(f"labels must count from 0, got {int(labels.min())}: -1 stands for images without a label")


def require_features(features: Tensor, name: str) -> None:
    """Raise TypeError or ValueError unless `features` are finite numbers (N, d) with N at least 2."""
    require_tensor(features, name, "features (N, d)", 2, 2)
    if len(features) < 2:
        raise ValueError(f"{name} must be features (N, d) with N at least 2, got {tuple(features.shape)}")


def require_gaussians(**parameters: Tensor) -> None:
    """Raise TypeError or ValueError unless the arguments are mean, covariance, mean, covariance, all of one dimension."""
    for name, tensor in parameters.items():
        require_tensor(tensor, name, "a mean (d,) or a covariance (d, d)", 1, 2)
    shapes = [tuple(tensor.shape) for tensor in parameters.values()]
    d = shapes[0][0]
    if shapes != [(d,), (d, d)] * 2:
        raise ValueError(f"expected means of shape (d,) and covariances of shape (d, d), got {shapes}")
    for name, matrix in parameters.items():
        if matrix.ndim == 2:
            require_covariance(matrix.detach().double(), name)


def require_covariance(matrix: Tensor, name: str) -> None:
    """Raise ValueError unless `matrix` is symmetric with no negative eigenvalue, up to 1e-5 of its largest entry."""
    tolerance = 1e-5 * float(matrix.abs().max())
    off = float((matrix - matrix.mT).abs().max())
    if off > tolerance:
        raise ValueError(f"{name} must be a covariance, but it is not symmetric: C and C^T differ by up to {off:.4g}")
    shift = (tolerance or 1.0) * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    if torch.linalg.cholesky_ex(matrix + shift).info:  # exists if and only if no eigenvalue lies below -tolerance
        lowest = float(torch.linalg.eigvalsh(matrix)[0])
        raise ValueError(f"{name} must be a covariance, but it has a negative eigenvalue, {lowest:.4g}")
