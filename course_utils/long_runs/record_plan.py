"""The recorded runs behind lecture 05: ``python -m course_utils record FOLDER`` (many hours; goes on where it was).

The first table's runs are short (`table`). For the others what is asked, what was expected before the first run, and how
a run is judged stand in data/recorded_runs/PLAN.md. Several processes may work on the same folder: each takes the next
run that nobody works on. A run that was killed goes on from its last checkpoint, or from its start on another machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..data import DATA_DIR, DataError, Images, load_fashion_mnist
from ..methods import METHODS
from ..models import SmallClassifier
from ..records import Judge, Record, RunError, load_record, make_judge
from ..training import SETTINGS, Config, Setting
from .checkpoint import read_checkpoint
from .command_line import place
from .files import FolderInUse, written_whole
from .folder import train_in_folder
from .recording import save_record

PRINCIPAL = ("none", "weight_norm", "orthonormal", "spectral_norm", "batch_norm", "wgan_gp")
SEEDS = (0, 1, 2)
LOOKS, LOOKS_OF_TABLE = 11, 6  # measurements of a run, first and last update included
SMALL = {"size": 16, "width": 8, "batch_size": 32}
BETAS = {"D": (0.5, 0.9), "F": (0.9, 0.999)}


def config_of(method: str, setting: str | Setting, width: int = SMALL["width"], **options: object) -> Config:
    """A configuration of the plan: what the method needs besides its name is chosen here, once.

    Clipping's bound shrinks with the width, so that c sqrt(d_in d_out) is the paper's (0.01 at width 64); orthonormal
    regularization starts from orthonormal weights, as in section 4.1 of the paper.
    """
    if method == "weight_clipping":
        options = {"c": 0.64 / width, **options}
    if method == "orthonormal":
        options = {"init": "orthogonal", **options}
    return Config(method, setting, **{**SMALL, "width": width, **options})


def table() -> dict[str, Config]:
    """Every method under every setting of Table 1, 1250 updates of D; SN and WN with other n_dis (the paper's Figure 11).

    These came first: names without a folder, two seeds, six looks, and the methods as they are by default.
    """
    runs = {}
    for seed in SEEDS[:2]:
        for name, setting in SETTINGS.items():
            for method in METHODS:
                runs[f"{method}-{name}-{seed}"] = Config(method, name, seed=seed, steps=1250 // setting.n_dis, **SMALL)
        for n_dis in (1, 2):  # setting D but for n_dis; the same number of updates of G as there
            for method in ("spectral_norm", "weight_norm"):
                own = Setting(1e-3, 0.5, 0.9, n_dis)
                runs[f"{method}-D_ndis{n_dis}-{seed}"] = Config(method, own, seed=seed, steps=250, **SMALL)
    return runs


def step_size(betas: str) -> dict[str, Config]:
    """Distance over alpha: the six principal methods with the betas of D or F."""
    return {
        f"step/{method}-{betas}_{alpha:g}-{seed}": config_of(
            method, Setting(alpha, *BETAS[betas], 5), seed=seed, steps=1000
        )
        for seed in SEEDS
        for alpha in (1e-3, 8e-3, 2.4e-2, 3e-3)
        for method in PRINCIPAL
    }


def length() -> dict[str, Config]:
    """5000 updates of G: the principal methods in C, D and F with three seeds first, then everything with two."""
    names = [(method, setting, seed) for seed in SEEDS for setting in "DFC" for method in PRINCIPAL]
    names += [(method, setting, seed) for seed in SEEDS[:2] for setting in SETTINGS for method in METHODS]
    return {f"length/{m}-{s}-{seed}": config_of(m, s, seed=seed, steps=5000) for m, s, seed in names}


def loss_and_constraint() -> dict[str, Config]:
    """{standard, Wasserstein} x {SN, penalty}, SN with the penalty (Table 7), and a larger step of one player alone."""
    fast_d, fast_g = Setting(2.4e-2, 0.5, 0.9, 5, alpha_g=1e-3), Setting(1e-3, 0.5, 0.9, 5, alpha_g=2.4e-2)
    variants = {
        "spectral_norm-wasserstein": config_of("spectral_norm", "D", loss="wasserstein"),
        "spectral_norm-wasserstein_penalty": config_of("spectral_norm", "D", loss="wasserstein", penalty=True),
        "gan_gp-standard": config_of("gan_gp", "D"),
        "spectral_norm-fast_d": config_of("spectral_norm", fast_d),
        "spectral_norm-fast_g": config_of("spectral_norm", fast_g),
        "wgan_gp-fast_d": config_of("wgan_gp", fast_d),
        "wgan_gp-fast_g": config_of("wgan_gp", fast_g),
    }
    return _with_seeds("loss", variants)


def controls() -> dict[str, Config]:
    """What else could explain a difference: clipping's c, the penalty's lambda, the initialization."""
    variants = {
        f"weight_clipping-{setting}_c0.01": config_of("weight_clipping", setting, c=0.01, adam_eps=1e-14)
        for setting in "DC"
    }
    variants |= {f"weight_clipping-{setting}": config_of("weight_clipping", setting) for setting in "DC"}
    for weight in (1e-3, 1e-1):
        variants[f"orthonormal-D_lambda{weight:g}"] = config_of("orthonormal", "D", lambda_ortho=weight)
    variants["orthonormal-D_init_torch"] = config_of("orthonormal", "D", init="torch")
    for init in ("normal", "glorot"):
        for method in ("none", "spectral_norm", "wgan_gp"):
            variants[f"{method}-D_init_{init}"] = config_of(method, "D", init=init)
    return _with_seeds("controls", variants)


def pictures() -> dict[str, Config]:
    """Four methods treated alike and gently, for pictures that can be compared; the generators of seed 0 are kept."""
    runs = {}
    for seed in SEEDS[:2]:
        for method in ("spectral_norm", "none", "wgan_gp", "weight_norm"):
            loss = "wasserstein" if method == "wgan_gp" else "hinge"
            runs[f"pictures/{method}-{seed}"] = config_of(
                method, "C", width=16, batch_size=64, loss=loss, steps=10_000, decay=True, seed=seed
            )
    return runs


def width() -> dict[str, Config]:
    """The same alpha in wider networks."""
    runs = {}
    for seed in SEEDS:
        for alpha in (1e-3, 8e-3):
            for method in ("none", "weight_norm", "spectral_norm", "wgan_gp"):
                runs[f"width/{method}-w32_{alpha:g}-{seed}"] = config_of(
                    method, Setting(alpha, *BETAS["D"], 5), width=32, seed=seed, steps=1000
                )
    for seed in SEEDS[:2]:
        for method in ("spectral_norm", "wgan_gp"):
            runs[f"width/{method}-w64_0.001-{seed}"] = config_of(method, "D", width=64, seed=seed, steps=600)
    return runs


def _with_seeds(folder: str, variants: dict[str, Config]) -> dict[str, Config]:
    return {
        f"{folder}/{name}-{seed}": replace(config, seed=seed, steps=1000)
        for seed in SEEDS
        for name, config in variants.items()
    }


def plan() -> dict[str, Config]:
    """Every run by the name of its record, in the order in which they are made."""
    early = {name: config for name, config in length().items() if name.endswith("-0")}
    parts = [table(), step_size("D"), early, loss_and_constraint(), length(), step_size("F")]
    parts += [controls(), pictures(), width()]
    return {name: config for part in parts for name, config in part.items()}


def make(name: str, config: Config, data: Images, judge: Judge, work: Path, record: Path) -> bool:
    """Train in the folder `work`, then keep what belongs into `record`; False if the run was stopped on the way."""
    checkpoint, looks = work / "checkpoint.pt", LOOKS if "/" in name else LOOKS_OF_TABLE
    try:
        run = train_in_folder(
            config, data.images, work, judge, checkpoint.exists(), looks, checkpoint_every=250, progress=300
        )
        if run.step < config.steps:
            return False
    except FloatingPointError as error:
        print(f"{name}: {error}", flush=True)
    made = load_record(work / "record.npz")
    if name.startswith("pictures/") and name.endswith("-0"):
        with written_whole(record.with_name(f"{record.stem}_generator.pt")) as file:
            weights = read_checkpoint(checkpoint)["generator"]
            torch.save({k: w.half() if w.is_floating_point() else w for k, w in weights.items()}, file)
    of_table, pictured = "/" not in name, name.startswith(("pictures/", "length/")) and name.endswith("-0")
    save_record(thinned(made, keep=of_table or pictured), record)
    shutil.rmtree(work)  # last, since a record that exists is not made again
    return True


def thinned(record: Record, keep: bool) -> Record:
    """The record with images of its last measurement only, unless `keep`; the others would fill most of the file."""
    return record if keep else Record(record.about, {**record.arrays, "images": record.arrays["images"][-1:]})


def the_judge(data: Images, path: Path) -> Judge:
    """The classifier that measured the earlier runs, or the first one, which is written to `path`."""
    if not path.exists():
        with written_whole(path) as file:
            torch.save(make_judge(data).classifier.state_dict(), file)
    classifier = SmallClassifier().eval()
    classifier.load_state_dict(torch.load(path, weights_only=True))
    return make_judge(data, classifier)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the records that are missing in the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m course_utils record", description=__doc__)
    parser.add_argument("folder", type=place, help="for the records; judge.pt is read there")
    parser.add_argument("--work", type=place, default=DATA_DIR / "runs", help="for checkpoints (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names of runs")
    parser.add_argument("--list", action="store_true", help="say what is there and what is missing, and train nothing")
    options = parser.parse_args(arguments)
    if unknown := [text for text in options.only if not any(name.startswith(text) for name in plan())]:
        parser.error(f"--only: no run's name begins with {', '.join(unknown)}; --list shows the names")
    wanted = {name: config for name, config in plan().items() if name.startswith(tuple(options.only))}
    records = {name: options.folder / f"{name}.npz" for name in wanted}
    if options.list:
        for name, record in records.items():
            print("made   " if record.exists() else "missing", name)
        return
    torch.set_num_threads(1)
    try:
        data = load_fashion_mnist(16)
        judge = the_judge(data, options.folder / "judge.pt")
        for name, config in wanted.items():
            if records[name].exists():
                continue
            print(name, flush=True)
            try:
                if not make(name, config, data, judge, options.work / name.replace("/", "-"), records[name]):
                    sys.exit(130)  # Ctrl-C: the same command goes on with this run
            except FolderInUse:
                continue
    except (RunError, DataError) as error:
        parser.exit(1, f"error: {error}\n")
