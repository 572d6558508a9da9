"""Recurrent networks: products of Jacobians, gated cells, two memory tasks, many small networks trained side by side.

Shapes: T steps, B sequences in a batch, d inputs, n hidden units. A time axis comes first, and weights act on the last
axis, so that the same functions serve one network (W_hh is n x n, a state is (B, n)) and M networks side by side
(W_hh is (M, n, n), a state is (M, B, n)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Task = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # batch size, generator -> inputs (T, B, d), classes
Networks = dict[str, Tensor]  # the parameters of M networks by name, each with a leading axis of M


def latch(batch: int, steps: int, noise: float, generator: torch.Generator, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Remember one symbol: x is (T, B, classes), one-hot at the first step and Gaussian noise afterwards; y is (B)."""
    y = torch.randint(classes, (batch,), generator=generator)
    x = noise * torch.randn(steps, batch, classes, generator=generator)
    x[0] = F.one_hot(y, classes)
    return x, y


def strings(batch: int, length: int, generator: torch.Generator, letters: int = 8) -> tuple[Tensor, Tensor]:
    """Remember a whole string: x is (length, batch, letters), one-hot; y is (batch, length)."""
    y = torch.randint(letters, (batch, length), generator=generator)
    return F.one_hot(y, letters).float().movedim(1, 0), y


