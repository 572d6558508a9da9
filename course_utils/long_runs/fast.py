"""The same two updates, faster on a GPU: one pass over real and generated images, low precision, compilation.

``train(config, images, updates=fast_updates(config))`` is the loop of training.py with its networks wrapped. In float32
the result agrees with the plain one up to rounding (a test compares them). sigma is always computed in float32:
products in low precision put it off by some tenths of a percent, in either direction (lecture 05). SN layers become
FusedSpectralNorm, and their rounds are made for all layers together; state_dicts stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..methods import METHODS, slope_penalty
from ..normalization import DivisionBySigma, FusedSpectralNorm, fuse
from ..spectral import least_norm, own_precision
from ..training import Config, Updates, build_models, two_passes, update_discriminator, update_generator
from .parallel import world_size

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def used_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Weights as they are used, biases and buffers, by the names that the network has without normalization."""
    found = {}
    for prefix, module in network.named_modules():
        if "parametrizations" not in prefix:
            if parametrize.is_parametrized(module):
                found[f"{prefix}.weight"] = module.weight
            for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                found[f"{prefix}.{name}"] = value
    return found


class PreparedSpectralNorm(FusedSpectralNorm):
    """FusedSpectralNorm that lets `Together`, while that is at work, normalize its weight with all others."""

    together: Together | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Return weight / sigma(weight), of the same shape."""
        together = self.together
        return together.weight_of(self) if together and together.at_work else super().forward(weight)


class Together:
    """The rounds of power iteration of all SN layers of a network, with few operations and without waiting for a GPU.

    Only the products with the weights are made layer by layer. The vectors lie in the rows of a matrix, filled up with
    zeros, so that all lengths are found at once; their entries have the order in which the weights lie in memory.
    ``with together:`` the weights may be used, each once; the round is made when the first is asked for, and so not at
    all if `parametrize.cached` has them still.
    """

    def __init__(self, network: nn.Module) -> None:
        self.at_work, self.made = False, {}
        lists = [m for m in network.modules() if isinstance(m, parametrize.ParametrizationList)]
        parts = [(m[0], m.original) for m in lists if isinstance(m[0], PreparedSpectralNorm) and m.original.ndim > 1]
        kinds = [(part.n_power_iterations, part.eps, weight.dtype, weight.device) for part, weight in parts]
        self.layers = [layer for layer, kind in zip(parts, kinds) if kind == (1, *kinds[0][1:])]  # others: one by one
        if not self.layers:
            return
        self.axes, order, start = [], [], 0
        for part, weight in self.layers:
            part.together = self
            rest = [axis for axis in range(weight.ndim) if axis != part.dim]
            by_memory = sorted(rest, key=lambda axis: (-weight.stride(axis), -weight.shape[axis]))
            self.axes.append((part.dim, *by_memory))
            entries = torch.arange(start, start := start + len(part._v)).view([weight.shape[axis] for axis in rest])
            order.append(entries.permute([rest.index(axis) for axis in by_memory]).flatten())
        self.shapes = [(len(part._u), len(part._v)) for part, _ in self.layers]
        rows, columns = (max(sizes) for sizes in zip(*self.shapes))
        # where the entries of the matrix stand in all v one behind the other, with a zero as the last; and the way back
        self.there = nn.utils.rnn.pad_sequence(order, batch_first=True, padding_value=start).to(weight.device)
        place = torch.cat([columns * i + torch.arange(n) for i, (_, n) in enumerate(self.shapes)])
        self.back = torch.empty_like(place).index_copy(0, torch.cat(order), place).to(weight.device)
        self.zero, self.w_u, self.w_v = (
            weight.new_zeros(*size) for size in ((1,), self.there.shape, (len(order), rows))
        )

    def __enter__(self) -> None:
        self.at_work, self.made = all(part.training for part, _ in self.layers), {}

    def __exit__(self, *error: object) -> None:
        self.at_work, self.made = False, {}

    def weight_of(self, part: PreparedSpectralNorm) -> Tensor:
        """The normalized weight of one of the layers, once for each round."""
        if part not in self.made:
            self.normalize()
        return self.made.pop(part)

    def normalize(self) -> None:
        """Make a round in each layer, as FusedSpectralNorm does, and keep the normalized weights."""
        parts = [part for part, _ in self.layers]
        laid = [weight.permute(axes) for (_, weight), axes in zip(self.layers, self.axes)]  # d_out first, as in memory
        with own_precision(self.zero), torch.no_grad():
            least, matrices = least_norm(parts[0].eps, self.zero.dtype), [weight.detach().flatten(1) for weight in laid]
            v = torch.cat([*(part._v for part in parts), self.zero])[self.there]
            for matrix, row, out, (m, n) in zip(matrices, v, self.w_v, self.shapes):
                torch.mv(matrix, row[:n], out=out[:m])
            first = torch.linalg.vector_norm(self.w_v, dim=1, keepdim=True)
            u = self.w_v / first.clamp_min(least)
            for matrix, row, out, (m, n) in zip(matrices, u, self.w_u, self.shapes):
                torch.mv(matrix.mT, row[:m], out=out[:n])
            second = torch.linalg.vector_norm(self.w_u, dim=1, keepdim=True)
            norm = torch.addcmul(second, first, second, value=0)  # + 0 first second: NaN where one of them overflows
            v = torch.where(norm > least, self.w_u / norm, v)
            sigma = torch.threshold(norm, least, 1.0)[:, 0]  # 1 for a zero matrix
            shown = [row[:m] for row, (m, _) in zip(torch.add(u, norm, alpha=0), self.shapes)]  # NaN where norm is NaN
            kept = v.flatten()[self.back].split([n for _, n in self.shapes])
            torch._foreach_copy_([*(part._u for part in parts), *(part._v for part in parts)], [*shown, *kept])
        found = zip(parts, laid, self.axes, self.shapes, sigma, u, v)
        for part, weight, axes, (m, n), sigma_of_layer, u_row, v_row in found:
            made = DivisionBySigma.apply(weight, sigma_of_layer, u_row[:m], v_row[:n], 0)
            self.made[part] = made.permute([axes.index(axis) for axis in range(weight.ndim)])


class Fast(nn.Module):
    """A network in low precision and, if `compiled` is given, as that function of (parameters, input)."""

    def __init__(self, network: nn.Module, precision: str, compiled: Callable | None = None) -> None:
        super().__init__()
        self.network = network
        if world_size() == 1:  # DistributedDataParallel mixes up gradients whose layout has changed since it was made
            network.to(memory_format=torch.channels_last)  # what a GPU's convolutions prefer
        self.precision, self.compiled = precision, compiled
        self.together = Together(fuse(self.network, PreparedSpectralNorm))

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for x, in float32."""
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        with parametrize.cached(), self.together:
            used = used_parameters(self.network)  # sigma in float32, before autocast; the cache hands it out below
            with torch.autocast(x.device.type, PRECISIONS[self.precision], enabled=self.precision != "float32"):
                return (self.compiled(used, x) if self.compiled else self.network(x)).float()


