"""The command line of ``python -m course_utils.training``: one run in one folder, without Jupyter."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import parallel
from .data import DataError, Images, load_cifar10, load_fashion_mnist, load_stl10
from .environment import PROFILES, Profile, profile
from .fast import PRECISIONS, fast_updates
from .normalization import METHODS
from .runs import RunError, make_judge, train_in_folder
from .training import LOSSES, SETTINGS, Config

DATA = {"fashion_mnist": (1, (16, 28, 32)), "cifar10": (3, (32,)), "stl10": (3, (48,))}  # channels, sizes


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return int(text)


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
        help=f"{', '.join(DATA)}, or a .pt file with a uint8 tensor (N, 1 or 3, size, size)")  # fmt: skip
    add("--profile", choices=PROFILES, help="sizes for a laptop or for a GPU (default: gpu where there is one)")
    for name, text in (
        ("size", "pixels of a side"), ("width", "channels of the narrowest layer of both networks"),
        ("batch-size", "images of a batch"), ("steps", "updates of the generator"),
    ):  # fmt: skip
        add(f"--{name}", type=positive, help=f"{text} (default: the profile's)")
    add("--seed", type=int, default=0, help="of networks, noise and batches (default: %(default)s)")
    add("--decay", action="store_true", help="let alpha fall linearly to 0 over the run")
    add("--precision", choices=PRECISIONS, help="of the networks (default: bfloat16 on a GPU, float32 on a CPU)")
    add("--compile", action="store_true", help="fuse the networks with torch.compile")
    add("--measurements", type=int, default=6,
        help="how often samples and spectra are taken, first and last update included (default: %(default)s)")  # fmt: skip
    add("--checkpoint-every", type=positive, default=500, metavar="N", help="in updates of G (default: %(default)s)")
    return p


def read_tensor(name: str) -> Tensor:
    """The images in a .pt file, uint8, (N, 1 or 3, size, size); DataError if it holds something else."""
    wanted = f"{name} must hold a non-empty uint8 tensor (N, 1 or 3, size, size), as torch.save writes it"
    try:
        images = torch.load(name, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{wanted}; it is no file of tensors ({type(error).__name__})") from error
    if not isinstance(images, Tensor):
        raise DataError(f"{wanted}, got {type(images).__name__}")
    shape = tuple(images.shape)
    if (
        images.dtype != torch.uint8
        or len(shape) != 4
        or not len(images)
        or shape[1] not in (1, 3)
        or shape[2] != shape[3]
    ):
        raise DataError(f"{wanted}, got {images.dtype} {shape}")
    return images


def load_images(name: str, size: int) -> Images:
    """Images (N, channels, size, size) in [-1, 1] of a data set or a .pt file, with labels, -1 where there are none."""
    if name == "fashion_mnist":
        return load_fashion_mnist(size)
    if name in DATA:
        return load_cifar10() if name == "cifar10" else load_stl10()
    images = read_tensor(name)
    return Images(images.float().div(127.5).sub(1), torch.full((len(images),), -1))


def configuration(options: argparse.Namespace, sizes: Profile) -> Config:
    """The configuration that the options ask for; ValueError if they contradict each other."""
    if options.data in DATA:
        channels, offered = DATA[options.data]
    elif options.data.endswith(".pt"):
        channels, *offered = read_tensor(options.data).shape[1:3]
    else:
        raise ValueError(f"unknown data {options.data!r}; choose one of: {', '.join(DATA)}, or a .pt file")
    size = options.size or (sizes.size if sizes.size in offered else offered[-1])
    if size not in offered:
        raise ValueError(f"{options.data} comes with {' or '.join(map(str, offered))} pixels, got --size {size}")
    return Config(
        method=options.method, setting=options.setting, loss=options.loss, architecture=options.architecture,
        size=size, channels=channels, width=options.width or sizes.width, steps=options.steps or sizes.steps,
        batch_size=options.batch_size or sizes.batch_size, decay=options.decay, seed=options.seed,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad options end it with exit status 2, what fails later with 1, a second Ctrl-C with 130."""
    p = parser()
    options = p.parse_args(arguments)
    try:
        if options.profile:
            os.environ["COURSE_PROFILE"] = options.profile  # the record's report of the environment names it too
        sizes = profile()
        config = configuration(options, sizes)
    except (ValueError, RuntimeError, OSError) as error:
        p.error(str(error))
    try:
        device = parallel.join(sizes.device)
        if parallel.rank() == 0:
            print(f"{config.describe()}; on {device}", flush=True)
        data = load_images(options.data, config.size)
        judge = make_judge(data, device=device) if parallel.rank() == 0 and data.labels[0] >= 0 else None
        precision = options.precision or ("bfloat16" if device.startswith("cuda") else "float32")
        fast = device.startswith("cuda") or options.compile or precision != "float32"
        train_in_folder(
            config, data.images.to(device), options.output, judge, options.resume, options.measurements,
            options.checkpoint_every, fast_updates(config, precision, options.compile) if fast else None,
        )  # fmt: skip
    except (RunError, DataError, FloatingPointError, ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("broken off; what the last checkpoint holds can be resumed", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        parallel.leave()
