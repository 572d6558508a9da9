"""What each method costs: ``python -m course_utils benchmark`` (the paper's Figure 10, on this machine).

Everything is measured side by side in one run: the candidates take turns, one update of D and one of G each, so that
whatever disturbs the machine disturbs all of them. Shown are medians, as images per second (real ones, through D).
``--layers`` compares the versions of SN instead: a training step of single networks, and what a GPU would have to launch.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..environment import PROFILES, environment_report, profile
from ..methods import METHODS
from ..models import ResNetDiscriminator, cnn_discriminator, sample_noise
from ..normalization import fuse, spectral_norm
from ..records import RunError
from ..spectral import linear_layers
from ..training import ARCHITECTURES, PLAIN, Config, Run, Updates
from .command_line import place, positive
from .fast import PreparedSpectralNorm, Together, fast_updates
from .files import written_whole
from .graphs import WARM_UP, graphed

TORCHS = "spectral_norm, torch's"
FUSED = "spectral_norm, fused"
COMPILED = "spectral_norm, bfloat16, compiled"
GRAPHS = ("none, bfloat16, graphs", "spectral_norm, bfloat16, graphs")
FOR_GPUS = (COMPILED, *GRAPHS)  # left out where they fail; their operations are not dispatched one by one, nor counted


class Candidate:
    """One way to train, ready to make an iteration: an update of D and one of G."""

    def __init__(
        self, config: Config, real: Tensor, updates: Updates = PLAIN, torchs: bool = False, fused: bool = False
    ) -> None:
        self.config, self.real, self.updates, self.seconds = config, real, updates, []
        self.run = Run.start(config, real.device)
        if fused:
            fuse(self.run.discriminator)
        if torchs:  # the same weights under torch's own spectral_norm
            for layer in linear_layers(self.run.discriminator):
                torch_spectral_norm(layer)
            self.run.adam_d = torch.optim.Adam(self.run.discriminator.parameters(), **self.run.adam_d.defaults)

    def iterate(self) -> None:
        """One update of each network."""
        run, updates = self.run, self.updates
        z = [sample_noise(len(self.real), self.config.d_z, run.rng) for _ in range(2)]
        updates.discriminator(self.config, run.generator, run.discriminator, run.adam_d, self.real, z[0], run.rng)
        updates.generator(self.config, run.generator, run.discriminator, run.adam_g, z[1])

    def measure(self, repeats: int) -> None:
        """Time `repeats` iterations and keep the seconds of one."""
        wait(self.real)
        start = time.perf_counter()
        for _ in range(repeats):
            self.iterate()
        wait(self.real)
        self.seconds.append((time.perf_counter() - start) / repeats)

    def operations(self) -> int:
        """How many operations an iteration dispatches, Adam's step counted as one, as it is on a GPU."""
        for group in (*self.run.adam_d.param_groups, *self.run.adam_g.param_groups):
            group["fused"] = True
        self.iterate()  # the state of Adam is made in the first step
        return operations(self.iterate)

    @property
    def images_per_second(self) -> float:
        """Median over the rounds."""
        return len(self.real) / statistics.median(self.seconds)