def one_pass(discriminator: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of both batches from one pass over their union."""
    return discriminator(torch.cat([real, fake])).split([len(real), len(fake)])


def fast_updates(config: Config, precision: str = "bfloat16", compiled: bool = False) -> Updates:
    """What `train(..., updates=...)` takes, in the place of the two plain updates.

    precision: of convolutions and products, "bfloat16" or "float32". compiled: let torch.compile fuse the networks; with
    a gradient penalty D stays as it is, since a compiled function has no second derivative. Batch norm in D keeps two
    passes: it must not mix real and generated images. Raises ValueError for another precision, and for compilation
    with several processes.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")
    if compiled and world_size() > 1:
        raise ValueError("compiled networks are for a single process: leave compilation out, or start without torchrun")
    method = "none" if METHODS[config.method].weight else config.method
    with torch.device("meta"):  # the networks without numbers and without normalization
        skeletons = build_models(replace(config, method=method)) if compiled else (None, None)
    if compiled:
        torch.compiler.reset()  # torch counts compilations over all runs of a process, and gives up, silently, after eight
    # shapes never change: without dynamic=False the second network would be compiled for any shape, which is slower
    calls = [torch.compile(_functional(skeleton), dynamic=False) if skeleton else None for skeleton in skeletons]
    if slope_penalty in config.penalties:
        calls[1] = None
    wrapped: dict[int, Fast] = {}

    def pair(*networks: nn.Module) -> list[Fast]:
        for network, call in zip(networks, calls):
            if id(network) not in wrapped:
                wrapped[id(network)] = Fast(network, precision, call)
        return [wrapped[id(network)] for network in networks]

    def step_d(config: Config, generator: nn.Module, discriminator: nn.Module, *rest: object) -> tuple:
        mixing = any(isinstance(module, nn.BatchNorm2d) for module in discriminator.modules())
        score = two_passes if mixing else one_pass
        return update_discriminator(config, *pair(generator, discriminator), *rest, score=score)

    def step_g(config: Config, generator: nn.Module, discriminator: nn.Module, *rest: object) -> Tensor:
        return update_generator(config, *pair(generator, discriminator), *rest)

    return Updates(step_d, step_g, f"fast {'compiled ' if compiled else ''}{precision} loop")


def _functional(skeleton: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda parameters, x: torch.func.functional_call(skeleton, parameters, (x,))
