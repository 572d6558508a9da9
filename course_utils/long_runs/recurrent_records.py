"""Lecture 06's longer runs: ``python -m course_utils recurrent data/recorded_runs/recurrent.json`` (minutes).

The window of K at three learning rates and two lengths, three classic tasks under six cells, memories of 100 steps, and
a string of eight letters read by a wider and by a longer-trained GRU. Trained numbers differ a little between machines.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..data import load_fashion_mnist
from ..environment import environment_report
from ..recurrent import (
    gru_states,
    latch,
    networks,
    plain_networks,
    plain_scores,
    read_out,
    strings,
    train_side_by_side,
    window,
)
from .command_line import place

GAINS, SEEDS, STARTS = (0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0), range(5), ("Gaussian", "orthogonal")
CELLS = ("RNN", "RNN orthogonal", "RNN with SN", "LSTM bias 1", "LSTM bias log T", "GRU")


def adding(batch: int, T: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Add the two marked numbers, one in each half: x is (batch, T, 2), a number in [0, 1] and a mark; y is (batch, 1)."""
    x = torch.stack([torch.rand(batch, T, generator=generator), torch.zeros(batch, T)], dim=2)
    row, first = torch.arange(batch), torch.randint(T // 2, (batch,), generator=generator)
    second = T // 2 + torch.randint(T - T // 2, (batch,), generator=generator)
    x[row, first, 1] = x[row, second, 1] = 1
    return x, (x[row, first, 0] + x[row, second, 0])[:, None]


def copying(batch: int, T: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Repeat five symbols of four after T blanks and a mark: x is (batch, T + 10, 6), one-hot; y is (batch, 5)."""
    y = torch.randint(4, (batch, 5), generator=generator)
    tokens = torch.full((batch, T + 10), 4)
    tokens[:, :5], tokens[:, 5 + T] = y, 5
    return F.one_hot(tokens, 6).float(), y


class Reader(nn.Module):
    """A recurrent cell of torch's with a linear map from each of its states."""

    def __init__(self, cell: str, d_in: int, n: int, d_out: int, T: int):
        super().__init__()
        kind = {"L": nn.LSTM, "G": nn.GRU, "R": nn.RNN}[cell[0]]
        self.cell, self.head = kind(d_in, n, batch_first=True), nn.Linear(n, d_out)
        with torch.no_grad():
            if cell == "RNN orthogonal":
                nn.init.orthogonal_(self.cell.weight_hh_l0)
            if cell.startswith("LSTM"):  # the gates are i, f, g, o; the other bias stays near 0
                self.cell.bias_ih_l0[n : 2 * n] += math.log(T) if cell.endswith("T") else 1.0
        if cell == "RNN with SN":
            nn.init.normal_(self.cell.weight_hh_l0)
            spectral_norm(self.cell, "weight_hh_l0")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


def learn(cell: str, task: Callable, sizes: tuple[int, int], T: int, answers: int, steps: int, seed: int) -> float:
    """Train one cell of 32 units (Adam, 5e-3, clipped at 1, batches of 32); its test accuracy, or error for numbers."""
    torch.manual_seed(seed)
    model, generator = Reader(cell, sizes[0], 32, sizes[1], T), torch.Generator().manual_seed(seed + 50)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        x, y = task(32, generator)
        out = model(x)[:, -answers:]
        loss = F.mse_loss(out[..., 0], y) if y.is_floating_point() else F.cross_entropy(out.flatten(0, 1), y.flatten())
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    model.eval()
    with torch.no_grad():
        x, y = task(0, generator)
        out = model(x)[:, -answers:]
    return float(F.mse_loss(out[..., 0], y) if y.is_floating_point() else (out.argmax(-1) == y).float().mean())


def tasks() -> dict[str, dict]:
    """The three tasks by name; `task(0, generator)` gives the test set."""
    train, test = load_fashion_mnist(16, limit=12_000), load_fashion_mnist(16, train=False, limit=2_000)

    def rows(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if not batch:
            return test.images[:, 0], test.labels[:, None]
        chosen = torch.randint(len(train.images), (batch,), generator=generator)
        return train.images[chosen, 0], train.labels[chosen, None]

    return {
        "rows": {"task": rows, "sizes": (16, 10), "T": 16, "answers": 1, "steps": 250},
        "adding": {"task": lambda b, g: adding(b or 1000, 30, g), "sizes": (2, 1), "T": 30, "answers": 1, "steps": 500},
        "copying": {
            "task": lambda b, g: copying(b or 1000, 15, g),
            "sizes": (6, 4),
            "T": 15,
            "answers": 5,
            "steps": 500,
        },
    }


def rounded(values: Tensor) -> list[float]:
    return [float(f"{v:.3g}") for v in values.flatten().tolist()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make every run and write the record named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m course_utils recurrent", description=__doc__)
    parser.add_argument("file", type=place)
    file, begin = parser.parse_args(arguments).file, time.process_time()
    starts = [(kind, K, seed) for kind in STARTS for K in GAINS for seed in SEEDS]
    record = {"gains": GAINS, "seeds": len(SEEDS), "starts": STARTS, "window": {}, "tasks": {}, "hundred": {}}
    for T in (30, 60):
        for lr in (1e-3, 3e-3, 1e-2):
            accuracy, norms = window(starts, T, lr)
            record["window"][f"{T} {lr:g}"] = {"accuracy": rounded(accuracy), "norm": rounded(norms)}
    for name, task in tasks().items():
        record["tasks"][name] = {cell: [float(f"{learn(cell, **task, seed=s):.3g}") for s in SEEDS] for cell in CELLS}
    for kind, activation in (("Gaussian", torch.tanh), ("orthogonal", torch.tanh), ("identity", torch.relu)):
        p, task = plain_networks([(kind, seed) for seed in SEEDS]), lambda b, g: latch(b, 100, 0.1, g)
        scores = lambda p, x, a=activation: plain_scores(p, x, a)
        record["hundred"][kind] = rounded(train_side_by_side(scores, p, task, 200, 1e-3)[200])
    scores = lambda p, x: read_out(p, gru_states(p, x)[-1]).unflatten(-1, (8, 8))
    for name, n, steps in (("wide", 128, 300), ("long", 32, 1200), ("narrow", 16, 300)):
        p = networks(range(3), n, 3, 8, 64)
        record[name] = rounded(train_side_by_side(scores, p, lambda b, g: strings(b, 8, g), steps, 5e-3)[steps])
    record["command"] = "python -m course_utils recurrent data/recorded_runs/recurrent.json"
    record |= {"environment": environment_report(), "cpu_seconds": round(time.process_time() - begin)}
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
