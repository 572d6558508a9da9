"""Real images and toy distributions as tensors, with the network off where possible.

Fashion-MNIST lies in the repository; CIFAR-10 and STL-10 come through torchvision's own download.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import datasets

from .environment import expanded, variable

DATA_DIR = Path(__file__).resolve().parents[1] / "data"
RESTORE = "`git checkout -- data` brings it back; without git, take it from a fresh copy of the course."
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")

# SHA-256 of the unpacked content: archives packed again by someone else differ, what they hold does not.
FASHION_SHA256 = {
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} must be a whole number, 1 or more, got {count!r}")


class DataError(RuntimeError):
    """A data file is missing, damaged or cannot be downloaded; the message says which and what to do."""


class Images(NamedTuple):
    """Images (N, channels, size, size), float32 in [-1, 1], with their labels (N), int64."""

    images: Tensor
    labels: Tensor


def _verified(path: Path) -> bytes:
    """Unpacked content of a gzip file of Fashion-MNIST, after comparing its SHA-256."""
    try:
        packed = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{path.name} is missing: expected it at {path}. {RESTORE}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): see to its permissions and its disk.") from error
    try:
        content = gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is damaged (truncated or not gzip: {error}). {RESTORE}") from error
    found, expected = hashlib.sha256(content).hexdigest(), FASHION_SHA256[path.name]
    if found != expected:
        raise DataError(
            f"{path} does not hold what it should: expected SHA-256 {expected} of its unpacked content, found {found}. "
            + RESTORE
        )
    return content


def load_fashion_mnist(
    size: int = 28, train: bool = True, limit: int | None = None, root: str | Path | None = None
) -> Images:
    """Fashion-MNIST (Xiao et al. 2017) from `data/FashionMNIST`, checksums verified; nothing is written there.

    size: 28 as published, 32 with a black border of 2 pixels, 16 the same averaged over 2x2 pixels.
    limit: only the first images (at least 1, or all if there are fewer). Returns images (N, 1, size, size) in [-1, 1]
    and labels 0..9, see FASHION_CLASSES. Raises ValueError for another size, DataError for a missing or damaged file.
    """
    if size not in (16, 28, 32):
        raise ValueError(f"size must be the number 16, 28 or 32, got {size!r}")
    _check_counts(limit=limit)
    folder = DATA_DIR / "FashionMNIST" if root is None else _expanded(root, "root")
    half = "train" if train else "t10k"
    # As published: 16 bytes of header, then the pixels row by row; 8 bytes, then a label each.
    pixels = torch.frombuffer(
        bytearray(_verified(folder / f"{half}-images-idx3-ubyte.gz")), dtype=torch.uint8, offset=16
    )
    labels = torch.frombuffer(
        bytearray(_verified(folder / f"{half}-labels-idx1-ubyte.gz")), dtype=torch.uint8, offset=8
    )
    images = pixels.view(-1, 1, 28, 28)[:limit].float().div(127.5).sub(1)
    if size != 28:
        images = F.pad(images, (2, 2, 2, 2), value=-1.0)
    if size == 16:
        images = F.avg_pool2d(images, 2)
    return Images(images, labels[:limit].long())


def _expanded(path: str | Path, name: str) -> Path:
    try:
        return expanded(path)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def downloads(root: str | Path | None = None) -> Path:
    """The folder for downloads: `root`, else $COURSE_DATA (unless it is empty), else data/downloads of the course.

    A leading ~ stands for the home folder. Raises DataError if it stands for none, or if `root` is empty.
    """
    if root is not None:
        return _expanded(root, "root")
    chosen = variable("COURSE_DATA")
    return _expanded(chosen, "COURSE_DATA") if chosen else DATA_DIR / "downloads"


def why_not_written(folder: Path, archive: str, error: BaseException) -> str | None:
    """One sentence with the way out if `folder` is what failed, not the network and not the file; else None."""
    number = getattr(error, "errno", None)
    elsewhere = "set COURSE_DATA to a folder of your own"
    if number is not None and number in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"The disk of {folder} is full: make room there, or {elsewhere} on another disk."
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not os.path.isdir(existing):
        return f"{existing} is a file, not a folder: {elsewhere}."
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) or not os.access(existing, os.W_OK):
        if os.path.isfile(folder / archive):
            return (
                f"{archive} lies in {folder}, but this folder cannot be written to, so it cannot be unpacked there: have "
                f"it unpacked there by the folder's owner, or {elsewhere} that holds a copy of {archive}."
            )
        return f"{folder} cannot be written to: {elsewhere}."
    return None


def _download(dataset_class: type, name: str, address: str, root: str | Path | None, **options):
    """Build a torchvision data set, downloading it if needed; DataError with the way out if that fails."""
    folder, archive = downloads(root), address.rsplit("/", 1)[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return dataset_class(folder, download=True, **options)
    except (URLError, OSError, RuntimeError, EOFError) as error:
        if reason := why_not_written(folder, archive, error):
            raise DataError(f"{name} could not be loaded from {folder} ({error}). {reason}") from error
        raise DataError(
            f"{name} could not be loaded from {folder}. Address tried: {address} ({error}). Without network: fetch "
            f"the file {archive} on another machine and put it, still packed, into {folder} "
            "(or set COURSE_DATA to the folder that holds it); a damaged copy must be deleted first."
        ) from error


def load_cifar10(train: bool = True, limit: int | None = None, root: str | Path | None = None) -> Images:
    """CIFAR-10 (Krizhevsky 2009), downloaded by torchvision into `root` (default data/downloads or $COURSE_DATA).

    Returns images (N, 3, 32, 32) in [-1, 1] and labels 0..9. Raises DataError if it is neither there nor reachable.
    """
    _check_counts(limit=limit)
    dataset = _download(datasets.CIFAR10, "CIFAR-10", datasets.CIFAR10.url, root, train=train)
    images = torch.from_numpy(dataset.data[:limit]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return Images(images.contiguous(), torch.tensor(dataset.targets[:limit]))


def load_stl10(limit: int | None = None, root: str | Path | None = None) -> Images:
    """The unlabelled part of STL-10 (Coates et al. 2011) at 48x48 as in the paper: (N, 3, 48, 48) in [-1, 1]."""
    _check_counts(limit=limit)
    dataset = _download(datasets.STL10, "STL-10", datasets.STL10.url, root, split="unlabeled")
    chunks = torch.from_numpy(dataset.data[:limit]).split(2000)
    images = torch.cat([F.avg_pool2d(chunk.float().div(127.5).sub(1), 2) for chunk in chunks])
    return Images(images, torch.full((len(images),), -1))


def _around(centres: Tensor, n: int, std: float, generator: torch.Generator | None) -> Tensor:
    chosen = torch.randint(len(centres), (n,), generator=generator)
    return centres[chosen] + std * torch.randn(n, 2, generator=generator)


def ring_of_gaussians(
    n: int, modes: int = 8, radius: float = 2.0, std: float = 0.02, generator: torch.Generator | None = None
) -> Tensor:
    """n points (n, 2) from an even mixture of `modes` round Gaussians on a circle."""
    _check_counts(n=n, modes=modes)
    angles = torch.arange(modes) * (2 * math.pi / modes)
    return _around(radius * torch.stack([angles.cos(), angles.sin()], dim=1), n, std, generator)


def grid_of_gaussians(
    n: int, side: int = 5, spacing: float = 1.0, std: float = 0.05, generator: torch.Generator | None = None
) -> Tensor:
    """n points (n, 2) from an even mixture of side x side round Gaussians on a square grid around the origin."""
    _check_counts(n=n, side=side)
    ticks = spacing * (torch.arange(side) - (side - 1) / 2)
    return _around(torch.cartesian_prod(ticks, ticks), n, std, generator)