def last_cue(
    batch: int, steps: int, noise: float, generator: torch.Generator, classes: int = 4
) -> tuple[Tensor, Tensor]:
    """Remember the last of several symbols: each of the first T // 3 steps brings one with probability 0.4, and the
    first step always; noise on all steps. Shapes as in `latch`."""
    shown = max(1, steps // 3)
    symbols = torch.randint(classes, (shown, batch), generator=generator)
    present = torch.rand(shown, batch, generator=generator) < 0.4
    present[0] = True
    x = noise * torch.randn(steps, batch, classes, generator=generator)
    x[:shown] += F.one_hot(symbols, classes) * present[..., None]
    last = (present * torch.arange(shown)[:, None]).amax(0)
    return x, symbols.gather(0, last[None])[0]


def recurrent_weight(kind: str, n: int, generator: torch.Generator) -> Tensor:
    """An n x n start for W_hh: "Gaussian" (variance 1/n, so that rho is near 1), "orthogonal" or "identity"."""
    gaussian = torch.randn(n, n, generator=generator) / math.sqrt(n)
    if kind == "Gaussian":
        return gaussian
    if kind == "orthogonal":
        return torch.linalg.qr(gaussian).Q
    if kind == "identity":
        return torch.eye(n)
    raise ValueError(f"kind must be Gaussian, orthogonal or identity, got {kind!r}")


def rnn_states(
    W_hh: Tensor, inputs: Tensor, h_init: Tensor | float = 0.0, activation: Callable[[Tensor], Tensor] = torch.tanh
) -> Tensor:
    """States h_1 ... h_T of h_t = a(inputs_t + W_hh h_(t-1)); at t = 1, h_init stands in the place of W_hh h_0.

    inputs: (T, ..., n), the sums W_hx x_t + b_h. Returns (T, ..., n).
    """
    states = [activation(inputs[0] + h_init)]
    for from_input in inputs[1:]:
        states.append(activation(from_input + states[-1] @ W_hh.mT))
    return torch.stack(states)


def jacobian_products(W_hh: Tensor, slopes: Tensor) -> Iterator[Tensor]:
    """The Jacobians of 1, 2, ..., T steps: D_1 W, D_2 W D_1 W, ..., where D_t holds the activation's slopes at step t.

    W_hh: (..., n, n). slopes: (T, ..., n), for tanh 1 - h_t^2. Yields T tensors (..., n, n).
    Raises ValueError if the sizes do not fit.
    """
    n = W_hh.shape[-1]
    if W_hh.ndim < 2 or W_hh.shape[-2] != n or slopes.shape[-1] != n:
        raise ValueError(
            f"W_hh must be (..., n, n) and slopes (T, ..., n), got {(*W_hh.shape,)} and {(*slopes.shape,)}"
        )
    product = torch.eye(n, dtype=W_hh.dtype)
    for slope in slopes:
        product = slope[..., None] * (W_hh @ product)  # the newest factor stands on the left
        yield product


def lstm_step(
    from_input: Tensor,
    h: Tensor,
    c: Tensor,
    W_hh: Tensor,
    peephole: Tensor | None = None,
    coupled: Tensor | bool = False,
    no_forget: Tensor | bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM (gates in torch's order i, f, g, o); returns the new h and c.

    from_input: (..., 4n), W_x x_t plus both biases. peephole: three weights, each like c, with which the gates i, f, o
    see the cell (Gers and Schmidhuber 2000). coupled: f = 1 - i. no_forget: f = 1 (the cell of 1997).
    """
    i, f, g, o = (from_input + h @ W_hh.mT).chunk(4, dim=-1)
    if peephole is not None:
        i, f = i + peephole[0] * c, f + peephole[1] * c
    i, f = i.sigmoid(), f.sigmoid()
    f = torch.where(torch.as_tensor(coupled), 1 - i, f)
    f = torch.where(torch.as_tensor(no_forget), 1.0, f)
    c = f * c + i * g.tanh()
    if peephole is not None:
        o = o + peephole[2] * c
    return o.sigmoid() * c.tanh(), c


def gru_step(from_input: Tensor, h: Tensor, W_hh: Tensor, b_hh: Tensor | float = 0.0) -> Tensor:
    """One step of a GRU as torch has it (gates r, z, n; z keeps the old state); returns the new h.

    from_input: (..., 3n), W_x x_t + b_x. The other bias cannot be added to it: r multiplies its last third.
    """
    x_r, x_z, x_n = from_input.chunk(3, dim=-1)
    h_r, h_z, h_n = (h @ W_hh.mT + b_hh).chunk(3, dim=-1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    return (1 - z) * (x_n + r * h_n).tanh() + z * h


def networks(seeds: Sequence[int], n: int, n_gates: int = 1, n_in: int = 4, n_out: int = 4) -> Networks:
    """Parameters of len(seeds) networks, uniform in +-1/sqrt(n) like torch's: W_hh, W_hx, b_h (n_gates n rows), W_oh, b_o."""
    sizes = {"W_hh": (n_gates * n, n), "W_hx": (n_gates * n, n_in), "b_h": (1, n_gates * n), "W_oh": (n_out, n)}
    made = {name: [] for name in (*sizes, "b_o")}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, size in {**sizes, "b_o": (1, n_out)}.items():
            made[name].append((2 * torch.rand(size, generator=generator) - 1) / math.sqrt(n))
    return {name: torch.stack(tensors) for name, tensors in made.items()}


def plain_networks(starts: Sequence[tuple[str, int]], n: int = 32, classes: int = 4) -> Networks:
    """Networks with W_hh of the kind and seed in `starts` (see `recurrent_weight`), Gaussian W_hx (variance 1/4) and
    W_oh (1/n), and no biases at first: parameters for `plain_scores`."""
    made: dict[str, list[Tensor]] = {"W_hh": [], "W_hx": [], "b_h": [], "W_oh": [], "b_o": []}
    for kind, seed in starts:
        generator = torch.Generator().manual_seed(seed)
        made["W_hx"].append(torch.randn(n, classes, generator=generator) / 2)
        made["W_hh"].append(recurrent_weight(kind, n, generator))
        made["W_oh"].append(torch.randn(classes, n, generator=generator) / math.sqrt(n))
        made["b_h"].append(torch.zeros(1, n))
        made["b_o"].append(torch.zeros(1, classes))
    return {name: torch.stack(tensors) for name, tensors in made.items()}


def input_sums(p: Networks, x: Tensor) -> Tensor:
    """W_hx x_t + b_h of M networks that read the same x, (T, B, d): (T, M, B, rows of W_hx)."""
    return x[:, None] @ p["W_hx"].mT + p["b_h"]


def read_out(p: Networks, h: Tensor) -> Tensor:
    """W_oh h + b_o, the scores of the classes."""
    return h @ p["W_oh"].mT + p["b_o"]


def plain_scores(p: Networks, x: Tensor, activation: Callable[[Tensor], Tensor] = torch.tanh) -> Tensor:
    """Scores of the classes, (M, B, classes), read off the last state of M plain networks."""
    return read_out(p, rnn_states(p["W_hh"], input_sums(p, x), activation=activation)[-1])


def gru_states(p: Networks, x: Tensor) -> Tensor:
    """States of M GRUs that read x, (T, B, d), from h_0 = 0: (T, M, B, n)."""
    states = [torch.zeros(len(p["W_hh"]), x.shape[1], p["W_hh"].shape[-1])]
    for from_input in input_sums(p, x):
        states.append(gru_step(from_input, states[-1], p["W_hh"]))
    return torch.stack(states[1:])


def train_side_by_side(
    scores: Callable[[Networks, Tensor], Tensor],
    parameters: Networks,
    task: Task,
    steps: int,
    lr: float,
    clip: float | None = 1.0,
    optimizer: type[torch.optim.Optimizer] | Callable = torch.optim.Adam,
    marks: Sequence[int] = (),
) -> dict[int, Tensor]:
    """Train M networks in one program, on the same batches of 32; return their accuracies on 500 fresh sequences.

    scores(parameters, x): (M, B, classes), or (M, B, L, classes) when the task asks for L answers. The networks share
    no parameter, so the gradient of the summed losses is each one's own, and Adam and SGD work entry by entry; only
    clipping (each network's whole gradient to the length `clip`; None: not at all) must look at one network at a time.
    Changes `parameters` in place. Returns {step: accuracies (M)} for the steps in `marks` and the last one.
    """
    leaves = [tensor.requires_grad_() for tensor in parameters.values()]
    update, generator, accuracy = optimizer(leaves, lr), torch.Generator().manual_seed(7), {}
    for step in range(1, steps + 1):
        x, y = task(32, generator)
        s = scores(parameters, x)
        losses = F.cross_entropy(s.flatten(0, -2), y.expand(s.shape[:-1]).flatten(), reduction="none")
        gradients = torch.autograd.grad(losses.sum() / y.numel(), leaves)
        if clip is not None:
            squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients])
            factor = (clip / squares.sum(0).sqrt().clamp_min(1e-12)).clamp(max=1)
            gradients = [g * factor.view(-1, *[1] * (g.ndim - 1)) for g in gradients]
        for leaf, gradient in zip(leaves, gradients):
            leaf.grad = gradient
        update.step()
        if step in marks or step == steps:
            with torch.no_grad():
                x, y = task(500, torch.Generator().manual_seed(99))
                accuracy[step] = (scores(parameters, x).argmax(-1) == y).float().flatten(1).mean(1)
    return accuracy


def window(
    starts: Sequence[tuple[str, float, int]], T: int, lr: float, steps: int = 100, jitter: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Train plain networks on `latch` (noise 0.1) while sigma(W_hh) is held at K, for each (kind, K, seed) in `starts`.

    jitter: the relative size of a random change of every weight before training, another one for each network.
    Returns the accuracies after `steps` updates of Adam, and the norms of dh_T/dh_1 before training (the median over
    eight sequences), both of len(starts) entries.
    """
    p, generator = plain_networks([(kind, seed) for kind, _, seed in starts]), torch.Generator().manual_seed(1)
    p = {name: t * (1 + jitter * torch.randn(t.shape, generator=generator)) for name, t in p.items()}
    K = torch.tensor([K for _, K, _ in starts]).view(-1, 1, 1)
    held = lambda p: {**p, "W_hh": K * p["W_hh"] / torch.linalg.matrix_norm(p["W_hh"], ord=2, keepdim=True)}
    x, _ = latch(8, T, 0.1, torch.Generator().manual_seed(3))
    states = rnn_states(held(p)["W_hh"], input_sums(p, x))
    *_, product = jacobian_products(held(p)["W_hh"][:, None], 1 - states[1:].square())
    norms = torch.linalg.matrix_norm(product, ord=2).median(1).values
    task = lambda batch, generator: latch(batch, T, 0.1, generator)
    accuracy = train_side_by_side(lambda p, x: plain_scores(held(p), x), p, task, steps, lr)
    return accuracy[steps], norms
