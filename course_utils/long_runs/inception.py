"""Inception score and FID, on the features of the Inception network that torch-fidelity carries over from TensorFlow.

Only what comes from here has these names. The same formulas on the features of the course's small classifier (see
`metrics`) are called classifier score and Frechet distance; their values cannot be compared with these.
"""

from __future__ import annotations

import hashlib
import math
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data import DataError
from ..environment import expanded, variable
from ..metrics import frechet_distance, inception_score
from ..validation import require_images
from .datasets import downloads, why_not_written

ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Protocol(NamedTuple):
    """FID between n_real and n_generated images; each inception score from n_score generated ones."""

    n_real: int
    n_generated: int
    n_score: int = 5_000  # ten times: the paper's, and also the ten splits of 50,000 of Salimans et al. (2016)


PROTOCOLS = {"paper": Protocol(10_000, 5_000), "50k": Protocol(50_000, 50_000)}


class InceptionMetrics(NamedTuple):
    """What came out, and from how many images; the spread is divided by N as published, NaN for one split."""

    inception_score: float
    inception_score_std: float
    fid: float
    n_real: int
    n_generated: int
    n_score: int
    splits: int


def load_inception(weights: str | Path | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """The network: bytes (N, 3, s, s) to features (N, 2048) and logits (N, 1008).

    Its weights are the file `weights`, else $COURSE_INCEPTION, else downloaded to data/downloads or $COURSE_DATA.
    Raises DataError if they are neither there nor reachable, or are not the published ones (SHA-256).
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # needed for nothing else
    except ImportError as error:
        raise DataError(
            "FID needs the package torch-fidelity: python -m pip install -r requirements-fid.txt"
        ) from error
    given, name = weights or variable("COURSE_INCEPTION"), ADDRESS.rsplit("/", 1)[1]
    try:
        path = expanded(given) if given else downloads() / name
    except ValueError as error:
        raise DataError(f"The path of the Inception weights: {error}") from error
    try:
        if not given and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(ADDRESS, path, hash_prefix=SHA256)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != SHA256:
            raise OSError(f"a damaged copy or another file: expected SHA-256 {SHA256}, found {found}")
    except (OSError, RuntimeError, HTTPException) as error:
        if not given and (reason := why_not_written(path.parent, name, error)):
            raise DataError(f"The Inception weights could not be loaded from {path} ({error}). {reason}") from error
        raise DataError(
            f"The Inception weights could not be loaded from {path} ({error}). Address: {ADDRESS}. Without network: "
            "fetch them there on another machine and give the file's path as `weights` or in COURSE_INCEPTION; a "
            "damaged copy must be deleted first."
        ) from error
    with torch.random.fork_rng(devices=[]):  # it draws weights before it reads them; a training must not notice
        return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path)).to(device)


def to_bytes(images: Tensor) -> Tensor:
    """Images (N, 3 or 1, s, s) in [-1, 1] as bytes (N, 3, s, s): 127.5 x + 127.5, cut off as in the paper's code."""
    # in float32 images made of bytes come back exactly; in double 63 of their 256 levels would fall by one
    levels = images.float() * 127.5 + 127.5
    return levels.clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)


@torch.no_grad()
def inception_features(images: Tensor, inception: nn.Module, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """Features (N, 2048) and logits (N, 1008), on the CPU, of images (N, 3 or 1, s, s) in [-1, 1]."""
    require_images(images)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {tuple(images.shape)}")
    device = next(inception.parameters()).device
    batches = [inception(to_bytes(batch.to(device))) for batch in images.split(batch_size)]
    features, logits = (torch.cat([part.cpu() for part in parts]) for parts in zip(*batches))
    return features, logits


def inception_metrics(
    generated: Tensor,
    real: Tensor,
    protocol: str | Protocol = "paper",
    inception: nn.Module | None = None,
    splits: int = 10,
) -> InceptionMetrics:
    """Inception score and FID of images (N, 3 or 1, s, s) in [-1, 1], computed on the device of `generated`.

    FID takes the first n_real and n_generated images of the protocol (a name in PROTOCOLS or your own), the score
    `splits` times n_score generated ones: the paper's ten scores need 50,000, `splits=1` is content with 5,000. Compare
    only values of one protocol. inception: what `load_inception` gives, which is called if it is None. Raises ValueError for fewer images, another shape or range; DataError without weights.
    """
    counts = PROTOCOLS.get(protocol, protocol)
    if not isinstance(counts, Protocol) or splits < 1 or min(counts) < 2:
        known = f"{' or '.join(PROTOCOLS)} or a Protocol of counts from 2 up"
        raise ValueError(f"protocol must be {known} and splits at least 1, got {counts!r} and {splits}")
    scored = splits * counts.n_score
    needed = max(counts.n_generated, scored)
    for name, n, least in (("generated", len(generated), needed), ("real", len(real), counts.n_real)):
        if n < least:
            raise ValueError(f"protocol {protocol}, splits={splits}, needs {least} {name} images, got {n}")
    if inception is None:
        inception = load_inception(device=generated.device)
    features, logits = inception_features(generated[:needed], inception)
    real_features, _ = inception_features(real[: counts.n_real], inception)
    scores = inception_score(logits[:scored].double().softmax(1), splits)
    spread = float(scores.std(correction=0)) if splits > 1 else math.nan
    fid = frechet_distance(real_features, features[: counts.n_generated])
    return InceptionMetrics(float(scores.mean()), spread, fid, *counts, splits)
