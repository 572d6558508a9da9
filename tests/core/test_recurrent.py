"""recurrent.py: against torch.nn and autograd, networks side by side against each alone; the record of the longer runs."""

import functools
import json
import math
import re

import pytest
import torch
from torch import nn

from course_utils.data import DATA_DIR
from course_utils.long_runs import recurrent_records
from course_utils.recurrent import (
    gru_states,
    gru_step,
    input_sums,
    jacobian_products,
    last_cue,
    latch,
    lstm_step,
    networks,
    plain_networks,
    plain_scores,
    read_out,
    recurrent_weight,
    rnn_states,
    strings,
    train_side_by_side,
    window,
)

RECORD = json.loads((DATA_DIR / "recorded_runs" / "recurrent.json").read_text(encoding="utf-8"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# ---- tasks


def test_latch_shows_the_symbol_once():
    x, y = latch(50, 7, 0.1, seeded(), classes=5)
    assert x.shape == (7, 50, 5) and y.shape == (50,) and set(y.tolist()) <= set(range(5))
    assert (x[0].argmax(-1) == y).all() and (x[0].sum(-1) == 1).all()
    assert 0.05 < x[1:].std() < 0.15


def test_last_cue_asks_for_the_last_symbol():
    x, y = last_cue(200, 24, 0.0, seeded())
    assert x.shape == (24, 200, 4) and not x[8:].any()
    shown = x.sum(-1)  # (T, B): 1 where a symbol was shown
    assert (shown[0] == 1).all() and 0.3 < shown[1:8].mean() < 0.5
    for b in range(200):
        last = int(shown[:, b].nonzero().max())
        assert x[last, b].argmax() == y[b]
    assert (x[0].argmax(-1) != y).any()


def test_last_cue_of_a_short_sequence_has_one_symbol():
    x, y = last_cue(20, 2, 0.0, seeded())
    assert (x[0].argmax(-1) == y).all() and not x[1:].any()


def test_strings_are_one_hot():
    x, y = strings(30, 6, seeded(), letters=5)
    assert x.shape == (6, 30, 5) and torch.equal(x.argmax(-1).T, y) and (x.sum(-1) == 1).all()


# ---- one network


def test_weights_of_each_kind():
    assert torch.allclose(
        recurrent_weight("orthogonal", 6, seeded()) @ recurrent_weight("orthogonal", 6, seeded()).T,
        torch.eye(6),
        atol=1e-5,
    )
    assert torch.equal(recurrent_weight("identity", 4, seeded()), torch.eye(4))
    assert abs(recurrent_weight("Gaussian", 200, seeded()).std() * math.sqrt(200) - 1) < 0.02
    with pytest.raises(ValueError, match="Gaussian, orthogonal or identity, got 'gauss'"):
        recurrent_weight("gauss", 3, seeded())


@pytest.mark.parametrize("activation, name", [(torch.tanh, "tanh"), (torch.relu, "relu")])
def test_states_are_those_of_torch(activation, name):
    rnn = nn.RNN(3, 5, nonlinearity=name).double()
    x, h_0 = gaussian(7, 2, 3), gaussian(1, 2, 5, seed=1)
    with torch.no_grad():
        sums = x @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
        states = rnn_states(rnn.weight_hh_l0, sums, h_0[0] @ rnn.weight_hh_l0.T, activation)
        torch.testing.assert_close(states, rnn(x, h_0)[0])
        torch.testing.assert_close(rnn_states(rnn.weight_hh_l0, sums, activation=activation), rnn(x)[0])


@pytest.mark.parametrize("T", [1, 2, 6])
def test_products_are_autograds_jacobians(T):
    W, sums, h_0 = gaussian(4, 4), gaussian(T, 4, seed=1), gaussian(4, seed=2)
    states = rnn_states(W, sums, W @ h_0)
    products = list(jacobian_products(W, 1 - states.square()))
    assert len(products) == T
    for t, product in enumerate(products):
        truth = torch.autograd.functional.jacobian(lambda h, t=t: rnn_states(W, sums, W @ h)[t], h_0)
        torch.testing.assert_close(product, truth)


def test_products_of_many_networks_and_sequences():
    W, slopes = gaussian(3, 1, 4, 4), gaussian(5, 3, 2, 4, seed=1)
    *_, products = jacobian_products(W, slopes)
    assert products.shape == (3, 2, 4, 4)
    *_, one = jacobian_products(W[2, 0], slopes[:, 2, 1])
    torch.testing.assert_close(products[2, 1], one)


@pytest.mark.parametrize("W, slopes", [((3, 4), (2, 4)), ((4,), (2, 4)), ((4, 4), (2, 3))])
def test_products_say_what_does_not_fit(W, slopes):
    with pytest.raises(ValueError, match=re.escape(f"got {W} and {slopes}")):
        list(jacobian_products(torch.ones(W), torch.ones(slopes)))


# ---- gated cells


def test_lstm_step_is_torchs():
    cell = nn.LSTMCell(3, 4).double()
    x, h, c = gaussian(2, 3), gaussian(2, 4, seed=1), gaussian(2, 4, seed=2)
    sums = x @ cell.weight_ih.T + cell.bias_ih + cell.bias_hh
    for ours, theirs in zip(lstm_step(sums, h, c, cell.weight_hh), cell(x, (h, c))):
        torch.testing.assert_close(ours, theirs)


def test_variants_of_the_lstm():
    sums, h, c, W = gaussian(2, 16), gaussian(2, 4, seed=1), gaussian(2, 4, seed=2), gaussian(16, 4, seed=3)
    i, f, g, o = (sums + h @ W.T).chunk(4, dim=-1)
    new = i.sigmoid() * g.tanh()
    torch.testing.assert_close(lstm_step(sums, h, c, W, no_forget=True)[1], c + new)
    torch.testing.assert_close(lstm_step(sums, h, c, W, coupled=True)[1], (1 - i.sigmoid()) * c + new)
    p = gaussian(3, 4, seed=4)
    h_1, c_1 = lstm_step(sums, h, c, W, peephole=p)
    torch.testing.assert_close(c_1, (f + p[1] * c).sigmoid() * c + (i + p[0] * c).sigmoid() * g.tanh())
    torch.testing.assert_close(h_1, (o + p[2] * c_1).sigmoid() * c_1.tanh())  # the output gate sees the new cell
    masks = torch.tensor([True, False]).view(2, 1)
    mixed = lstm_step(sums, h, c, W, no_forget=masks)[1]
    torch.testing.assert_close(mixed[0], (c + new)[0])
    torch.testing.assert_close(mixed[1], lstm_step(sums, h, c, W)[1][1])


def test_gru_step_is_torchs():
    cell = nn.GRUCell(3, 4).double()
    x, h = gaussian(2, 3), gaussian(2, 4, seed=1)
    ours = gru_step(x @ cell.weight_ih.T + cell.bias_ih, h, cell.weight_hh, cell.bias_hh)
    torch.testing.assert_close(ours, cell(x, h))


def test_gru_states_start_at_zero_and_repeat_the_step():
    p, x = networks([0, 1], 4, 3, n_in=3), torch.randn(5, 2, 3, generator=seeded())
    states = gru_states(p, x)
    assert states.shape == (5, 2, 2, 4)
    gru = nn.GRU(3, 4)
    for name, value in zip(gru._flat_weights_names, (p["W_hx"][1], p["W_hh"][1], p["b_h"][1, 0], torch.zeros(12))):
        getattr(gru, name).data = value
    torch.testing.assert_close(states[:, 1], gru(x)[0].detach())


# ---- side by side

task = lambda batch, generator: latch(batch, 5, 0.1, generator)


def test_networks_are_made_from_their_seeds_alone():
    together, alone = networks([3, 8], 6, 4), networks([8], 6, 4)
    assert {name: tuple(t.shape) for name, t in together.items()} == {
        "W_hh": (2, 24, 6), "W_hx": (2, 24, 4), "b_h": (2, 1, 24), "W_oh": (2, 4, 6), "b_o": (2, 1, 4)
    }  # fmt: skip
    assert all(torch.equal(together[name][1], alone[name][0]) for name in alone)
    assert max(t.abs().max() for t in together.values()) <= 1 / math.sqrt(6)
    pair = plain_networks([("identity", 1), ("Gaussian", 2)])
    assert torch.equal(pair["W_hh"][0], torch.eye(32)) and not pair["b_h"].any()
    assert torch.equal(pair["W_hx"][1], plain_networks([("Gaussian", 2)])["W_hx"][0])


@pytest.mark.parametrize(
    "optimizer, clip",
    [(torch.optim.Adam, 1.0), (functools.partial(torch.optim.SGD, momentum=0.9), 0.1), (torch.optim.Adam, None)],
)
def test_each_network_trains_as_if_it_were_alone(optimizer, clip):
    """The same updates as one network trained with torch's own clipping, on the same batches."""
    nets = plain_networks([("Gaussian", 0), ("orthogonal", 1)])
    alone = {name: nn.Parameter(t[1].clone()) for name, t in nets.items()}
    accuracy = train_side_by_side(plain_scores, nets, task, 6, 0.01, clip, optimizer, marks=(3,))
    assert sorted(accuracy) == [3, 6] and accuracy[6].shape == (2,)
    update, generator = optimizer(list(alone.values()), 0.01), seeded(7)
    for _ in range(6):
        x, y = task(32, generator)
        loss = nn.functional.cross_entropy(plain_scores({n: t[None] for n, t in alone.items()}, x)[0], y)
        update.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(alone.values(), clip)
        update.step()
    for name, t in alone.items():
        torch.testing.assert_close(nets[name][1].detach(), t.detach(), rtol=1e-3, atol=1e-5)


def test_several_answers_per_sequence():
    nets = networks([0, 1], 8, 3, n_in=8, n_out=16)
    scores = lambda p, x: read_out(p, gru_states(p, x)[-1]).unflatten(-1, (2, 8))
    accuracy = train_side_by_side(scores, nets, lambda b, g: strings(b, 2, g), 60, 0.02)[60]
    assert accuracy.min() > 0.6  # guessing: 0.125


def test_scores_are_read_off_the_last_state():
    p, x = plain_networks([("Gaussian", 0)]), torch.randn(4, 2, 4, generator=seeded())
    states = rnn_states(p["W_hh"], input_sums(p, x))
    assert states.shape == (4, 1, 2, 32)
    torch.testing.assert_close(plain_scores(p, x), states[-1] @ p["W_oh"].mT + p["b_o"])


def test_the_window_holds_sigma():
    """With K = 0 nothing is remembered; the norms before training follow the bound K^(T-1)."""
    accuracy, norms = window([("Gaussian", 1e-6, 0), ("orthogonal", 0.5, 0), ("orthogonal", 1.5, 1)], 6, 3e-3, steps=80)
    assert accuracy[0] < 0.4 and accuracy[2] > 0.9
    assert norms[0] < 1e-25 and norms[1] <= 0.5**5 and 0.1 < norms[2] <= 1.5**5


# ---- the record


def test_the_record_is_what_the_lecture_needs():
    runs = len(RECORD["starts"]) * len(RECORD["gains"]) * RECORD["seeds"]
    assert set(RECORD["window"]) == {f"{T} {lr}" for T in (30, 60) for lr in ("0.001", "0.003", "0.01")}
    for window_run in RECORD["window"].values():
        assert len(window_run["accuracy"]) == len(window_run["norm"]) == runs
        assert all(0 <= a <= 1 for a in window_run["accuracy"]) and all(n > 0 for n in window_run["norm"])
    assert set(RECORD["tasks"]) == {"rows", "adding", "copying"}
    assert all(set(cells) == set(recurrent_records.CELLS) for cells in RECORD["tasks"].values())
    assert all(len(values) == 5 for cells in RECORD["tasks"].values() for values in cells.values())
    assert (
        RECORD["command"].startswith(("python -m course_utils.recurrent_records", "python -m course_utils recurrent"))
        and RECORD["cpu_seconds"] > 0
    )
    assert {"torch", "Python"} <= set(RECORD["environment"]) and "threads" in RECORD["environment"]["device"]
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr)\b", json.dumps(RECORD))


def test_what_of_the_record_can_be_computed_again_agrees():
    """The norms before training are linear algebra: the same on every machine, up to rounding."""
    starts = [(kind, K, seed) for kind in RECORD["starts"] for K in RECORD["gains"] for seed in range(RECORD["seeds"])]
    _, norms = window(starts[::16], 30, 1e-3, steps=1)
    torch.testing.assert_close(norms, torch.tensor(RECORD["window"]["30 0.001"]["norm"][::16]), rtol=0.05, atol=0)


def test_tasks_of_the_record():
    x, y = recurrent_records.adding(40, 9, seeded())
    assert x.shape == (40, 9, 2) and (x[:, :4, 1].sum(1) == 1).all() and (x[:, 4:, 1].sum(1) == 1).all()
    torch.testing.assert_close((x[..., 0] * x[..., 1]).sum(1), y[:, 0])
    x, y = recurrent_records.copying(40, 3, seeded())
    tokens = x.argmax(-1)
    assert x.shape == (40, 13, 6) and torch.equal(tokens[:, :5], y)
    assert (tokens[:, 8] == 5).all() and (tokens[:, 5:8] == 4).all() and (tokens[:, 9:] == 4).all()


@pytest.mark.parametrize("cell", recurrent_records.CELLS)
def test_cells_of_the_record(cell):
    torch.manual_seed(0)
    reader = recurrent_records.Reader(cell, 2, 6, 3, T=10)
    assert reader(torch.zeros(4, 5, 2)).shape == (4, 5, 3)
    weight = reader.cell.weight_hh_l0.detach()
    if cell == "RNN orthogonal":
        torch.testing.assert_close(weight @ weight.T, torch.eye(6), rtol=0, atol=1e-5)
    if cell == "RNN with SN":
        assert 0.99 < torch.linalg.matrix_norm(weight, ord=2) < 1.1
    if cell.startswith("LSTM"):
        total = (reader.cell.bias_ih_l0 + reader.cell.bias_hh_l0).detach()[6:12].mean()
        assert abs(total - (math.log(10) if "log" in cell else 1)) < 0.5
