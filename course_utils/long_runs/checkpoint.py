"""A checkpoint: networks, optimizers, random state, curves, and so everything that the next update depends on."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..environment import expanded
from ..records import RunError
from ..training import Config, Run
from .files import written_whole

NETWORKS = ("generator", "discriminator")
PARTS = (*NETWORKS, "adam_g", "adam_d")


def require_finite_run(run: Run) -> None:
    """Raise FloatingPointError if a loss so far, or a weight or buffer of the networks, is NaN or infinite."""
    run.require_finite()
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
    require_finite_run(run)
    run.require_begun_here()  # its random state is not at hand
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
