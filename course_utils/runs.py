"""What a run keeps on disk: a checkpoint to go on from, and a record to look at years later.

A run has a folder: ``checkpoint.pt`` (networks, optimizers, random state, curves: everything that the next update
depends on), ``record.npz`` (configuration, environment, curves, and the measurements at some steps; small) and
``samples.png``. Each file is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import save_image

from .data import Images
from .environment import environment_report, expanded
from .metrics import (
    features_of,
    frechet_distance,
    inception_score,
    precision_recall,
    probabilities_of,
    train_classifier,
)
from .models import SmallClassifier
from .normalization import linear_layers
from .parallel import any_process, rank, world_size
from .spectral import output_dim, used_weight, weight_matrix
from .training import CURVES, PLAIN_LOOP, Config, Run, Updates, train

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed there
    fcntl = None

FILES = ("checkpoint.pt", "record.npz", "samples.png")
NETWORKS = ("generator", "discriminator")
PARTS = (*NETWORKS, "adam_g", "adam_d")


class RunError(RuntimeError):
    """A file of a run is missing, damaged, of another run, or could not be written; the message says which and why."""


class FolderInUse(RunError):
    """Another process is training in the folder."""


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that becomes `path` at the end, and only if all went well: never a half-written one."""
    name = path.parent / f".{path.name}-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with name.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # on the disk, not only on its way, before the old file goes
        os.replace(name, path)
    except BaseException as error:
        with suppress(OSError):
            name.unlink()
        if isinstance(error, OSError | RuntimeError):  # torch reports a full disk as a RuntimeError
            kept = "the previous one is kept" if path.exists() else "there is no previous one"
            raise RunError(f"{path} could not be written ({error}); {kept}") from error
        raise


# ---- checkpoints


def check_numbers(run: Run) -> None:
    """Raise FloatingPointError if a loss so far, or a weight or buffer of the networks, is NaN or infinite."""
    run.check_finite()
    for part in NETWORKS:
        for name, value in getattr(run, part).state_dict().items():
            if not torch.isfinite(value).all():
                raise FloatingPointError(
                    f"{run.config.method} diverged at step {run.step}: {name} of the {part} is no longer finite"
                )


def save_checkpoint(run: Run, path: str | Path, extra: dict | None = None) -> None:
    """Write everything that the rest of `run` depends on, and `extra` (tensors and plain values), to `path`.

    Raises FloatingPointError instead of replacing a good checkpoint by one with NaN, ValueError for a run begun on another
    kind of device, RunError if the disk refuses.
    """
    check_numbers(run)
    run.check_begun_here()  # its random state is not at hand
    state = {
        "config": asdict(run.config), "step": run.step, "seconds": run.seconds, "extra": extra or {},
        "curves": run.curves[:, : run.step].cpu(), "rng": run.rng.get_state(),
        **{part: getattr(run, part).state_dict() for part in PARTS},
    }  # fmt: skip
    with written_whole(expanded(path)) as file:
        torch.save(state, file)


def read_checkpoint(path: str | Path) -> dict:
    """Content of a checkpoint file. Only tensors and plain values are read, never code.

    Raises RunError for a missing, truncated or otherwise damaged file.
    """
    path = expanded(path)
    if not path.is_file():
        raise RunError(f"there is no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # compares the checksum of each part
                raise zipfile.BadZipFile(f"checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        expected = {"config", "step", "seconds", "rng", "curves", "extra", *PARTS}
        missing = expected - set(state if isinstance(state, dict) else ())
        if missing:
            raise RunError(f"{path} is no checkpoint of this course: it lacks {', '.join(sorted(missing))}")
        return state
    except (zipfile.BadZipFile, pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{path} is damaged (truncated, or not a checkpoint): {error}. Start anew, or restore it."
        ) from error


GENERATOR_STATES = {5056: "a CPU", 16: "a GPU"}  # bytes of the state of torch's random generators


def can_go_on(found: Config, config: Config) -> bool:
    """Whether a run made with `found` may be continued with `config`: the same, or more steps with nothing else changed.

    With decay the step size hangs on the number of steps from the first update on: a longer run is another run.
    """
    longer = config.steps > found.steps and not found.decay
    return config == (replace(found, steps=config.steps) if longer else found)


def load_checkpoint(
    path: str | Path, config: Config | None = None, device: torch.device | str = "cpu"
) -> tuple[Run, dict]:
    """The run that `path` holds, ready to be continued by `train`, and the `extra` that was saved with it.

    A run of a GPU can be loaded on a CPU, and the other way round, to look at its samples, weights and curves; since its
    random numbers are not to be had there, `begun_on` says where it was made, and `train` refuses to go on.
    config: what the run should go on with; RunError names each entry that differs. Only `steps` may be larger, without
    decay: the run is then a longer one.
    """
    state = read_checkpoint(path)
    try:
        found = Config.from_dict(state["config"])
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} holds a configuration that this version does not know: {error}") from error
    config = config or found
    if not can_go_on(found, config):
        ours, theirs = asdict(config), asdict(found)
        differing = [f"{k} {theirs[k]!r} (asked for: {v!r})" for k, v in ours.items() if v != theirs[k]]
        why = "; with decay the step size hangs on the number of steps" if found.decay and len(differing) == 1 else ""
        why = why if config.steps > found.steps else ""
        raise RunError(f"{path} belongs to another configuration: it has {', '.join(differing)}{why}")
    run = Run.start(config, device)
    try:
        for part in PARTS:
            getattr(run, part).load_state_dict(state[part])
        here, made = (s.numel() if s.dtype == torch.uint8 else 0 for s in (run.rng.get_state(), state["rng"]))
        if made != here and made in GENERATOR_STATES:
            run.begun_on = GENERATOR_STATES[made]
        else:
            run.rng.set_state(state["rng"])
        run.curves[:, : state["step"]] = state["curves"].to(device)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} does not fit the networks of its configuration on {device}: {error}") from error
    run.step, run.seconds = state["step"], state["seconds"]
    return run, state["extra"]


