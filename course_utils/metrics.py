"""How far generated images are from real ones: Frechet distance (24), inception-style score, and their features.

The formulas are those of FID and inception score. On the features of this course's small classifier the results are
called Frechet distance and classifier score: they cannot be compared with FID and IS, which use Inception features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Images
from .models import SmallClassifier
from .spectral import float32_by_default
from .validation import (
    require_features,
    require_gaussians,
    require_images,
    require_labelled,
    require_tensor,
    require_whole,
)


def _without_noise(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues that are not negative in exact arithmetic, with those that rounding cannot tell from 0 set to 0."""
    noise = eigenvalues.abs().max() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return torch.where(eigenvalues > noise, eigenvalues, 0.0)


def matrix_sqrt(matrix: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite d x d matrix, by its eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * _without_noise(values).sqrt() @ vectors.mT


def gaussian_frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Equation (24): ||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2}) of two Gaussians; means (d), covariances (d, d).

    In double precision, and never negative. Raises ValueError for other shapes, NaN or infinite entries, and a matrix
    that is no covariance: not symmetric, or with a negative eigenvalue.
    """
    require_gaussians(mean1=mean1, cov1=cov1, mean2=mean2, cov2=cov2)
    mean1, cov1, mean2, cov2 = (tensor.double() for tensor in (mean1, cov1, mean2, cov2))
    root = matrix_sqrt(cov1)
    # C1 C2 has the eigenvalues of the symmetric C1^{1/2} C2 C1^{1/2}: the trace of its root is what (24) asks for
    trace_root = _without_noise(torch.linalg.eigvalsh(root @ cov2 @ root)).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * trace_root
    return float(distance.clamp_min(0))  # below 0 by rounding only


def frechet_distance(features1: Tensor, features2: Tensor) -> float:
    """Frechet distance (24) between Gaussians fitted to two sets of features, (N, d) and (M, d), in double precision.

    It falls with the number of samples: compare only values at equal N and M. Raises ValueError for other shapes,
    fewer than two samples, NaN or infinite values.
    """
    require_features(features1, "features1")
    require_features(features2, "features2")
    a, b = features1.detach().double(), features2.detach().double()
    if (a.shape[1], a.device) != (b.shape[1], b.device):
        got = " and ".join(f"{t.shape[1]} on {t.device}" for t in (a, b))
        raise ValueError(f"both feature sets need the same d on the same device, got {got}")
    cov_a, cov_b = torch.cov(a.mT), torch.cov(b.mT)
    return gaussian_frechet_distance(a.mean(0), torch.atleast_2d(cov_a), b.mean(0), torch.atleast_2d(cov_b))


def inception_score(probabilities: Tensor, splits: int = 1) -> Tensor:
    """exp(E_x KL(p(y|x) || p(y))) for class probabilities (N, classes), one value for each of `splits` parts.

    Between 1 and the number of classes (Salimans et al. 2016). Raises ValueError unless rows are probabilities.
    """
    require_tensor(probabilities, "probabilities", "class probabilities (N, classes)", 2, 2)
    splits = require_whole(splits, "splits", 0)
    p = probabilities.detach().double()
    tolerance = max(1e-3, 2 * torch.finfo(probabilities.dtype).eps)  # rows of bfloat16 add up to 1 to two digits
    if not 1 <= splits <= len(p):
        raise ValueError(f"probabilities must be (N, classes) with N >= splits = {splits}, got {tuple(p.shape)}")
    if (p < 0).any() or ((p.sum(1) - 1).abs() > tolerance).any():
        raise ValueError("each row of probabilities must be non-negative and sum to 1")
    p = p / p.sum(1, keepdim=True) if tolerance > 1e-3 else p
    scores = []
    for part in p.tensor_split(splits):
        marginal = part.mean(0, keepdim=True)
        scores.append((torch.xlogy(part, part) - torch.xlogy(part, marginal)).sum(1).mean().exp())
    return torch.stack(scores)


@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated images (Kynkaanniemi et al. 2019) from features (N, d) and (M, d).

    Around every feature of a set lies a ball that reaches to its k-th neighbour in the same set. Precision is the share of
    `fake` inside a ball of `real`: are the samples like real ones? Recall is the share of `real` inside a ball of `fake`:
    is every kind of real image there? Raises ValueError unless both sets have the same d and more than k rows.
    """
    require_features(real, "real")
    require_features(fake, "fake")
    k = require_whole(k, "k")
    a, b = real.detach().double(), fake.detach().double()
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) <= k:
        raise ValueError(
            f"need features of the same d, more than k = {k} of each, got {tuple(a.shape)} and {tuple(b.shape)}"
        )

    def radii(x: Tensor) -> Tensor:
        return torch.cdist(x, x).kthvalue(k + 1, dim=1).values  # the nearest one is x itself

    distances = torch.cdist(b, a)  # M x N
    precision = (distances <= radii(a)).any(dim=1).double().mean()
    recall = (distances <= radii(b)[:, None]).any(dim=0).double().mean()
    return float(precision), float(recall)


def train_classifier(data: Images, epochs: int = 2, batch_size: int = 128, lr: float = 2e-3, seed: int = 0):
    """Train a SmallClassifier on labelled images with Adam and return it in evaluation mode.

    Deterministic in `seed` on one machine with one number of threads; torch's global random state is left alone.
    Raises TypeError or ValueError for anything but images in [-1, 1] with labels of at least two classes, from 0 up.
    """
    require_labelled(data)
    if (data.labels == data.labels[0]).all():
        raise ValueError(f"a classifier needs labels of at least two classes, but all are {int(data.labels[0])}")
    epochs = require_whole(epochs, "epochs", 0)
    batch_size = require_whole(batch_size, "batch_size")
    seed = require_whole(seed, "seed", 0)
    with torch.random.fork_rng(devices=[]), float32_by_default():
        torch.manual_seed(seed)
        classifier = SmallClassifier(data.images.shape[1], int(data.labels.max()) + 1).to(data.images.device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.images), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(classifier(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: nn.Module, data: Images) -> float:
    """Share of the images (0 to 1) whose label has the largest logit."""
    require_labelled(data)
    hits = [(classifier(x).argmax(1) == y).sum() for x, y in zip(data.images.split(500), data.labels.split(500))]
    return float(torch.stack(hits).sum() / len(data.labels))


@torch.no_grad()
def features_of(classifier: SmallClassifier, images: Tensor) -> Tensor:
    """Features (N, 64) of images (N, channels, s, s), computed in batches."""
    require_images(images)
    return torch.cat([classifier.features(batch) for batch in images.split(500)])


@torch.no_grad()
def probabilities_of(classifier: SmallClassifier, images: Tensor) -> Tensor:
    """Class probabilities (N, classes) of images, computed in batches."""
    require_images(images)
    return torch.cat([classifier(batch).softmax(1) for batch in images.split(500)])
