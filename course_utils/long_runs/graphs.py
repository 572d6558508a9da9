"""Each update of the fast loop as one CUDA graph: recorded once, and from then on launched as a whole.

A small network keeps a GPU waiting for Python, which launches one operation after the other. A graph is all operations of an
update with the places of their numbers in memory: nothing in it may wait for the GPU or hang on a number there, and whatever
changes from one update to the next has a fixed place of its own. Not tried on a GPU so far: on a CPU, tests put a tape of
operations in the place of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from ..normalization import FusedSpectralNorm
from ..training import Updates
from .parallel import world_size

WARM_UP = 3  # updates before the recording: they make Adam's state, and let cuDNN choose its ways


class CudaGraph:
    """What `function` launches, recorded on `stream` but not carried out: `replay` does that, with what memory then holds.

    rng: the random generator that `function` draws from; it moves on with each replay as it would without the graph.
    """

    def __init__(
        self, function: Callable[[], object], rng: torch.Generator | None, stream: torch.cuda.Stream | None
    ) -> None:
        if stream is None:
            raise ValueError("a CUDA graph records what a GPU does, and this update is made on a CPU")
        self.graph = torch.cuda.CUDAGraph()
        if rng is not None:
            self.graph.register_generator_state(rng)
        with torch.cuda.graph(self.graph, stream=stream):
            self.result = function()

    def replay(self) -> object:
        """The result of `function`, in the tensors that the next replay will overwrite."""
        self.graph.replay()
        return self.result


class OneGraph:
    """`update_discriminator` or `update_generator`, recorded once for each optimizer, that is for each run, and each shape of batches.

    The first WARM_UP calls are made as ever, on the stream that records. Networks and the optimizer's state must stay where
    they are in memory: load a checkpoint before the first update. record: what makes the graph, CudaGraph or a test's own.
    """

    def __init__(self, update: Callable, record: Callable = CudaGraph) -> None:
        self.update, self.record = update, record
        self.calls: Counter = Counter()
        self.recorded: dict[tuple, tuple[object, list[Tensor], list[Tensor]]] = {}

    def __call__(self, *arguments: object) -> object:
        """What the update returns for these arguments, in tensors of its own."""
        batches = [part for part in arguments if isinstance(part, Tensor)]
        optimizer = next(part for part in arguments if isinstance(part, torch.optim.Optimizer))
        stream, key = side_stream(batches[0].device), (optimizer, *(batch.shape for batch in batches))
        self.calls[key] += 1
        if self.calls[key] <= WARM_UP:
            with beside(stream):
                return self.update(*arguments)
        if key not in self.recorded:
            self.recorded[key] = self.recording(arguments, optimizer, stream)
        graph, places, alphas = self.recorded[key]
        for place, batch in zip(places, batches):
            place.copy_(batch)
        for alpha, group in zip(alphas, optimizer.param_groups):
            alpha.fill_(group["lr"])
        result = graph.replay()
        return result.clone() if isinstance(result, Tensor) else tuple(value.clone() for value in result)

    def recording(
        self, arguments: tuple, optimizer: torch.optim.Optimizer, stream: torch.cuda.Stream | None
    ) -> tuple[object, list[Tensor], list[Tensor]]:
        """The graph, and the places that it reads: copies of the batches, and alpha of each group of parameters."""
        require_no_waiting([part for part in arguments if isinstance(part, nn.Module)])
        own = [part.clone() if isinstance(part, Tensor) else part for part in arguments]
        alphas = [group["params"][0].new_full((), group["lr"]) for group in optimizer.param_groups]
        rng = next((part for part in arguments if isinstance(part, torch.Generator)), None)

        def update() -> object:
            with alpha_from(alphas, optimizer):
                return self.update(*own)

        optimizer.zero_grad()  # gradients are to be made anew, in the graph's memory
        return self.record(update, rng, stream), [part for part in own if isinstance(part, Tensor)], alphas


@contextmanager
def alpha_from(alphas: list[Tensor], optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let Adam read each group's alpha from a tensor; afterwards the groups are what they were, and so are checkpoints."""
    before = [(group["lr"], group["capturable"]) for group in optimizer.param_groups]
    try:
        for group, alpha in zip(optimizer.param_groups, alphas):
            group["lr"], group["capturable"] = alpha, alpha.is_cuda
        yield
    finally:
        for group, (alpha, capturable) in zip(optimizer.param_groups, before):
            group["lr"], group["capturable"] = alpha, capturable


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The stream of a GPU on which updates are warmed up and recorded; None for a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@contextmanager
def beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work on `stream`, after all that was launched so far, and before all that will be."""
    if stream is None:
        yield
        return
    present = torch.cuda.current_stream(stream.device)
    stream.wait_stream(present)
    with torch.cuda.stream(stream):
        yield
    present.wait_stream(stream)


def require_no_waiting(networks: list[nn.Module]) -> None:
    """Raise ValueError for a layer under SN whose round looks at numbers: `Together` (fast.py) did not take it."""
    for name, module in (pair for network in networks for pair in network.named_modules()):
        if isinstance(module, FusedSpectralNorm) and hasattr(module, "_u") and not getattr(module, "together", None):
            raise ValueError(
                f"layer {name.split('.parametrizations')[0]} is normalized by itself (n_power_iterations "
                f"{module.n_power_iterations}, eps {module.eps:g}) and waits for the GPU, which a CUDA graph cannot do; expected "
                "are layers that the fast loop normalizes together: one round each, and all with the same eps and type"
            )


def graphed(updates: Updates, device: torch.device | str) -> Updates:
    """`updates`, such as `fast_updates` returns, as CUDA graphs on `device`. A run resumes only with the loop it began with.

    Raises ValueError with several processes, for compiled networks, and where there is no GPU.
    """
    if world_size() > 1:
        raise ValueError(f"CUDA graphs are for a single process, and here are {world_size()}: start without torchrun")
    if "compiled" in updates.name:
        raise ValueError(f"CUDA graphs are for networks that are not compiled, got the {updates.name}")
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        raise ValueError(
            f"CUDA graphs need a GPU: the device is {device}, and torch sees {torch.cuda.device_count()} GPUs"
        )
    return Updates(OneGraph(updates.discriminator), OneGraph(updates.generator), f"{updates.name} as CUDA graphs")
