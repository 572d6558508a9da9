"""The command line of ``python -m course_utils train``: one run in one folder, without Jupyter."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..data import DataError
from ..environment import PROFILES, Profile, expanded, profile
from ..methods import METHODS
from ..models import INITIALIZATIONS
from ..records import RunError, load_record, make_judge
from ..training import ARCHITECTURES, AUTHORS, LOSSES, NAMED_SETTINGS, PLAIN, Config
from . import parallel
from .datasets import DATASETS, load_images, read_images
from .fast import PRECISIONS, fast_updates
from .folder import train_in_folder
from .graphs import graphed
from .inception import PROTOCOLS, inception_metrics, load_inception
from .recording import save_record


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return int(text)


def place(text: str) -> Path:
    """A path for argparse; a leading ~ stands for the home folder, which a shell does not see in --output=~/runs."""
    try:
        return expanded(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive_number(text: str) -> float:
    """A finite number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


OF_METHOD = {"c": "weight_clipping", "lambda_ortho": "orthonormal"}  # options that mean nothing with another method


def parser() -> argparse.ArgumentParser:
    """All options, with their help."""
    p = argparse.ArgumentParser(
        prog="python -m course_utils train",
        description="Train a GAN as in Miyato et al. 2018 and keep checkpoint, record and samples in a folder.",
        epilog="Several GPUs: torchrun --nproc-per-node 2 -m course_utils train ... with the same options. "
        "Ctrl-C ends a run after the present update and keeps everything; the same command with --resume goes on, and, "
        "without --decay, with a larger --steps makes a finished run longer.",
    )
    add = p.add_argument
    add("--output", required=True, type=place, help="folder for checkpoint.pt, record.npz and samples.png")
    add("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    add("--method", default="spectral_norm", choices=METHODS, help="what holds D back (default: %(default)s)")
    add("--setting", default="C", choices=NAMED_SETTINGS,
        help="Adam and n_dis of the paper's Table 1; or resnet: those of its ResNet runs, with what the authors' code does "
        "besides: initialization glorot, no last bias in D, noise between grey levels, twice D's batch for G, G updated "
        "first (default: %(default)s)")  # fmt: skip
    add("--alpha", type=positive_number, help="step size of Adam (default: the setting's)")
    add("--n-dis", type=positive, help="updates of D for one of G (default: the setting's)")
    add("--c", type=positive_number, help=f"bound of weight_clipping (default: {Config.c:g})")
    add(
        "--lambda-ortho",
        type=positive_number,
        help=f"weight of orthonormal's penalty (default: {Config.lambda_ortho:g})",
    )
    add(
        "--init", choices=INITIALIZATIONS, help=f"of the weights (default: {Config.init}, glorot in the setting resnet)"
    )
    add("--loss", choices=LOSSES, help="default: wasserstein for wgan_gp, standard for all others")
    add("--architecture", default="cnn", choices=ARCHITECTURES, help="Table 3 or Table 4 (default: %(default)s)")
    add("--data", default="fashion_mnist", metavar="NAME",
        help=f"{', '.join(DATASETS)}, or a .pt file with a uint8 tensor (N, 1 or 3, size, size), or with a dictionary of such "
        "`images` and their int64 `labels` (N); labels give the record a Frechet distance")  # fmt: skip
    add("--profile", choices=PROFILES, help="sizes for a laptop or for a GPU (default: gpu where there is one)")
    for name, text in (
        ("size", "pixels of a side"), ("width", "channels of D's narrowest layer"),
        ("batch-size", "images of a batch"), ("steps", "updates of the generator"),
    ):  # fmt: skip
        add(f"--{name}", type=positive, help=f"{text} (default: the profile's)")
    add("--seed", type=int, default=0, help="of networks, noise and batches (default: %(default)s)")
    add("--decay", action="store_true", help="let alpha fall linearly to 0 over the run")
    add("--precision", choices=PRECISIONS, help="of the networks (default: bfloat16 on a GPU, float32 on a CPU)")
    add("--compile", action="store_true", help="fuse the networks with torch.compile")
    add("--graphs", action="store_true",
        help="launch each update as one CUDA graph; one GPU, without --compile; not tried on a GPU so far")  # fmt: skip
    add("--measurements", type=int, default=6,
        help="how often samples and spectra are taken, first and last update included (default: %(default)s)")  # fmt: skip
    add("--fid", choices=PROTOCOLS,
        help="measure FID and inception score of the finished run, with the paper's numbers of images (5,000 against 10,000) "
        "or 50,000 against 50,000; needs requirements-fid.txt and Inception's weights, 96 MB")  # fmt: skip
    add("--checkpoint-every", type=positive, default=500, metavar="N", help="in updates of G (default: %(default)s)")
    return p


def configuration(options: argparse.Namespace, sizes: Profile) -> Config:
    """The configuration that the options ask for; ValueError if they contradict each other."""
    if options.data in DATASETS:
        channels, offered = DATASETS[options.data].channels, DATASETS[options.data].sizes
    elif options.data.endswith(".pt"):
        channels, *offered = read_images(options.data)[0].shape[1:3]
    else:
        raise ValueError(f"unknown data {options.data!r}; choose one of: {', '.join(DATASETS)}, or a .pt file")
    size = options.size or (sizes.size if sizes.size in offered else offered[-1])
    if size not in offered:
        raise ValueError(f"{options.data} comes with {' or '.join(map(str, offered))} pixels, got --size {size}")
    batch_size = options.batch_size or sizes.batch_size
    own = {name: getattr(options, name) for name in ("alpha", "n_dis") if getattr(options, name)}
    setting = replace(NAMED_SETTINGS[options.setting], **own) if own else options.setting
    more = {**AUTHORS, "batch_size_g": 2 * batch_size} if options.setting == "resnet" else {}
    for name, method in OF_METHOD.items():
        if (value := getattr(options, name)) is not None:
            if options.method != method:
                raise ValueError(f"--{name.replace('_', '-')} is for --method {method}, got {options.method}")
            more[name] = value
    if options.init:
        more["init"] = options.init
    return Config(
        method=options.method, setting=setting, loss=options.loss, architecture=options.architecture,
        size=size, channels=channels, width=options.width or sizes.width_of(options.architecture), steps=options.steps or sizes.steps,
        batch_size=batch_size, decay=options.decay, seed=options.seed, **more,
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
        torch.backends.cudnn.benchmark = True  # shapes never change: let cuDNN try which of its ways is fastest
        device = parallel.join(sizes.device)
        if parallel.rank() == 0:
            print(f"{config.describe()}; on {device}", flush=True)
        data = load_images(options.data, config.size)
        if options.fid and len(data.images) < (needed := PROTOCOLS[options.fid].n_real):
            raise ValueError(f"--fid {options.fid} needs {needed} real images, {options.data} has {len(data.images)}")
        judge = make_judge(data, device=device) if parallel.rank() == 0 and data.labels[0] >= 0 else None
        precision = options.precision or ("bfloat16" if device.startswith("cuda") else "float32")
        fast = device.startswith("cuda") or options.compile or precision != "float32"
        updates = fast_updates(config, precision, options.compile) if fast else PLAIN
        updates = graphed(updates, device) if options.graphs else updates
        inception = load_inception(device=device) if options.fid and parallel.rank() == 0 else None
        run = train_in_folder(
            config, data.images.to(device), options.output, judge, options.resume, options.measurements,
            options.checkpoint_every, updates,
        )  # fmt: skip
        if inception and run.step == config.steps:
            found = inception_metrics(run.sample(50_000), data.images.to(device), options.fid, inception)
            record = load_record(options.output / "record.npz")
            record.about["inception"] = found._asdict()
            save_record(record, options.output / "record.npz")
            print(f"FID {found.fid:.2f}, inception score {found.inception_score:.2f} ({options.fid})", flush=True)
    except (RunError, DataError, FloatingPointError, ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except RuntimeError as error:
        if not (options.compile and isinstance(error, torch._dynamo.exc.BackendCompilerFailed)):
            raise
        why = " ".join(str(error).strip().splitlines()[:2]).strip()  # the rest is for the authors of torch
        print(f"error: torch.compile failed ({why}); mend that, or leave --compile out", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("broken off; what the last checkpoint holds can be resumed", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        parallel.leave()
