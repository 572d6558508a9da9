"""What this machine is, and which of the two profiles it runs: `cpu` (small, while a class watches) or `gpu` (paper scale)."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision

SUPPORTED_TORCH = ((2, 11), (2, 15))


@dataclass(frozen=True)
class Profile:
    """Numbers that differ between a laptop and a GPU; the code that uses them is the same."""

    name: str
    device: str
    size: int  # pixels
    width: int  # channels of the CNN's narrowest layer
    batch_size: int
    steps: int  # generator updates of a full run
    seeds: tuple[int, ...]

    def width_of(self, architecture: str) -> int:
        """The width for "cnn" or "resnet": on a GPU those of the paper's Tables 3 and 4."""
        return self.width * (2 if architecture == "resnet" else 1)


PROFILES = {
    "cpu": Profile("cpu", "cpu", size=16, width=16, batch_size=64, steps=600, seeds=(0, 1, 2)),
    "gpu": Profile("gpu", "cuda", size=32, width=64, batch_size=64, steps=50_000, seeds=(0, 1, 2)),
}


def variable(name: str) -> str | None:
    """The environment variable ``name``; None if it is unset, empty or blank."""
    value = os.environ.get(name, "")
    return value if value.strip() else None


def expanded(path: str | Path) -> Path:
    """``path`` as a Path, with a leading ~ or ~name replaced by the home folder it stands for.

    Raises ValueError if no such home folder is known, or if the path is empty.
    """
    if not str(path).strip():
        raise ValueError(f"a path is expected, got {str(path)!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"no home folder is known for {str(path)!r}: write the path out, without ~") from error


def profile() -> Profile:
    """The profile in force: $COURSE_PROFILE ("cpu" or "gpu") if set and not empty, else "gpu" where CUDA is available.

    Raises ValueError for another name, RuntimeError if "gpu" is asked for and there is none.
    """
    name = variable("COURSE_PROFILE") or ("gpu" if torch.cuda.is_available() else "cpu")
    if name not in PROFILES:
        raise ValueError(f"COURSE_PROFILE must be one of {', '.join(PROFILES)}, got {name!r}")
    if name == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("COURSE_PROFILE=gpu, but torch sees no CUDA device; unset it or choose cpu")
    return PROFILES[name]


def processor() -> str:
    """Model name of the CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment_report() -> dict[str, str]:
    """Versions, device, threads and profile, as text by name: what a bug report or a recorded run should carry."""
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "profile": profile().name,
    }


def untested_versions() -> list[str]:
    """Complaints about versions this course was not tried with; an empty list when all is well."""
    complaints = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        complaints.append(f"Python {platform.python_version()}: the course was tried with 3.11 to 3.13")
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if not SUPPORTED_TORCH[0] <= version <= SUPPORTED_TORCH[1]:
        complaints.append(f"torch {torch.__version__}: the course was tried with 2.11 to 2.15")
    return complaints
