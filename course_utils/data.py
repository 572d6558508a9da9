"""Fashion-MNIST, which lies in the repository, and a toy distribution, as tensors. Larger data sets: long_runs/datasets.py."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .environment import expanded
from .validation import require_bool, require_counts

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
    require_bool(train, "train")
    require_counts(limit=limit)
    folder = DATA_DIR / "FashionMNIST" if root is None else folder_at(root, "root")
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


def folder_at(path: str | Path, name: str) -> Path:
    """`path` with a leading ~ spelled out; DataError, which calls it `name`, if that stands for no folder."""
    try:
        return expanded(path)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def ring_of_gaussians(
    n: int, modes: int = 8, radius: float = 2.0, std: float = 0.02, generator: torch.Generator | None = None
) -> Tensor:
    """n points (n, 2) from an even mixture of `modes` round Gaussians on a circle."""
    require_counts(n=n, modes=modes)
    angles = torch.arange(modes) * (2 * math.pi / modes)
    centres = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    chosen = torch.randint(modes, (n,), generator=generator)
    return centres[chosen] + std * torch.randn(n, 2, generator=generator)
