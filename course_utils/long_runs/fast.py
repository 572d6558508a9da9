"""The same two updates, faster on a GPU: one pass over real and generated images, low precision, compilation.

``train(config, images, updates=fast_updates(config))`` is the loop of training.py with its networks wrapped. In float32
the result agrees with the plain one up to rounding (a test compares them). sigma is always computed in float32:
products in low precision put it off by some tenths of a percent, in either direction (lecture 05).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..methods import METHODS, slope_penalty
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


class Fast(nn.Module):
    """A network in low precision and, if `compiled` is given, as that function of (parameters, input)."""

    def __init__(self, network: nn.Module, precision: str, compiled: Callable | None = None) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # what a GPU's convolutions prefer
        self.precision, self.compiled = precision, compiled

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for x, in float32."""
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        with parametrize.cached():
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
