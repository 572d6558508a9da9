"""The command line of ``python -m course_utils.training``: one run in one folder, without Jupyter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import parallel
from .data import DataError, Images, load_cifar10, load_fashion_mnist, load_stl10
from .environment import PROFILES, profile
from .fast import PRECISIONS, fast_updates
from .normalization import METHODS
from .runs import RunError, make_judge, train_in_folder
from .training import LOSSES, SETTINGS, Config

DATA = {"fashion_mnist": (1, (16, 28, 32)), "cifar10": (3, (32,)), "stl10": (3, (48,))}  # channels, sizes


def parser() -> argparse.ArgumentParser:
    """All options, with their help."""
    p = argparse.ArgumentParser(
        prog="python -m course_utils.training",
        description="Train a GAN as in Miyato et al. 2018 and keep checkpoint, record and samples in a folder.",
        epilog="Several GPUs: torchrun --nproc-per-node 2 -m course_utils.training ... with the same options. "
        "Ctrl-C ends a run after the present update and keeps everything; the same command with --resume goes on.",
    )
    add = p.add_argument
    add("--output", required=True, type=Path, help="folder for checkpoint.pt, record.npz and samples.png")
    add("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    add("--method", default="spectral_norm", choices=METHODS, help="what holds D back (default: %(default)s)")
    add("--setting", default="C", choices=SETTINGS, help="Adam and n_dis of the paper's Table 1 (default: %(default)s)")
    add("--loss", choices=LOSSES, help="default: wasserstein for wgan_gp, standard for all others")
    add("--architecture", default="cnn", choices=("cnn", "resnet"), help="Table 3 or Table 4 (default: %(default)s)")
    add("--data", default="fashion_mnist", metavar="NAME",
        help=f"{', '.join(DATA)}, or a .pt file with a uint8 tensor (N, channels, size, size)")  # fmt: skip
    add("--profile", choices=PROFILES, help="sizes for a laptop or for a GPU (default: gpu where there is one)")
    for name, text in (
        ("size", "pixels of a side"), ("width", "channels of the narrowest layer of both networks"),
        ("batch-size", "images of a batch"), ("steps", "updates of the generator"),
    ):  # fmt: skip
        add(f"--{name}", type=int, help=f"{text} (default: the profile's)")
    add("--seed", type=int, default=0, help="of networks, noise and batches (default: %(default)s)")
    add("--decay", action="store_true", help="let alpha fall linearly to 0 over the run")
    add("--precision", choices=PRECISIONS, help="of the networks (default: bfloat16 on a GPU, float32 on a CPU)")
    add("--compile", action="store_true", help="fuse the networks with torch.compile")
    add("--measurements", type=int, default=6, help="how often samples and spectra are taken (default: %(default)s)")
    add("--checkpoint-every", type=int, default=500, metavar="N", help="in updates of G (default: %(default)s)")
    return p


def load_images(name: str, size: int) -> Images:
    """Images (N, channels, size, size) in [-1, 1] of a data set or a .pt file, with labels, -1 where there are none."""
    if name in DATA:
        return (
            load_fashion_mnist(size)
            if name == "fashion_mnist"
            else {"cifar10": load_cifar10, "stl10": load_stl10}[name]()
        )
    images = torch.load(name, weights_only=True)
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(f"{name} must hold a uint8 tensor (N, channels, size, size)")
    return Images(images.float().div(127.5).sub(1), torch.full((len(images),), -1))


def configuration(options: argparse.Namespace) -> Config:
    """The configuration that the options ask for; ValueError if they contradict each other."""
    chosen = PROFILES[options.profile] if options.profile else profile()
    if options.data not in DATA and not options.data.endswith(".pt"):
        raise ValueError(f"unknown data {options.data!r}; choose one of: {', '.join(DATA)}, or a .pt file")
    channels, sizes = DATA.get(options.data, (None, ()))
    size = options.size or (chosen.size if not sizes or chosen.size in sizes else sizes[-1])
    if channels is None:
        channels, size = torch.load(options.data, weights_only=True).shape[1:3]
    elif size not in sizes:
        raise ValueError(f"{options.data} comes with {' or '.join(map(str, sizes))} pixels, got --size {size}")
    return Config(
        method=options.method, setting=options.setting, loss=options.loss, architecture=options.architecture,
        size=size, channels=channels, width=options.width or chosen.width, steps=options.steps or chosen.steps,
        batch_size=options.batch_size or chosen.batch_size, decay=options.decay, seed=options.seed,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad options and unreadable files end it with a message and exit status 2 or 1."""
    p = parser()
    options = p.parse_args(arguments)
    try:
        config = configuration(options)
    except (ValueError, RuntimeError, OSError) as error:
        p.error(str(error))
    device = parallel.join("cuda" if torch.cuda.is_available() and options.profile != "cpu" else "cpu")
    try:
        if parallel.rank() == 0:
            print(config.describe(), flush=True)
        data = load_images(options.data, config.size)
        judge = make_judge(data, device=device) if parallel.rank() == 0 and data.labels[0] >= 0 else None
        precision = options.precision or ("bfloat16" if device.startswith("cuda") else "float32")
        fast = device.startswith("cuda") or options.compile or precision != "float32"
        train_in_folder(
            config, data.images.to(device), options.output, judge, options.resume, options.measurements,
            options.checkpoint_every, fast_updates(config, precision, options.compile) if fast else None,
        )  # fmt: skip
    except (RunError, DataError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        parallel.leave()
