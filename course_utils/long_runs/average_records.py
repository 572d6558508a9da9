"""Averaged generators: ``python -m course_utils average data/recorded_runs/average.json`` (three quarters of an hour of one core).

Setting D at lecture 05's small size: 1000 updates of G with three methods and three seeds, 5000 with two and two. Beside G
stand exponential moving averages of its weights with three decays; at ten looks each is judged like every recorded run, by
the Frechet distance of 2000 samples. What was expected stands in PLAN.md beside the record. A part that the file has is not
made again. Trained numbers differ a little between machines.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ..data import load_fashion_mnist
from ..environment import environment_report
from ..metrics import features_of, frechet_distance
from ..models import sample_noise
from ..records import Judge
from ..training import Config, Run, train
from .command_line import place
from .files import written_whole
from .record_plan import SMALL, the_judge
from .recording import commit

PARTS = {  # updates of G, methods, seeds
    "short": (1000, ("spectral_norm", "wgan_gp", "none"), (0, 1, 2)),
    "long": (5000, ("spectral_norm", "wgan_gp"), (0, 1)),
}
LOOKS = 10
DECAYS, OF_BUFFERS = (0.9, 0.99, 0.999), 0.99  # the decay that is tried with other buffers as well


def average_of(generator: nn.Module, decay: float, use_buffers: bool = False) -> AveragedModel:
    """An exponential moving average of `generator`; its first update copies, so it has no pull towards zero."""
    return AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)


@torch.no_grad()
def distance_of(generator: nn.Module, d_z: int, judge: Judge) -> float:
    """Frechet distance of the judge's number of samples, always from the same z, with batch norm in evaluation mode."""
    z = sample_noise(judge.n_samples, d_z, torch.Generator().manual_seed(1))
    samples = torch.cat([generator(part) for part in z.split(500)])
    return frechet_distance(judge.real_features, features_of(judge.classifier, samples))


def look(run: Run, averages: dict[str, AveragedModel], judge: Judge) -> dict[str, float]:
    """The distances of G, of its averages, and of the one with decay OF_BUFFERS under other buffers of batch norm.

    "recomputed": from 100 batches of noise, as update_bn does it; "initial": those of the start, as if forgotten.
    """
    networks = {"G": copy.deepcopy(run.generator)} | {name: copy.deepcopy(a.module) for name, a in averages.items()}
    fresh, initial = (copy.deepcopy(averages[f"{OF_BUFFERS:g}"].module) for _ in range(2))
    rng = torch.Generator().manual_seed(2)
    update_bn([sample_noise(run.config.batch_size, run.config.d_z, rng) for _ in range(100)], fresh)
    for module in initial.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    networks |= {"recomputed": fresh, "initial": initial}
    return {name: round(distance_of(network.eval(), run.config.d_z, judge), 3) for name, network in networks.items()}


def averaged_run(config: Config, images: Tensor, judge: Judge, looks: int = LOOKS) -> dict[str, list[float]]:
    """Train `config` with averages beside it; lists of distances, one entry for each of `looks` looks."""
    averages, found = {}, []

    def beside(step: int, run: Run) -> None:
        if step == 0:
            averages.update({f"{decay:g}": average_of(run.generator, decay) for decay in DECAYS})
            averages["buffers averaged"] = average_of(run.generator, OF_BUFFERS, use_buffers=True)
        else:
            for average in averages.values():
                average.update_parameters(run.generator)
            if step % (config.steps // looks) == 0:
                found.append(look(run, averages, judge))

    train(config, images, beside)
    return {name: [row[name] for row in found] for name in found[0]}


def make_part(name: str, images: Tensor, judge: Judge) -> dict:
    """Every run of a part, and what made it."""
    (steps, methods, seeds), made_by, begin = PARTS[name], commit(), time.process_time()
    config, runs = Config(setting="D", steps=steps, **SMALL), {}
    for seed in seeds:
        for method in methods:
            own = replace(config, method=method, seed=seed)
            found = runs[f"{method}-{seed}"] = averaged_run(own, images, judge)
            print(name, method, seed, {network: values[-1] for network, values in found.items()}, flush=True)
    return {
        "step": [steps * (k + 1) // LOOKS for k in range(LOOKS)], "decays": DECAYS, "runs": runs,
        "config": asdict(config) | {"method": methods, "seed": seeds}, "commit": made_by,
        "environment": environment_report(), "cpu_seconds": round(time.process_time() - begin),
        "command": "python -m course_utils average data/recorded_runs/average.json",
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the parts that are missing in the record named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m course_utils average", description=__doc__)
    parser.add_argument("file", type=place)
    file = parser.parse_args(arguments).file
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    data = load_fashion_mnist(16)
    judge = the_judge(data, file.with_name("judge.pt"))
    for name in PARTS:
        if name not in record:
            record[name] = make_part(name, data.images, judge)
            with written_whole(file) as whole:  # a kill leaves the parts that were there
                whole.write((json.dumps(record, indent=1) + "\n").encode())
