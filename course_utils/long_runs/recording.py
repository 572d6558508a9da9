"""Making a record: configuration, environment, curves, and the measurements at some steps."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..environment import environment_report, expanded
from ..metrics import features_of, frechet_distance, inception_score, precision_recall, probabilities_of
from ..records import Judge, Record
from ..spectral import linear_layers, output_dim, used_weight, weight_matrix
from ..training import CURVES, Run
from .files import written_whole
from .parallel import world_size


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
