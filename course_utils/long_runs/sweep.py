"""The recorded runs: ``python -m course_utils sweep data/recorded_runs`` (hours of one CPU core; goes on where it was).

Every method of the course under every setting of Table 1, two seeds, on Fashion-MNIST at 16x16: 1250 updates of D each,
so 1250 / n_dis of G. Besides: SN and WN with other n_dis (the paper's Figure 11), and one longer run of SN whose
generator is kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..data import DATA_DIR, DataError, Images, load_fashion_mnist
from ..methods import METHODS
from ..models import SmallClassifier
from ..records import Judge, RunError, make_judge
from ..training import SETTINGS, Config, Setting
from .checkpoint import read_checkpoint
from .command_line import place
from .files import written_whole
from .folder import train_in_folder

D_UPDATES, SEEDS = 1250, (0, 1)
SMALL = {"size": 16, "width": 8, "batch_size": 32}


def plan() -> dict[str, Config]:
    """Every run of the sweep, by the name of its record."""
    runs = {}
    for seed in SEEDS:
        for name, setting in SETTINGS.items():
            for method in METHODS:
                steps = D_UPDATES // setting.n_dis
                runs[f"{method}-{name}-{seed}"] = Config(method, name, seed=seed, steps=steps, **SMALL)
        for n_dis in (1, 2):  # setting D but for n_dis; the same number of updates of G as there
            for method in ("spectral_norm", "weight_norm"):
                own = Setting(1e-3, 0.5, 0.9, n_dis)
                steps = D_UPDATES // SETTINGS["D"].n_dis
                runs[f"{method}-D_ndis{n_dis}-{seed}"] = Config(method, own, seed=seed, steps=steps, **SMALL)
    runs["best"] = Config("spectral_norm", "C", loss="hinge", size=16, width=16, batch_size=64, steps=3000, decay=True)
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the records that are missing in the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m course_utils sweep", description=__doc__)
    parser.add_argument("folder", type=place)
    parser.add_argument("--work", type=place, default=DATA_DIR / "runs", help="for checkpoints (default: %(default)s)")
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        metavar=("K", "N"),
        help="every Nth run, from the Kth, counted from 0",
    )
    parser.add_argument("--only", nargs="*", help="names of runs")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - set(plan()):
        parser.error(f"the plan has no {', '.join(sorted(unknown))}")
    if options.part[1] < 1:
        parser.error(f"--part: N must be 1 or more, got {options.part[1]}")
    if not 0 <= options.part[0] < options.part[1]:  # else the parts 0 to N - 1 would not make up the whole
        parser.error(f"--part: K must be 0 to N - 1 = {options.part[1] - 1}, got {options.part[0]}")
    try:
        data = load_fashion_mnist(16)
        judge = the_judge(data, options.folder / "judge.pt")
        for name, config in list(plan().items())[options.part[0] :: options.part[1]]:
            record = options.folder / f"{name}.npz"
            if not record.exists() and (not options.only or name in options.only):
                print(name, flush=True)
                if not make(config, data, judge, options.work / name, record):
                    sys.exit(130)  # Ctrl-C: the same command goes on with this run
    except (RunError, DataError) as error:
        parser.exit(1, f"error: {error}\n")


def make(config: Config, data: Images, judge: Judge, work: Path, record: Path) -> bool:
    """Train in the folder `work`, then keep what belongs into `record`; False if the run was stopped on the way."""
    try:
        resume = (work / "checkpoint.pt").exists()
        run = train_in_folder(config, data.images, work, judge, resume=resume, progress=60)
        if run.step < config.steps:
            return False
    except FloatingPointError as error:
        print(f"{record.stem}: {error}", flush=True)
    if record.stem == "best":
        with written_whole(record.with_name("best_generator.pt")) as file:
            torch.save(read_checkpoint(work / "checkpoint.pt")["generator"], file)
    with written_whole(record) as file:  # last, since a record that exists is not made again
        file.write((work / "record.npz").read_bytes())
    shutil.rmtree(work)
    return True


def the_judge(data: Images, path: Path) -> Judge:
    """The classifier that measured the earlier runs, or the first one, which is written to `path`."""
    if not path.exists():
        with written_whole(path) as file:
            torch.save(make_judge(data).classifier.state_dict(), file)
    classifier = SmallClassifier().eval()
    classifier.load_state_dict(torch.load(path, weights_only=True))
    return make_judge(data, classifier)
