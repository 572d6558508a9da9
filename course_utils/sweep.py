"""The recorded runs: ``python -m course_utils.sweep data/recorded_runs`` (hours of one CPU core; goes on where it was).

Every method of the course under every setting of Table 1, two seeds, on Fashion-MNIST at 16x16: 1250 updates of D each,
so 1250 / n_dis of G. Besides: SN and WN with other n_dis (the paper's Figure 11), and one longer run of SN whose
generator is kept.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from .data import Images, load_fashion_mnist
from .models import SmallClassifier
from .normalization import METHODS
from .runs import Judge, make_judge, read_checkpoint, train_in_folder, written_whole
from .training import SETTINGS, Config, Setting

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


def main() -> None:
    """Make the records that are missing in the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.sweep", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("data/runs"), help="for checkpoints (default: %(default)s)")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="every Nth run, from the Kth"
    )
    parser.add_argument("--only", nargs="*", help="names of runs")
    options = parser.parse_args()
    data = load_fashion_mnist(16)
    judge = the_judge(data, options.folder / "judge.pt")
    for name, config in list(plan().items())[options.part[0] :: options.part[1]]:
        record, work = options.folder / f"{name}.npz", options.work / name
        if record.exists() or (options.only and name not in options.only):
            continue
        print(name, flush=True)
        try:
            train_in_folder(config, data.images, work, judge, resume=(work / "checkpoint.pt").exists(), progress=60)
        except FloatingPointError as error:
            print(f"{name}: {error}", flush=True)
        shutil.copy(work / "record.npz", record)
        if name == "best":
            with written_whole(options.folder / "best_generator.pt") as file:
                torch.save(read_checkpoint(work / "checkpoint.pt")["generator"], file)
        shutil.rmtree(work)


def the_judge(data: Images, path: Path) -> Judge:
    """The classifier that measured the earlier runs, or the first one, which is written to `path`."""
    if not path.exists():
        with written_whole(path) as file:
            torch.save(make_judge(data).classifier.state_dict(), file)
    classifier = SmallClassifier().eval()
    classifier.load_state_dict(torch.load(path, weights_only=True))
    return make_judge(data, classifier)


if __name__ == "__main__":
    main()
