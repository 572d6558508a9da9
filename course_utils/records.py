"""Recorded runs: what a long training has left behind, to be looked at years later without training anything.

A record is a compressed numpy archive, ``data/recorded_runs/*.npz``; how it is made stands in long_runs.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from .data import Images
from .metrics import features_of, train_classifier
from .models import SmallClassifier
from .training import Config


class RunError(RuntimeError):
    """A file of a run is missing, damaged, of another run, or could not be written; the message says which and why."""


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


def load_record(path: str | Path) -> Record:
    """Read a record; RunError for a missing or damaged file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return Record(json.loads(str(arrays.pop("about"))), arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is not a record that can be read: {error}") from error


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
