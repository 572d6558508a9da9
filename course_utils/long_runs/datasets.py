"""The data sets that a command can name, one row each; two of them come through torchvision's own download."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import datasets

from ..data import DATA_DIR, DataError, Images, folder_at, load_fashion_mnist
from ..environment import expanded, variable
from ..validation import require_bool, require_choice, require_counts


def downloads(root: str | Path | None = None) -> Path:
    """The folder for downloads: `root`, else $COURSE_DATA (unless it is empty), else data/downloads of the course.

    A leading ~ stands for the home folder. Raises DataError if it stands for none, or if `root` is empty.
    """
    if root is not None:
        return folder_at(root, "root")
    chosen = variable("COURSE_DATA")
    return folder_at(chosen, "COURSE_DATA") if chosen else DATA_DIR / "downloads"


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
    require_bool(train, "train")
    require_counts(limit=limit)
    dataset = _download(datasets.CIFAR10, "CIFAR-10", datasets.CIFAR10.url, root, train=train)
    images = torch.from_numpy(dataset.data[:limit]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return Images(images.contiguous(), torch.tensor(dataset.targets[:limit]))


def load_stl10(limit: int | None = None, root: str | Path | None = None) -> Images:
    """The unlabelled part of STL-10 (Coates et al. 2011) at 48x48 as in the paper: (N, 3, 48, 48) in [-1, 1]."""
    require_counts(limit=limit)
    dataset = _download(datasets.STL10, "STL-10", datasets.STL10.url, root, split="unlabeled")
    chunks = torch.from_numpy(dataset.data[:limit]).split(2000)
    images = torch.cat([F.avg_pool2d(chunk.float().div(127.5).sub(1), 2) for chunk in chunks])
    return Images(images, torch.full((len(images),), -1))


def read_images(name: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1 or 3, size, size), uint8, and labels (N), -1 where there are none, of a .pt file; DataError for another."""
    wanted = f"{name} must hold a non-empty uint8 tensor (N, 1 or 3, size, size), as torch.save writes it"
    try:
        content = torch.load(expanded(name), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{wanted}; it is no file of tensors ({type(error).__name__})") from error
    labelled = isinstance(content, dict)
    images = content.get("images") if labelled else content
    if not isinstance(images, Tensor):
        raise DataError(f"{wanted}, alone or as `images` of a dictionary, got {type(images).__name__}")
    shape = tuple(images.shape)
    fits = len(shape) == 4 and shape[0] > 0 and shape[1] in (1, 3) and shape[2] == shape[3]
    if images.dtype != torch.uint8 or not fits:
        raise DataError(f"{wanted}, got {images.dtype} {shape}")
    labels = content.get("labels") if labelled else torch.full(shape[:1], -1)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != shape[:1]:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(f"the labels of {name} must be an int64 tensor ({shape[0]},), one for each image, got {got}")
    if labelled and labels.min() < 0:
        raise DataError(f"the labels of {name} must count from 0, got {int(labels.min())}")
    return images, labels


@dataclass(frozen=True)
class DataSet:
    """How a data set is loaded, load(size) -> Images, how many channels it has and in which sizes it comes."""

    load: Callable[[int], Images]
    channels: int
    sizes: tuple[int, ...]


DATASETS = {
    "fashion_mnist": DataSet(load_fashion_mnist, 1, (16, 28, 32)),
    "cifar10": DataSet(lambda size: load_cifar10(), 3, (32,)),
    "stl10": DataSet(lambda size: load_stl10(), 3, (48,)),
}


def load_images(name: str, size: int) -> Images:
    """Images (N, channels, size, size) in [-1, 1] of a data set or a .pt file, with labels, -1 where there are none.

    Raises ValueError for a name that is neither, DataError for data that cannot be had.
    """
    if name.endswith(".pt"):
        images, labels = read_images(name)
        order = torch.randperm(
            len(images), generator=torch.Generator().manual_seed(0)
        )  # a judge learns from the first third
        return Images(images[order].float().div(127.5).sub(1), labels[order])
    require_choice(name, "data", DATASETS)
    return DATASETS[name].load(size)