# ---- records


@dataclass(frozen=True)
class Judge:
    """What measures samples: a small classifier and the features (N, 64) of real images that it has not seen."""

    classifier: SmallClassifier
    real_features: Tensor
    n_samples: int = 2000


def make_judge(data: Images, classifier: SmallClassifier | None = None, device: str = "cpu") -> Judge:
    """A judge for labelled images: a classifier trained on the first third of them (unless one is given), and the
    features of up to 10,000 others."""
    images, cut = data.images, len(data.images) // 3
    if classifier is None:
        classifier = train_classifier(Images(images[:cut].to(device), data.labels[:cut].to(device)), epochs=2, seed=0)
    return Judge(classifier, features_of(classifier, images[cut : cut + 10_000].to(device)))


@torch.no_grad()
def measure(run: Run, judge: Judge | None, n_images: int = 16) -> dict[str, Tensor]:
    """Sample images, their Frechet distance and classifier score, and the singular values of D, as a row of a record.

    images: (n_images, C, s, s), uint8, always from the same z. singular_values_k: those of the k-th weight as it is
    used in D, largest first. distance, score, precision, recall (scalars) and classes, how many samples the classifier
    takes for each class, only with a judge: they belong to its classifier; NaN if a sample is not finite.
    """
    samples = run.sample(judge.n_samples if judge else n_images, seed=1)
    row = {"step": torch.tensor(run.step), "images": samples[:n_images].add(1).mul(127.5).round().to(torch.uint8).cpu()}
    if judge:
        row |= dict.fromkeys(("distance", "score", "precision", "recall"), torch.tensor(torch.nan))
        row["classes"] = torch.full((judge.classifier.head.out_features,), torch.nan)
        if torch.isfinite(samples).all():
            features, probabilities = (
                features_of(judge.classifier, samples),
                probabilities_of(judge.classifier, samples),
            )
            distance = frechet_distance(judge.real_features, features)
            row["distance"] = torch.tensor(distance, dtype=torch.float32)
            row["score"] = inception_score(probabilities)[0].float().cpu()
            found = precision_recall(judge.real_features[: judge.n_samples], features)
            row["precision"], row["recall"] = (torch.tensor(value, dtype=torch.float32) for value in found)
            row["classes"] = probabilities.argmax(1).bincount(minlength=len(row["classes"])).float().cpu()
    for k, layer in enumerate(linear_layers(run.discriminator)):
        matrix = weight_matrix(used_weight(layer).float(), output_dim(layer))
        row[f"singular_values_{k}"] = torch.linalg.svdvals(matrix.cpu())
    return row


