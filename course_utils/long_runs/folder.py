"""A run with its folder: ``checkpoint.pt`` to go on from, ``record.npz`` to look at years later, ``samples.png``.

Each file is written whole or not at all, and a run that was killed goes on, bit by bit, as if nothing had happened.
"""

from __future__ import annotations

import shlex
import sys
import time
import zlib
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor
from torchvision.utils import save_image

from ..environment import expanded
from ..records import Judge, RunError
from ..training import PLAIN, Config, Run, Updates, require_images_of, train
from ..validation import require_whole
from .checkpoint import load_checkpoint, require_finite_run, save_checkpoint
from .files import Interrupt, reserved, written_whole
from .parallel import Processes, any_process, rank, world_size
from .recording import make_record, measure, save_record

FILES = ("checkpoint.pt", "record.npz", "samples.png")


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
    updates: Updates = PLAIN,
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
    require_images_of(config, images)
    n_measurements = require_whole(n_measurements, "n_measurements", 2)
    checkpoint_every = require_whole(checkpoint_every, "checkpoint_every")
    for batch in (config.batch_size, config.generator_batch):
        if batch % world_size():
            raise ValueError(f"the batch of {batch} must be a multiple of the {world_size()} processes")
    folder, writes = expanded(folder), rank() == 0
    checkpoint, record_file, samples_file = (folder / name for name in FILES)
    marks = {round(config.steps * k / (n_measurements - 1)) for k in range(n_measurements)}
    command = "a notebook" if "ipykernel" in sys.modules else shlex.join(["python", *sys.orig_argv[1:]])
    data, loop = fingerprint(images), updates.name
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
                require_finite_run(run)
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
            train(config, images, after_update, run, Processes(run, updates).updates)
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