class _Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 (torch's signature)
        self.count += not operation.is_view and "empty" not in operation.name()
        return operation(*args, **(kwargs or {}))


def operations(function: Callable[[], object]) -> int:
    """How many operations a call dispatches, those left out that touch no number (views, empty tensors).

    About the number of kernels that a GPU would have to launch.
    """
    with _Operations() as mode:
        function()
    return mode.count


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, without the input and what the model holds anyway."""
    own = {t.untyped_storage().data_ptr() for t in (x, *model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(x)
    return sum(kept.values()) if output.requires_grad else 0


def wait(tensor: Tensor) -> None:
    """Let a GPU finish what it was asked for."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def candidates(config: dict, real: Tensor) -> dict[str, Candidate]:
    """Every method in the plain loop, SN by torch and fused, and no normalization and SN in the fast loop, by name."""
    made = {method: Candidate(Config(method=method, **config), real) for method in METHODS}
    none, sn = (Config(method=method, **config) for method in ("none", "spectral_norm"))
    made[TORCHS] = Candidate(none, real, torchs=True)
    made[FUSED] = Candidate(sn, real, fused=True)
    for name, one in (("none", none), ("spectral_norm", sn)):
        made[f"{name}, one pass"] = Candidate(one, real, fast_updates(one, "float32"))
        made[f"{name}, bfloat16"] = Candidate(one, real, fast_updates(one, "bfloat16"))
    if real.is_cuda:  # compiling for a CPU takes minutes and gains little
        made[COMPILED] = Candidate(sn, real, fast_updates(sn, "bfloat16", compiled=True))
        for name, one in zip(GRAPHS, (none, sn)):
            made[name] = Candidate(one, real, graphed(fast_updates(one, "bfloat16"), real.device))
    return made


def ceiling(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """Floating-point operations per second of a large bfloat16 matrix product: what this GPU can do at best."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    wait(a)
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    wait(a)
    return 2 * size**3 * repeats / (time.perf_counter() - start)


def benchmark(config: dict, device: str, rounds: int, repeats: int) -> dict:
    """Measure all candidates of a configuration; a dictionary with the environment, ready to be written as JSON."""
    size, channels = config["size"], config["channels"]
    noise = torch.Generator().manual_seed(0)
    real = torch.randn(config["batch_size"], channels, size, size, generator=noise).tanh().to(device)
    made = candidates(config, real)
    for name, candidate in list(made.items()):  # compilation, recording, and the first calls, are not counted
        try:
            for _ in range(WARM_UP + 2):  # a graph is recorded in the last but one
                candidate.iterate()
        except RuntimeError as error:
            if name not in FOR_GPUS:
                raise
            print(
                f"left out: {name}, which cannot be made here ({' '.join(str(error).splitlines()[:2])})",
                flush=True,
            )
            del made[name]
    for _ in range(rounds):
        for candidate in made.values():
            candidate.measure(repeats)
    speeds = {name: round(candidate.images_per_second, 1) for name, candidate in made.items()}
    ratios = {
        name: [round(t / s, 3) for t, s in zip(candidate.seconds, made["none"].seconds)]
        for name, candidate in made.items()
    }
    result = {
        "configuration": config, "environment": environment_report(), "images_per_second": speeds,
        "time_over_none": {name: sorted(values)[len(values) // 2] for name, values in ratios.items()},
        "time_over_none_range": {name: [min(values), max(values)] for name, values in ratios.items()},
        "rounds": rounds, "repeats": repeats,
        "operations": {name: candidate.operations() for name, candidate in made.items() if name not in FOR_GPUS},
    }  # fmt: skip
    if real.is_cuda:
        fast = fastest(speeds)
        with FlopCounterMode(display=False) as counter:
            made["spectral_norm"].iterate()
        result["ceiling_flops"] = ceiling(real.device)
        rate = counter.get_total_flops() / statistics.median(made[fast].seconds)
        result["fraction_of_ceiling"], result["fastest"] = rate / result["ceiling_flops"], fast
        result["float32_convolutions_in_tf32"] = torch.backends.cudnn.allow_tf32
    return result


def fastest(speeds: dict[str, float]) -> str:
    """The name of the fastest of our loops for SN."""
    ours = {name: speed for name, speed in speeds.items() if name.startswith("spectral_norm") and name != TORCHS}
    return max(ours, key=ours.get)


def report(result: dict) -> str:
    """The table that the command prints."""
    heads = f"{'':34s}{'images/s':>10s}{'operations':>12s}{'time / none':>13s}"
    lines = [f"{heads}   (smallest to largest of {result['rounds']} rounds)"]
    for name, speed in result["images_per_second"].items():
        low, high = result["time_over_none_range"][name]
        count = result["operations"].get(name, "")
        time_over_none = f"{result['time_over_none'][name]:13.2f}   ({low:.2f} to {high:.2f})"
        lines.append(f"{name:34s}{speed:10.0f}{count:12}{time_over_none}")
    speeds = result["images_per_second"]
    lines.append(f"SN from scratch, time over torch's: {speeds[TORCHS] / speeds['spectral_norm']:.3f}")
    best = speeds[fastest(speeds)]
    lines.append(
        f"fastest loop for SN over the plain eager float32 loop: {best / speeds['spectral_norm']:.2f} times the images per second"
    )
    if "fraction_of_ceiling" in result:
        share, top = result["fraction_of_ceiling"], result["ceiling_flops"]
        lines.append(
            f"{result['fastest']}: {share:.1%} of the {top / 1e12:.0f} TFLOP/s of a large bfloat16 matrix product"
        )
    return "\n".join(lines)


class Normalized(nn.Module):
    """A network whose layers are normalized all together before each pass, as in the fast loop."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.together = network, Together(fuse(network, PreparedSpectralNorm))

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for x."""
        with self.together:
            return self.network(x)


def normalized(model: nn.Module, version: str) -> nn.Module:
    """A copy of `model` with one of the versions of SN: "none", "torch's", "from scratch", "fused" or "together"."""
    model = copy.deepcopy(model)
    for layer in linear_layers(model) if version != "none" else ():
        torch_spectral_norm(layer) if version == "torch's" else spectral_norm(layer)
    return Normalized(model) if version == "together" else fuse(model) if version == "fused" else model


VERSIONS = ("none", "torch's", "from scratch", "fused", "together")
BATCH = 64
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {  # and the shape of one input
    "dense 4608 -> 512": (lambda: nn.Sequential(nn.Linear(4608, 512)), (4608,)),
    "MLP 1024-1024-1": (
        lambda: nn.Sequential(nn.Linear(1024, 1024), nn.LeakyReLU(0.1), nn.Linear(1024, 1)),
        (1024,),
    ),
    "CNN, 16 pixels, width 16": (partial(cnn_discriminator, 16, 1, 16), (1, 16, 16)),
    "CNN, 32 pixels, width 64": (partial(cnn_discriminator, 32, 3, 64), (3, 32, 32)),
    "ResNet, 32 pixels, width 64": (partial(ResNetDiscriminator, 3, 64), (3, 32, 32)),
}


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A forward pass, a backward pass and a step of SGD."""
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        sgd.zero_grad()
        model(x).mean().backward()
        sgd.step()

    return step


def benchmark_layers(rounds: int, device: str = "cpu") -> dict:
    """Time, memory and operations of the VERSIONS, side by side; a dictionary with the environment.

    time_over_none: of a training step, the median, smallest and largest of `rounds` turns; overhead_over_torchs: what the
    median step takes longer than without SN, over what torch's does (each turn repeats the step for about a tenth of a
    second, or makes it once); kept_megabytes: for the backward pass; operations: of a
    step, and of an iteration (an update of D and one of G) of the CNN and the ResNet, with Adam's step counted as one.
    """
    result = {"environment": environment_report(), "rounds": rounds, "batch_size": BATCH, "steps": {}, "iterations": {}}
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        base, x = make().to(device), torch.randn(BATCH, *shape).to(device)
        models = {version: normalized(base, version) for version in VERSIONS}
        steps, seconds = {v: training_step(model, x) for v, model in models.items()}, {v: [] for v in VERSIONS}
        repeats = 1
        for turn in range(-2, rounds):
            for version, step in steps.items():
                wait(x)
                start = time.perf_counter()
                for _ in range(repeats):
                    step()
                wait(x)
                seconds[version].append((time.perf_counter() - start) / repeats)
            if turn < 0:  # the first two only warm up, and say how many steps a turn needs to last a tenth of a second
                repeats = max(1, round(0.1 / seconds["none"][-1]))
                seconds = {version: [] for version in VERSIONS}
        ratios = {v: sorted(a / b for a, b in zip(times, seconds["none"])) for v, times in seconds.items()}
        medians = {v: statistics.median(times) for v, times in seconds.items()}
        more = {v: median - medians["none"] for v, median in medians.items()}
        result["steps"][name] = {
            "milliseconds": {v: round(1e3 * median, 3) for v, median in medians.items()},
            "time_over_none": {v: [round(f(r), 3) for f in (statistics.median, min, max)] for v, r in ratios.items()},
            "overhead_over_torchs": {v: round(more[v] / more["torch's"], 3) for v in VERSIONS[1:]},
            "kept_megabytes": {v: round(kept_bytes(model, x) / 1e6, 6) for v, model in models.items()},
            "operations": {v: operations(step) for v, step in steps.items()},
        }  # fmt: skip
        print(layers_report(name, result["steps"][name]), flush=True)
    for architecture in ("cnn", "resnet"):
        config = {"architecture": architecture, "size": 32, "channels": 3, "width": 8, "batch_size": 4}
        made = candidates(config, torch.randn(4, 3, 32, 32).tanh().to(device))
        names = [name for name in made if name.startswith(("none", "spectral_norm")) and name not in FOR_GPUS]
        result["iterations"][architecture] = {name: made[name].operations() for name in names}
        print(f"operations of an iteration, {architecture}: {result['iterations'][architecture]}", flush=True)
    return result


def layers_report(name: str, step: dict) -> str:
    """The table of one network."""
    lines = [f"{name:28s}{'ms':>9s}{'/ none':>9s}{'range':>16s}{'overhead':>10s}{'MB kept':>9s}{'operations':>12s}"]
    for version, (middle, low, high) in step["time_over_none"].items():
        overhead = step["overhead_over_torchs"].get(version, "")
        row = f"  {version:26s}{step['milliseconds'][version]:9.2f}{middle:9.2f}{f'{low:.2f} to {high:.2f}':>16s}"
        lines.append(f"{row}{overhead:>10}{step['kept_megabytes'][version]:9.2f}{step['operations'][version]:12d}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the result if asked to."""
    here = profile()
    p = argparse.ArgumentParser(prog="python -m course_utils benchmark", description=__doc__)
    p.add_argument("--profile", choices=PROFILES, default=here.name, help="sizes (default: %(default)s)")
    p.add_argument("--architecture", choices=ARCHITECTURES, default="cnn")
    for name in ("size", "width", "batch-size", "channels"):
        p.add_argument(f"--{name}", type=positive, help="default: the profile's")
    p.add_argument("--layers", action="store_true", help="compare the versions of SN in single networks")
    p.add_argument("--rounds", type=positive, default=15, help="of turns (default: %(default)s)")
    p.add_argument("--repeats", type=positive, default=2, help="iterations in each turn (default: %(default)s)")
    p.add_argument("--output", type=place, help="a JSON file for the result")
    o = p.parse_args(arguments)
    sizes = PROFILES[o.profile]
    config = {
        "architecture": o.architecture, "size": o.size or sizes.size, "width": o.width or sizes.width_of(o.architecture),
        "batch_size": o.batch_size or sizes.batch_size, "channels": o.channels or (1 if sizes.device == "cpu" else 3),
    }  # fmt: skip
    try:
        Config(**config)
    except ValueError as error:
        p.error(str(error))
    print(
        f"{'the versions of SN' if o.layers else config} on {environment_report()['device']}, torch {torch.__version__}",
        flush=True,
    )
    torch.backends.cudnn.benchmark = True  # shapes never change: let cuDNN try which of its ways is fastest
    device = "cuda" if torch.cuda.is_available() and o.profile == "gpu" else "cpu"
    if o.layers:
        result = benchmark_layers(o.rounds, device)
    else:
        result = benchmark(config, device, o.rounds, o.repeats)
        print(report(result))
    if o.output:
        try:
            with written_whole(o.output) as file:
                file.write(json.dumps(result, indent=1).encode())
        except RunError as error:
            p.exit(1, f"error: {error}\n")