@dataclass(frozen=True)
class Record:
    """What is kept of a run. about: configuration, environment, command, seconds, ... as text and numbers.

    arrays: the CURVES (one entry per update of G, thinned out if there are many, at the updates `curve_step`), and
    what `measure` gives, stacked over the steps in `step`.
    """

    about: dict
    arrays: dict[str, np.ndarray]

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return Config.from_dict(self.about["config"])

    def __getitem__(self, name: str) -> np.ndarray:
        """An array by its name; KeyError names those that there are."""
        if name not in self.arrays:
            raise KeyError(f"the record has no {name!r}; it has {', '.join(self.arrays)}")
        return self.arrays[name]

    def spectra(self, at: int = -1) -> list[np.ndarray]:
        """Squared singular values of each weight of D, largest scaled to 1, at the measurement number `at`."""
        values = [self.arrays[f"singular_values_{k}"][at] ** 2 for k in range(self.about["layers"])]
        return [value / value[0] if value[0] > 0 else value for value in values]

    def spread(self) -> np.ndarray:
        """Standard deviation between the kept images, values in [-1, 1], averaged over the pixels, at each of `step`."""
        return (self.arrays["images"] / 127.5).std(axis=1).mean(axis=(1, 2, 3))


def commit() -> str:
    """The commit that the course's code is at, "unknown" where git cannot tell, with "+" where files were changed since."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            cwd=here, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def make_record(
    run: Run, rows: list[dict[str, Tensor]], judge: Judge | None, command: str, loop: str, n_points: int = 200
) -> Record:
    """Gather the record of `run` from the measurements in `rows`."""
    thin = max(1, -(-run.step // n_points))
    kept = slice(thin - 1, run.step, thin)  # the mean of each stretch of `thin` updates, at its last
    curves = run.curves[:, : run.step].cpu().numpy()
    usable = curves[:, : run.step // thin * thin].reshape(len(CURVES), -1, thin).mean(2)
    arrays = {"curve_step": np.arange(1, run.step + 1)[kept][: usable.shape[1]], **dict(zip(CURVES, usable))}
    for name in dict.fromkeys(name for row in rows for name in row):  # a judge may have come or gone with a resumption
        missing = torch.full_like(next(row[name] for row in rows if name in row), torch.nan, dtype=torch.float32)
        arrays[name] = torch.stack([row.get(name, missing) for row in rows]).numpy()
    about = {
        "config": asdict(run.config), "description": run.config.describe(), "steps_done": run.step, "seed": run.config.seed,
        "seconds": round(run.seconds, 2), "command": command, "environment": environment_report(),
        "finished": time.strftime("%Y-%m-%d"), "layers": len(linear_layers(run.discriminator)), "curve_mean_over": thin,
        "processes": world_size(), "loop": loop, "commit": commit(),
        "judge": f"the course's small classifier; {judge.n_samples} samples against {len(judge.real_features)} real images"
        if judge else "none",
    }  # fmt: skip
    return Record(about, arrays)


def save_record(record: Record, path: str | Path) -> None:
    """Write a record as a compressed numpy archive; `about` lies in it as JSON. Raises RunError if the disk refuses."""
    with written_whole(expanded(path)) as file:
        np.savez_compressed(file, about=np.array(json.dumps(record.about)), **record.arrays)


def load_record(path: str | Path) -> Record:
    """Read a record; RunError for a missing or damaged file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return Record(json.loads(str(arrays.pop("about"))), arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is not a record that can be read: {error}") from error


# ---- a run with its folder


class Interrupt:
    """Turns Ctrl-C, the notebook's stop button or SIGTERM into a wish that the run fulfils after the update it is in.

    A second one breaks off at once, with KeyboardInterrupt. Outside the main thread nothing is changed.
    """

    wanted = False

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self.before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def _note(self, *_: object) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other processes from training in it; the system lifts that when this one ends or is killed.

    Raises RunError if the folder cannot be made or another process trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = os.open(folder, os.O_RDONLY) if fcntl else -1
    except OSError as error:
        raise RunError(f"{folder} cannot be the folder of a run ({error})") from error
    try:
        if fcntl:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(place)
        raise FolderInUse(f"another process is training in {folder}; wait for it, or choose another folder") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        if fcntl:
            os.close(place)


def fingerprint(images: Tensor) -> list[int]:
    """Number of images (N, ...), and a checksum of up to a thousand of them: enough to tell one data set from another."""
    return [len(images), zlib.crc32(images[:: -(-len(images) // 1000)].cpu().numpy().tobytes())]


def progress_line(run: Run, rate: float) -> str:
    """Where the run stands: update, updates per second, time left, losses."""
    left = (run.config.steps - run.step) / rate if rate else 0.0
    d_loss, g_loss = run.curves[:2, run.step - 1].tolist()
    return (
        f"update {run.step} of {run.config.steps}, {rate:.1f} per second, {int(left) // 60}:{int(left) % 60:02d} left; "
        f"losses D {d_loss:.3f}, G {g_loss:.3f}"
    )


def train_in_folder(
    config: Config,
    images: Tensor,
    folder: str | Path,
    judge: Judge | None = None,
    resume: bool = False,
    n_measurements: int = 6,
    checkpoint_every: int = 500,
    updates: Updates | None = None,
    progress: float = 2.0,
) -> Run:
    """`train`, with everything kept in `folder`: checkpoint, record and samples; notebook and terminal both call this.

    resume: go on from the checkpoint in `folder`; on the CPU the result is, bit by bit, that of a run never
    interrupted. A larger `config.steps` makes the run longer, without decay. n_measurements: how often `measure` is called, first and last update included. checkpoint_every: in
    updates; each measurement makes a checkpoint too. progress: seconds between two lines that say where the run stands,
    0 for none. Ctrl-C or SIGTERM ends the run after the present update, with everything written. Raises RunError when
    `folder` holds a run already and resume is False, when another process trains there, when the images or
    `updates` are not those that the run began with, when it was begun on another kind of device, and for all that
    `load_checkpoint` refuses; ValueError for numbers out of range.
    """
    for name, value, least in (("n_measurements", n_measurements, 2), ("checkpoint_every", checkpoint_every, 1)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")
    for batch in (config.batch_size, config.generator_batch):
        if batch % world_size():
            raise ValueError(f"the batch of {batch} must be a multiple of the {world_size()} processes")
    folder, writes = expanded(folder), rank() == 0
    checkpoint, record_file, samples_file = (folder / name for name in FILES)
    marks = {round(config.steps * k / (n_measurements - 1)) for k in range(n_measurements)}
    command = "a notebook" if "ipykernel" in sys.modules else shlex.join(["python", *sys.orig_argv[1:]])
    data, loop = fingerprint(images), updates.name if updates else PLAIN_LOOP
    with reserved(folder) if writes else nullcontext(), Interrupt() as interrupt:
        if checkpoint.exists() and not resume:
            raise RunError(f"{checkpoint} holds a run already: resume it, or choose another folder")
        run, extra = load_checkpoint(checkpoint, config, images.device) if resume else (None, {})
        if run and run.begun_on:
            raise RunError(f"{checkpoint}: {run.elsewhere}")
        if extra.get("data", data) != data:
            raise RunError(f"{checkpoint} belongs to a run on other images (of {extra['data'][0]}, here {data[0]})")
        if (before := extra.get("loop", loop)) != loop:
            raise RunError(f"{checkpoint} was made by the {before}; to go on with the {loop} would be another run")
        run = run or Run.start(config, images.device)
        rows: list[dict[str, Tensor]] = extra.get("rows", [])
        if writes:
            for leftover in [file for name in FILES for file in folder.glob(f".{name}-*")]:
                leftover.unlink()  # of a process that was killed while it wrote
        begun = said = time.perf_counter()
        first = run.step

        def keep() -> None:  # the checkpoint first: what it holds, the others can be made from
            if writes:
                if run.step:
                    save_checkpoint(run, checkpoint, {"rows": rows, "data": data, "loop": loop})
                save_record(make_record(run, rows, judge, command, loop), record_file)
                with written_whole(samples_file) as file:
                    save_image(rows[-1]["images"] / 255, file, format="png", nrow=4)

        def after_update(step: int, run: Run) -> bool:
            nonlocal said
            stop = step > 0 and any_process(interrupt.wanted)
            if step in marks:
                check_numbers(run)
                if writes:
                    rows.append(measure(run, judge))
            if step in marks or stop or (step and step % checkpoint_every == 0):
                keep()
            now = time.perf_counter()
            if progress and writes and step and (now - said >= progress or step == config.steps):
                print(progress_line(run, (step - first) / (now - begun)), flush=True)
                said = now
            return stop

        try:
            train(config, images, after_update, run, updates)
        except FloatingPointError as error:  # the checkpoint stays the last good one; the record tells what happened
            if writes:
                record = make_record(run, rows, judge, command, loop)
                record.about["diverged"] = str(error)
                save_record(record, record_file)
            raise
        if first == config.steps:  # nothing was left to do, but the last process may have been killed before the record
            keep()
            if writes:
                print(f"{folder} holds all {first} updates; nothing is left to do", flush=True)
    any_process(False)  # nobody returns before the files are written
    if run.step < config.steps and writes:
        print(
            f"stopped after update {run.step} of {config.steps}; everything is in {folder}, to be resumed", flush=True
        )
    return run
