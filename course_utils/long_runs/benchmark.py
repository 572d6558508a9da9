"""What each method costs: ``python -m course_utils benchmark`` (the paper's Figure 10, on this machine).

Everything is measured side by side in one run: the candidates take turns, one update of D and one of G each, so that
whatever disturbs the machine disturbs all of them. Shown are medians, as images per second (real ones, through D).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm
from torch.utils.flop_counter import FlopCounterMode

from ..environment import PROFILES, environment_report, profile
from ..methods import METHODS
from ..models import sample_noise
from ..records import RunError
from ..spectral import linear_layers
from ..training import ARCHITECTURES, PLAIN, Config, Run, Updates
from .command_line import place, positive
from .fast import fast_updates
from .files import written_whole

TORCHS = "spectral_norm, torch's"
COMPILED = "spectral_norm, bfloat16, compiled"


class Candidate:
    """One way to train, ready to make an iteration: an update of D and one of G."""

    def __init__(self, config: Config, real: Tensor, updates: Updates = PLAIN, torchs: bool = False) -> None:
        self.config, self.real, self.updates, self.seconds = config, real, updates, []
        self.run = Run.start(config, real.device)
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

    @property
    def images_per_second(self) -> float:
        """Median over the rounds."""
        return len(self.real) / statistics.median(self.seconds)


def wait(tensor: Tensor) -> None:
    """Let a GPU finish what it was asked for."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def candidates(config: dict, real: Tensor) -> dict[str, Candidate]:
    """Every method in the plain loop, SN by torch, and SN in the fast loop, by name."""
    made = {method: Candidate(Config(method=method, **config), real) for method in METHODS}
    made[TORCHS] = Candidate(Config(method="none", **config), real, torchs=True)
    sn = Config(method="spectral_norm", **config)
    made["spectral_norm, one pass"] = Candidate(sn, real, fast_updates(sn, "float32"))
    made["spectral_norm, bfloat16"] = Candidate(sn, real, fast_updates(sn, "bfloat16"))
    if real.is_cuda:  # compiling for a CPU takes minutes and gains little
        made[COMPILED] = Candidate(sn, real, fast_updates(sn, "bfloat16", compiled=True))
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
    for name, candidate in list(made.items()):  # compilation, and the first calls, are not counted
        try:
            for _ in range(5):
                candidate.iterate()
        except RuntimeError as error:
            if name != COMPILED:
                raise
            print(
                f"left out: {name}, since nothing can be compiled here ({' '.join(str(error).splitlines()[:2])})",
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
    lines = [f"{'':34s}{'images/s':>10s}{'time / none':>13s}   (smallest to largest of {result['rounds']} rounds)"]
    for name, speed in result["images_per_second"].items():
        low, high = result["time_over_none_range"][name]
        lines.append(f"{name:34s}{speed:10.0f}{result['time_over_none'][name]:13.2f}   ({low:.2f} to {high:.2f})")
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the result if asked to."""
    here = profile()
    p = argparse.ArgumentParser(prog="python -m course_utils benchmark", description=__doc__)
    p.add_argument("--profile", choices=PROFILES, default=here.name, help="sizes (default: %(default)s)")
    p.add_argument("--architecture", choices=ARCHITECTURES, default="cnn")
    for name in ("size", "width", "batch-size", "channels"):
        p.add_argument(f"--{name}", type=positive, help="default: the profile's")
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
    print(f"{config} on {environment_report()['device']}, torch {torch.__version__}", flush=True)
    torch.backends.cudnn.benchmark = True  # shapes never change: let cuDNN try which of its ways is fastest
    result = benchmark(
        config, "cuda" if torch.cuda.is_available() and o.profile == "gpu" else "cpu", o.rounds, o.repeats
    )
    print(report(result))
    if o.output:
        try:
            with written_whole(o.output) as file:
                file.write(json.dumps(result, indent=1).encode())
        except RunError as error:
            p.exit(1, f"error: {error}\n")
