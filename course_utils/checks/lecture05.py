"""Checks of lecture 05: losses, gradient penalty, the loop, the Fréchet distance, diagnosis, the average, the project."""

import itertools
import math
import re
from dataclasses import fields, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from course_utils.checks.answers import as_tensor
from course_utils.checks.core import Wrong, compare, distance, exercise, expect_choice, expect_tuple, slips
from course_utils.data import DATA_DIR
from course_utils.records import load_record
from course_utils.training import AUTHORS, NAMED_SETTINGS, Config, train


def _low(t):
    return torch.minimum(t, torch.zeros_like(t))


@exercise("5.1", "The hinge")
def check_hinge(answer, rng):
    worst = 0.0
    for n_real, n_fake in [(5, 9), (6, 6), (1, 4)]:  # not of one size first: a mean over both shows
        real = 2 * torch.randn(n_real, 1, generator=rng) + 0.5
        fake = 2 * torch.randn(n_fake, 1, generator=rng) - 0.5
        real[1:] += 2.5 - real[1:].mean()  # the mean lies right of the corner, so that min before and after it differ
        real[0], fake[0], fake[-1] = -0.7, 0.4, -2.5  # both corners are met, whatever was drawn
        V_D, V_G = expect_tuple(answer(real, fake), 2, "The result")
        x, y = real.double(), fake.double()
        value = _low(x - 1).mean() + _low(-1 - y).mean()
        hints = {
            "sign": (
                -value,
                "This is the loss -V_D, which D minimises; asked is the value V_D of (16), never positive.",
            ),
            "sum": (
                _low(x - 1).sum() + _low(-1 - y).sum(),
                "V_D: an expectation is the mean over the batch, not the sum.",
            ),
            "max": (
                (x - 1).clamp(min=0).mean() + (-1 - y).clamp(min=0).mean(),
                "V_D: (16) has min(0, .), not max(0, .).",
            ),
            "margin": (
                _low(x).mean() + _low(-y).mean(),
                "V_D: the margin is missing: min(0, -1 + f) and min(0, -1 - f).",
            ),
            "fake-sign": (
                _low(x - 1).mean() + _low(y - 1).mean(),
                "V_D: the term of the generated images has -1 - f, not -1 + f.",
            ),
            "unclipped": ((x - 1).mean() + (-1 - y).mean(), "V_D: where is the min(0, .)? Safe images must not count."),
            "mean-first": (
                _low((x - 1).mean()) + _low((-1 - y).mean()),
                "V_D: the min(0, .) belongs to each score, inside the expectation; the mean comes last.",
            ),
            "roles": (
                _low(y - 1).mean() + _low(-1 - x).mean(),
                "V_D: the two batches have changed roles: real scores stand in min(0, -1 + f), generated ones in min(0, -1 - f).",
            ),
            "standard": (
                [V := nn.functional.logsigmoid(x).mean() + nn.functional.logsigmoid(-y).mean(), -V],
                "V_D: this is the standard game (15), with logarithms. The hinge (16) has none.",
            ),
            "wasserstein": (
                [x.mean() - y.mean(), y.mean() - x.mean()],
                "V_D: this is the Wasserstein value. (16) adds the margin, and min(0, .) for each score.",
            ),
            "together": (
                (_low(x - 1).sum() + _low(-1 - y).sum()) / (len(x) + len(y)),
                "V_D: each expectation is a mean over its own batch; here both batches share one mean.",
            ),
            "order": (-y.mean(), "This is V_G. The pair begins with V_D: (V_D, V_G)."),
        }
        one = "V_D: each of the two expectations counts in full, no factor 1/2."
        parts = {
            "real": {
                "real-sign": (1 - x, "V_D: the term of the real images has -1 + f, not 1 - f: it is 0 where f is large."),
                "real-above": (1 + x, "V_D: the term of the real images has -1 + f: safe is a score above 1, not above -1."),
            },
            "fake": {
                "fake-sign": (y - 1, "V_D: the term of the generated images has -1 - f, not -1 + f."),
                "fake-plus": (1 + y, "V_D: the term of the generated images has -1 - f, not 1 + f: it is 0 where f is far below 0."),
                "fake-below": (1 - y, "V_D: the term of the generated images has -1 - f: safe is a score below -1, not below 1."),
            },
            "weights": {
                "half": ((0.5, 0.5), one),
                "real-only": ((1, 0), "V_D: the term of the generated images is missing."),
                "fake-only": ((0, 1), "V_D: the term of the real images is missing."),
                "minus": ((1, -1), "V_D: the two terms are added, not subtracted."),
            },
            "clip": {
                "max": (lambda t: t.clamp(min=0), "V_D: (16) has min(0, .), not max(0, .)."),
                "absolute": (lambda t: -t.abs(), "V_D: (16) has min(0, .), not an absolute value."),
                "squared": (lambda t: -_low(t).square(), "V_D: nothing is squared in (16)."),
            },
        }  # fmt: skip

        def formula(real=x - 1, fake=-1 - y, weights=(1, 1), clip=_low):
            return weights[0] * clip(real).mean() + weights[1] * clip(fake).mean()

        worst = max(worst, compare(V_D, value, 1e-4, "V_D", hints, more=slips(formula, parts)))
        hints = {
            "g-sign": (y.mean(), "V_G: G minimises (17), so that it wants high scores: mind the sign."),
            "g-standard": (
                [nn.functional.softplus(-y).mean(), -nn.functional.softplus(y).mean()],
                "V_G: this is the generator's value in the standard game. (17) has no logarithm: simply -E[f(G(z))].",
            ),
            "g-real": ([-x.mean(), x.mean()], "V_G: (17) looks at the generated images, not at the real ones."),
            "g-sum": (-y.sum(), "V_G: an expectation is the mean over the batch, not the sum."),
            "g-hinge": (-_low(-1 - y).mean(), "V_G: the generator's value (17) has no hinge: simply -E[f(G(z))]."),
            "g-margin": (
                (1 - y).clamp(min=0).mean(),
                "V_G: the generator's value (17) has no hinge: simply -E[f(G(z))].",
            ),
        }
        worst = max(worst, compare(V_G, -y.mean(), 1e-4, "V_G", hints))
    return worst


class _Score(nn.Module):
    """f(x) = a |x|^2 / 2 + <w, x>, whose gradient a x + w is known; a and w are its weights."""

    def __init__(self, shape, rng):
        super().__init__()
        self.a = nn.Parameter(0.5 + torch.rand((), generator=rng))
        self.w = nn.Parameter(torch.randn(shape, generator=rng) / math.prod(shape) ** 0.5)

    def forward(self, x):
        return (0.5 * self.a * x.square().flatten(1).sum(1) + (x * self.w).flatten(1).sum(1))[:, None]


@exercise("5.2", "Four mistakes in four lines")
def check_penalty(answer, rng):
    worst = 0.0
    for shape in [(3, 3, 3, 3), (5, 1, 4, 4), (2, 3, 2, 5), (1, 1, 2, 2)]:
        f, real = _Score(shape[1:], rng), torch.randn(shape, generator=rng) + 1
        t = 0.1 + 0.3 * torch.rand(shape[0], generator=rng)
        # The generated images are chosen such that the slopes at x_hat lie on both sides of 1: about 0.3, about 2, ...
        wanted = torch.tensor([0.3, 2.0, 0.6, 1.5, 0.4])[: shape[0]] * (0.9 + 0.2 * torch.rand(shape[0], generator=rng))
        slope = nn.functional.normalize(torch.randn(shape, generator=rng).flatten(1), dim=1).view(shape)
        weight = t.view(-1, 1, 1, 1)
        x_hat = (wanted.view(-1, 1, 1, 1) * slope - f.w.detach()) / f.a.detach()
        fake = (x_hat - weight * real) / (1 - weight)
        value = answer(f, real, fake, t)

        def slopes(x, f=f):
            return f.a.double() * x + f.w.double()

        def per_image(gradient):
            return gradient.flatten(1).norm(dim=1)

        x_, y_, mix = real.double(), fake.double(), t.double().view(-1, 1, 1, 1)
        x = mix * x_ + (1 - mix) * y_
        axes = "The norm is taken over some axes only. An image has one norm, over all its pixels and channels: gradient.flatten(1).norm(dim=1)."
        parts = {
            "points": {
                "at-real": (x_, "The slope is measured at the real images; it belongs at x_hat, between real and generated."),
                "at-fake": (y_, "The slope is measured at the generated images; it belongs at x_hat, between the two."),
                "swapped": ((1 - mix) * x_ + mix * y_, "x_hat = t x + (1 - t) x_tilde: t belongs to the real images."),
                "one-t": (mix[:1] * x_ + (1 - mix[:1]) * y_, "Each image has its own mixing weight t."),
                "middle": ((x_ + y_) / 2, "The slope is measured halfway. Each image has its own mixing weight t, which is handed to you."),
            },
            "scale": {"mean-score": (1 / len(t), "f(x).mean() makes every gradient N times too small, as the images do not share a mean: take f(x).sum().")},
            "norm": {
                "one-norm": (lambda g: g.norm(), "This is one norm for the whole batch; each image has its own."),
                "square": (lambda g: per_image(g).square(), "Take the root: (29)-(31) has the norm, not its square, inside the parenthesis."),
                "axes": (lambda g: g.norm(dim=1), axes),
                "axes-2": (lambda g: g.norm(dim=(2, 3)), axes),
                "axes-3": (lambda g: g.norm(dim=-1), axes),
                "absolute": (lambda g: g.flatten(1).abs().sum(1), "This is the sum of absolute values, not the Euclidean norm."),
            },
            "last": {
                "mean-first": (lambda n: (n.mean() - 1).square(), "The mean comes last: E[(norm - 1)^2] is not (E[norm] - 1)^2."),
                "sum": (lambda n: (n - 1).square().sum(), "The expectation is the mean over the batch, not the sum."),
                "no-square": (lambda n: (n - 1).mean(), "The square is missing: (norm - 1) ** 2, or slopes above and below 1 cancel."),
                "distance": (lambda n: (n - 1).abs().mean(), "The square is missing: this is the mean of |norm - 1|."),
                "zero": (lambda n: n.square().mean(), "This pulls the slope to 0. (29)-(31) pulls it to 1: subtract 1 from the norm."),
                "one-sided": (lambda n: (n - 1).clamp(min=0).square().mean(), "This penalises only slopes above 1; (29)-(31) wants slope 1 from both sides."),
                "root": (lambda n: (n - 1).square().mean().sqrt(), "No root at the end: the penalty is the mean of the squares."),
            },
            "factor": {"lambda": (10, "Leave the factor lambda = 10 out."), "half": (0.5, "There is no factor 1/2.")},
        }  # fmt: skip
        if len(t) == shape[3]:
            broad = t.double() * x_ + (1 - t.double()) * y_
            parts["points"]["t-broadcast"] = (broad, "t has one entry per image, but here it meets the columns of pixels (it only runs because there are as many): t.view(-1, 1, 1, 1).")  # fmt: skip

        def formula(points=x, scale=1, norm=per_image, last=lambda n: (n - 1).square().mean(), factor=1):
            return factor * last(norm(scale * slopes(points)))

        truth = formula()
        left = "All four mistakes are still there: where, how many norms, where the mean, and can it be differentiated again?"
        hints = {"unchanged": (formula(x_, norm=torch.Tensor.norm), left)}
        worst = max(worst, compare(value, truth, 1e-4, "The penalty", hints, more=slips(formula, parts)))
        weights = list(f.parameters())
        wanted = torch.autograd.grad(truth, weights)
        message = "The value is right, but it has no gradient for the weights of f: the gradient must be differentiable (create_graph=True), and nothing detached."
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            raise Wrong("no-graph", message)
        try:
            got = torch.autograd.grad(value.sum(), weights, allow_unused=True)
        except RuntimeError:
            raise Wrong("backward", "The value is right, but its graph is used up: return it, and leave backward() to the caller.") from None  # fmt: skip
        for g, truth_g in zip(got, wanted):
            if g is None:
                raise Wrong("no-graph", message)
            worst = max(worst, compare(g, truth_g, 1e-3, "The gradient of the penalty in the weights of f"))
        if any(p.grad is not None for p in weights):
            raise Wrong("leaves-gradients", "The value is right, but your backward() has left gradients in the weights of f, where the caller's will be added to them. torch.autograd.grad leaves none.")  # fmt: skip
    return worst


class _Recorder:
    """Two tiny networks, two optimizers, real batches and noise that note what is done to them."""

    def __init__(self, rng, n):
        self.events, self.reals, self.noises = [], [], []
        self.pool_real = [torch.randn(4, 3, generator=rng) + 1 for _ in range(n)]
        self.pool_noise = [torch.randn(4, 2, generator=rng) for _ in range(n)]
        self.G = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3))
        self.D = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
        for parameter in [*self.G.parameters(), *self.D.parameters()]:
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=rng)

    def draw(self, kind):
        pool, used = (self.pool_real, self.reals) if kind == "real" else (self.pool_noise, self.noises)
        if len(used) >= len(pool):
            raise Wrong("draws", f"draw_{kind}() is called far too often.")
        used.append(pool[len(used)])
        return used[-1].clone()

    def hooks(self):
        self.D.register_forward_pre_hook(lambda module, inputs: self.events.append(("D", inputs[0])))

        class Optimizer(torch.optim.SGD):
            def step(optimizer, closure=None):
                self.events.append((optimizer.whose, None))
                return super().step(closure)

        self.adam_g, self.adam_d = Optimizer(self.G.parameters(), 0.3), Optimizer(self.D.parameters(), 0.3)
        self.adam_g.whose, self.adam_d.whose = "step G", "step D"


def _hinge(real, fake):
    return (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()


def _reference(start, reals, noises, n_dis, rounds, mistake=None):
    """Parameters after `rounds` right iterations (or with one known mistake), and G's losses; those of D."""
    G = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3))
    D = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    for mine, theirs in zip([*G.parameters(), *D.parameters()], start):
        mine.data = theirs.clone()
    pg, pd = list(G.parameters()), list(D.parameters())
    kept_g, kept_d = [torch.zeros_like(p) for p in pg], [torch.zeros_like(p) for p in pd]
    reals, noises, losses, d_losses = iter(reals), iter(noises), [], []

    def descend(parameters, loss, kept, keep):
        for p, g, old in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True), kept):
            old.mul_(1.0 if keep else 0.0).add_(g)
            p.data -= 0.3 * old

    for _ in range(rounds):
        z = None
        for update in range(n_dis):
            x, z = next(reals), next(noises)
            scores = (D(x), D(G(z).detach()))
            loss = _hinge(*(scores[::-1] if mistake == "roles" else scores)) * (-1 if mistake == "d-sign" else 1)
            descend(pd, loss, kept_d, mistake in ("zero-d", "zero-late") or (mistake == "zero-once" and update > 0))
            if mistake == "zero-late":
                torch._foreach_zero_(kept_d)
        d_losses.append(loss.detach())
        if mistake != "same-noise":
            z = next(noises)
        scores = D(G(z))
        loss = {"g-sign": scores.mean(), "saturating": (1 + scores).clamp(min=0).mean()}.get(mistake, -scores.mean())
        if mistake == "g-standard":
            loss = nn.functional.softplus(-scores).mean()
        if mistake in ("zero-d", "zero-late"):  # what an ordinary backward leaves in D
            for old, g in zip(kept_d, torch.autograd.grad(loss, pd, retain_graph=True)):
                old.add_(g)
        descend(pg, loss, kept_g, mistake == "zero-g")
        losses.append(loss.detach())
    return [p.detach() for p in pg + pd], losses, d_losses


LOOP_HINTS = {
    "zero-late": "D starts with gradients that G's update left: zero_grad belongs before D's backward, not after its step.",
    "zero-once": "It looks as if gradients pile up over D's updates: adam_d.zero_grad() belongs inside the loop, before each backward.",
    "roles": "The scores in hinge_loss have changed places: real comes first.",
    "zero-d": "It looks as if gradients pile up in D: adam_d.zero_grad() belongs before each backward of D's loss.",
    "zero-g": "It looks as if gradients pile up in G: adam_g.zero_grad() belongs before the backward of G's loss.",
    "d-sign": "D moves the wrong way: hinge_loss is already -V_D, so D goes downhill on it.",
    "g-sign": "G moves the wrong way: it minimises -E[f(G(z))].",
    "g-standard": "G follows the standard loss; asked is the hinge: generator_loss(scores, 'hinge').",
    "saturating": "G has no hinge of its own: its loss is -E[f(G(z))], equation (17).",
}


@exercise("5.3", "One iteration, from the table")
def check_loop(answer, rng):
    worst, rounds = 0.0, 2
    for n_dis in (2, 1, 3):
        stage = _Recorder(rng, 8 * rounds * (n_dis + 1))
        start = [p.detach().clone() for p in [*stage.G.parameters(), *stage.D.parameters()]]
        stage.hooks()
        losses, per_round = [], []
        for _ in range(rounds):
            first, before = len(stage.events), (len(stage.reals), len(stage.noises))
            draw_real, draw_noise = partial(stage.draw, "real"), partial(stage.draw, "noise")
            loss = answer(stage.G, stage.D, stage.adam_g, stage.adam_d, draw_real, draw_noise, n_dis)
            losses.append(loss)
            per_round.append((stage.events[first:], len(stage.reals) - before[0], len(stage.noises) - before[1]))
        events, n_real, n_noise = per_round[0]
        steps = [name for name, _ in events if name != "D"]
        if steps.count("step G") != 1:
            raise Wrong("g-steps", f"One iteration makes one update of G; yours made {steps.count('step G')}.")
        if steps.count("step D") != n_dis:
            extra = " Is adam_d.step() also called in G's update?" if steps.count("step D") == n_dis + 1 else ""
            raise Wrong(
                "d-steps",
                f"With n_dis = {n_dis} D is updated {n_dis} times; yours was updated {steps.count('step D')} times.{extra}",
            )
        if steps[-1] != "step G":
            raise Wrong("order", "The updates of D come first, the update of G last.")
        if n_real < n_dis:
            raise Wrong(
                "same-batch",
                f"Each update of D needs its own real batch: with n_dis = {n_dis}, draw_real() was called {n_real} time(s).",
            )
        if n_noise < n_dis + 1:
            raise Wrong(
                "same-noise",
                f"Each update needs fresh noise, G's too: with n_dis = {n_dis}, draw_noise() was called {n_noise} time(s).",
            )
        if n_real > n_dis or n_noise > n_dis + 1:
            raise Wrong(
                "draws",
                f"Batches are drawn and not used: {n_real} real ones and {n_noise} of noise for {n_dis} + 1 updates.",
            )
        d_phase = [x for name, x in events[: len(events) - events[::-1].index(("step D", None)) - 1] if name == "D"]
        if any(x.requires_grad for x in d_phase):
            raise Wrong(
                "attached",
                "In D's update the generated images still carry the graph through G: use detach() or no_grad().",
            )
        last = [x for name, x in events if name == "D"][-1]
        if not last.requires_grad:
            raise Wrong(
                "detached",
                "In G's update the generated images are cut off from G: no detach() there, or G learns nothing.",
            )
        end = [p.detach() for p in [*stage.G.parameters(), *stage.D.parameters()]]
        moved = [
            not all(torch.equal(old, new) for old, new in zip(start[part], end[part]))
            for part in (slice(0, 4), slice(4, 8))
        ]
        for name, adam, moves in (("D", "adam_d", moved[1]), ("G", "adam_g", moved[0])):
            if not moves:
                raise Wrong(f"{name.lower()}-stands", f"{name} has not moved, although {adam}.step() was called: there were no gradients. The order is zero_grad, backward, step; zero_grad between the last two throws them away.")  # fmt: skip
        truth, true_losses, d_losses = _reference(start, stage.reals, stage.noises, n_dis, rounds)
        flat, right = (torch.cat([p.flatten() for p in parameters]) for parameters in (end, truth))
        wrong = {}
        for code, message in LOOP_HINTS.items() if distance(flat, right) > 1e-4 else ():
            parameters, *_ = _reference(start, stage.reals, stage.noises, n_dis, rounds, code)
            wrong[code] = (torch.cat([p.flatten() for p in parameters]), message)
        worst = max(worst, compare(flat, right, 1e-4, "What the networks have become", wrong))
        for loss, true_loss, d_loss in zip(losses, true_losses, d_losses):
            hints = {"d-loss": (d_loss, "The networks are right, but what is returned is not: this is D's loss.")}
            rounding = 1e-6 / max(float(abs(true_loss)), 1e-6)  # of a mean of scores that all but cancel
            worst = max(worst, compare(loss, true_loss, max(1e-4, rounding), "The returned loss of G", hints))
    return worst


def _root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.mT


def _trace_of_root(c1, c2):
    r1 = _root(c1)
    return _root(r1 @ c2 @ r1).trace()


@exercise("5.4", "The Fréchet distance")
def check_frechet(answer, rng):
    worst = 0.0
    for n, m, d in [(40, 40, 3), (60, 35, 5), (30, 50, 2)]:
        x, y = (
            torch.randn(k, d, generator=rng, dtype=torch.float64)
            @ torch.randn(d, d, generator=rng, dtype=torch.float64)
            for k in (n, m)
        )
        y = y + 2 * torch.randn(d, generator=rng, dtype=torch.float64) + 0.5
        c1, c2, gap = torch.cov(x.T), torch.cov(y.T), x.mean(0) - y.mean(0)
        both, distance_of_means = (c1, c2), gap.square().sum()
        not_symmetric = "eigvalsh is for symmetric matrices, and C1 C2 is none: it reads one half only. torch.linalg.eigvals takes it as it is."
        parts = {
            "gap": {
                "norm": (gap.norm(), "The distance of the means is squared in (24)."),
                "average": (gap.square().mean(), "The squared distance of the means is a sum over the features, not their mean."),
                "no-mean": (0.0, "The means have not gone in."),
                "all-mean": ((x.mean() - y.mean()) ** 2, "x.mean() is one number for all features: the mean over the images is x.mean(0)."),
                "sum-first": (gap.sum() ** 2, "The differences of the means are added before they are squared: square each of them."),
            },
            "covariances": {
                "biased": (tuple(torch.cov(a.T, correction=0) for a in (x, y)), "The covariances are divided by N; here, as in torch.cov, it is N - 1."),
                "uncentred": (tuple(a.T @ a / (len(a) - 1) for a in (x, y)), "Covariances are taken about the mean: subtract x.mean(0) first."),
            },
            "cross": {
                "entries": (lambda a, b: (a @ b).abs().sqrt().diagonal().sum(), "The root in (24) is a matrix root, not the root of each entry."),
                "entries-apart": (lambda a, b: (a.abs().sqrt() @ b.abs().sqrt()).trace(), "The root in (24) is a matrix root, not the root of each entry."),
                "no-root": (lambda a, b: (a @ b).trace(), "The root of C1 C2 is missing."),
                "root-of-trace": (lambda a, b: (a @ b).trace().sqrt(), "This is the root of the trace. (24) has the trace of the root: root of each eigenvalue, then the sum."),
                "two-roots": (lambda a, b: (_root(a) @ _root(b)).trace(), "The trace of C1^(1/2) C2^(1/2) is not that of (C1 C2)^(1/2), unless the two matrices commute."),
                "eigvalsh": (lambda a, b: torch.linalg.eigvalsh(a @ b).clamp_min(0).sqrt().sum(), not_symmetric),
                "eigvalsh-abs": (lambda a, b: torch.linalg.eigvalsh(a @ b).abs().sqrt().sum(), not_symmetric),
                "svdvals": (lambda a, b: torch.linalg.svdvals(a @ b).sqrt().sum(), "These are the singular values of C1 C2, which is not symmetric: the trace of the root needs its eigenvalues."),
                "diagonal": (lambda a, b: (a.diagonal() * b.diagonal()).sqrt().sum(), "Only the variances went in; the covariances between features count as well."),
                "largest": (lambda a, b: torch.linalg.eigvals(a @ b).real.max().sqrt(), "Only the largest eigenvalue went in: the trace is the sum over all of them."),
            },
            "factor": {
                "no-cross": (0.0, "The last term of (24), -2 tr (C1 C2)^(1/2), is missing."),
                "factor": (1.0, "The root's trace counts twice in (24)."),
                "plus": (-2.0, "The root's trace is subtracted in (24)."),
            },
            "own": {
                "no-traces": (0.0, "The traces of C1 and C2 are missing."),
            },
        }  # fmt: skip

        def formula(gap=distance_of_means, covariances=both, cross=_trace_of_root, factor=2.0, own=1.0):
            c1, c2 = covariances
            return gap + own * (c1.trace() + c2.trace()) - factor * cross(c1, c2)

        hints = {
            "root-of-all": (
                formula().clamp_min(0).sqrt(),
                "(24) is the squared distance already: take no root of the whole.",
            )
        }
        if n == m:
            rows = torch.cov(x), torch.cov(y)
            hints["no-transpose"] = (formula(covariances=rows), "torch.cov wants one row per feature: transpose.")
        value = answer(x, y)
        number = as_tensor(value)
        if number is not None and number.numel() == 1 and bool(number.isnan().any()):
            raise Wrong("nan", "NaN: the root of a negative number. (C1 @ C2).sqrt() takes the root of every entry; and of eigenvalues rounding may make a zero negative, clamp_min(0) before the root helps.")  # fmt: skip
        worst = max(worst, compare(value, formula(), 1e-5, "The distance", hints, more=slips(formula, parts)))
    return worst


CONDITIONS = ("healthy", "D wins", "collapse", "diverged")
WHY = {
    "healthy": "Scores stay apart by a moderate, steady gap, the images differ from each other: nothing is wrong here.",
    "D wins": "The gap between the scores grows and grows: D tells the two apart without effort.",
    "collapse": "The spread of the generated images is nearly zero: G has one answer to every z.",
    "diverged": "There is NaN or infinity in these curves.",
}


BAD = torch.tensor([math.nan, math.inf, -math.inf])


def _curves(kind, n, rng):
    """Random curves of one kind: (gap, spread), each (n,), clearly on one side of every sensible line."""
    time = torch.linspace(0, 1, n)

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=rng)

    noise = lambda size: size * torch.randn(n, generator=rng)  # noqa: E731
    gap = uniform(0.5, 2.0) * (1 - torch.exp(-8 * time)) + noise(0.15)
    spread = uniform(0.25, 0.5) * (1 - 0.5 * torch.exp(-8 * time)) + noise(0.01)
    if kind == "D wins":
        gap = gap + uniform(18, 40) * time ** uniform(0.7, 1.3)
    if kind == "collapse":
        spread = (spread * torch.exp(-uniform(10, 25) * (time - 0.3).clamp(min=0))).clamp(min=0) * (
            1 - 0.6 * time
        ) + 1e-3
    if kind == "diverged":
        gap[int(n * uniform(0.5, 0.95)) :] = BAD[int(torch.randint(3, (), generator=rng))]
    return gap, spread.clamp(min=0)


def drawn_run(kind, n, rng):
    """Curves (real_score, fake_score, spread) of one of CONDITIONS, n entries each, drawn by rule and not trained."""
    gap, spread = _curves(kind, n, rng)
    fake = 0.1 * torch.randn(n, generator=rng)
    return fake + gap, fake, spread


RECORDED = {  # runs of data/recorded_runs that end clearly on one side: a gap below 4, or above 15; spread above 0.15
    "healthy": [
        *(
            "spectral_norm-C-0",
            "spectral_norm-D-0",
            "wgan_gp-D-1",
            "weight_norm-C-1",
            "none-D-0",
            "weight_clipping-C-0",
        ),
    ],
    "D wins": ["none-A-0", "spectral_norm-A-1", "weight_norm-A-0", "orthonormal-F-1", "none-F-0", "batch_norm-A-1"],
}


def recorded_run(name):
    """Curves (real_score, fake_score, spread) of a recorded run; the spread is that of the kept images, joined by lines."""
    record = load_record(DATA_DIR / "recorded_runs" / f"{name}.npz")
    kept = (record["images"] / 127.5).std(axis=1).mean(axis=(1, 2, 3))  # over the pixels
    spread = np.interp(record["curve_step"], record["step"], kept)
    return tuple(torch.as_tensor(curve).float() for curve in (record["real_score"], record["fake_score"], spread))


def _special_runs(rng):
    """Runs on which a shortcut fails: (kind, real_score, fake_score, spread, hint) for each."""
    n = int(torch.randint(200, 400, (), generator=rng))  # the last tenth has 20 steps or more

    def run(kind, level):
        gap, spread = _curves(kind, n, rng)
        fake = level + 0.1 * torch.randn(n, generator=rng)
        return fake + gap, fake, spread

    real, fake, spread = run("healthy", -1.0)
    real[-1], spread[-1] = fake[-1] + 30, 0.01
    yield "healthy", real, fake, spread, "The very last step is an outlier: average the last tenth."
    real, fake, spread = run("healthy", -1.0)
    real[: n // 2] += 15
    yield "healthy", real, fake, spread, "The gap was large in the first half of this run; what counts is the end."
    for steps, last in ((3000, 60), (60, 5)):  # the last tenth has 300 steps, or 6: no fixed number will do
        gap, spread = _curves("D wins", steps, rng)
        gap[-steps // 10 :], gap[-last:] = 24.0, 0.0 if last > 5 else 24.0
        if last == 5:
            gap[: -steps // 10] = 2.0
        fake = torch.zeros(steps)
        yield "D wins", fake + gap, fake, spread, f"Of {steps} steps the last tenth are {steps // 10}."
    real, fake, spread = run("healthy", 100.0)
    yield "healthy", real, fake, spread, "Real near 102, generated near 100: only their difference counts."
    real, fake, spread = run("healthy", -14.0)
    yield "D wins", 6 + 0.1 * torch.randn(n, generator=rng), fake, spread, "Real 6, generated -14: the gap is 20."
    real, fake, spread = run("collapse", -12.0)
    real += 14
    yield "collapse", real, fake, spread, "This run has collapsed and has a large gap: the first in the list counts."
    for i, bad in enumerate(BAD):
        real, fake, spread = run("healthy", 0.0)
        fake[-(n // 3) :] = bad
        yield "diverged", real, fake, spread, "There is NaN or infinity in fake_score: look at both scores."
        real, fake, spread = run("collapse" if i else "healthy", 0.0)
        (fake if i else real)[n // 2] = bad
        yield (
            "diverged",
            real,
            fake,
            spread,
            "One step in the middle is NaN or infinite, the later ones are finite: look at all steps.",
        )


@exercise("5.5", "What is wrong with this run?", inplace_ok=True)  # NaN in the curves is no change of theirs
def check_diagnose(answer, rng):
    for kind, *curves, why in _special_runs(rng):
        expect_choice(answer(*curves), CONDITIONS, kind, why)
    fake = 7.5 + 0.1 * torch.randn(240, generator=rng)
    gap, spread = _curves("healthy", 240, rng)
    turned = answer(gap - 15 + fake, fake, spread)
    if isinstance(turned, str) and "wins" in turned.lower():
        raise Wrong("turned", "Not \"D wins\": here the generated images score 15 above the real ones, so that D has it backwards. Mind the sign of the gap.")  # fmt: skip
    for kind, names in RECORDED.items():
        for i in torch.randperm(len(names), generator=rng)[:3].tolist():
            setting = names[i].replace("_", " ")
            why = f"Look again at this run of section 8 ({setting}). {WHY[kind]}"
            expect_choice(answer(*recorded_run(names[i])), CONDITIONS, kind, why)
    cases = [kind for kind in CONDITIONS for _ in range(6)]
    for i in torch.randperm(len(cases), generator=rng).tolist():
        gap, spread = _curves(cases[i], int(torch.randint(60, 400, (), generator=rng)), rng)
        shift = 3 * torch.randn((), generator=rng)  # a score may be shifted by any bias: only the gap counts
        fake_score = shift + 0.1 * torch.randn(len(gap), generator=rng)
        expect_choice(
            answer(fake_score + gap, fake_score, spread), CONDITIONS, cases[i], f"Look again: {WHY[cases[i]]}"
        )


NUMBER = re.compile(r"(?<![\w.,^{])\d+(?:[.,]\d+)?")
COMPARISON = re.compile(
    r"[<>≤≥≈]|\b(than|more|less|fewer|large[rs]\w*|smalle\w+|greater|bigger|higher|lower|better|worse|"
    r"longer|shorter|faster|slower|sooner|later|earlier|above|lowers|lowered|lowering|below|under|surpass\w*|recover\w*|closer|further|exceed\w*|at (least|most)|within|differ\w*|equal\w*|"
    r"same|twice|half|halv\w+|doubl\w+|tripl\w+|times|fold|beat\w*|wins?|outperform\w*|ahead|improv\w+|worsen\w*|"
    r"increas\w+|decreas\w+|reduc\w+|ris(e|es|ing)|grow\w*|falls?|drops?|shrink\w*|rais\w+|gains?|los(es?|ing)|chang\w+|hurts?|helps?|ratio)\b",
    re.IGNORECASE,
)
QUANTITY = re.compile(
    r"distance|fr[eé]chet|\bfids?\b|score|inception|loss\b|spread|gap|quality|time\b|seconds?|minutes?|sharp",
    re.IGNORECASE,
)
SUBJECT = re.compile(
    r"image|sample|generator|discriminator|spectral|normali[sz]|\bsn\b|\bwn\b|\bbn\b|\bln\b|clip|penalt|gan\b|gp\b|orthonormal|hinge|standard|wasserstein|width|wide|"
    r"narrow|resnet|cnn|architecture|beta|alpha|β|α|step|updat|batch|setting|decay|n_?dis|seed",
    re.IGNORECASE,
)
SIZE_WORDS = re.compile(
    r"\b(twice|thrice|half|halv\w+|doubl\w+|tripl\w+|(one|two|three|four|five|six|seven|eight|nine|ten|fifteen|twenty|thirty|forty|fifty|hundred)"
    r"[ -]?(percent|per cent|%|times|fold))\b",
    re.IGNORECASE,
)
A_NAME = re.compile(  # what stands before a number that is the value of an entry, and no size
    r"(beta\w*|β\S*|alpha\w*|α\S*|width|size|seeds?|steps?|n_?dis\w*|batch\w*|lambda\w*|λ\S*|setting|version|section|figure|table|exercise|lecture|page|c)"
    r"\s*(=|is|of|was|:|to)?\s*$",
    re.IGNORECASE,
)
COUNTED = re.compile(  # what stands behind a number that counts something else than a difference
    r"\s*(more |further )?(G |generator )?(updates?|steps?|iterations?|epochs?|seeds?|samples?|images?|runs?|pixels?|px|channels?|layers?|configurations?)\b"
    r"(?!\s*(earlier|later|sooner|fewer|more|less))",
    re.IGNORECASE,
)
UNIT = re.compile(r"\s*(%|percent|per cent|times|fold|x\b|×|\*)", re.IGNORECASE)
BY_FACTOR = re.compile(r"(factor|ratio)( of)?( is)?( at (least|most))?\s*$", re.IGNORECASE)


def differing(a, b):
    """Names of the entries in which two configurations differ, apart from the seed; a setting with a letter is one."""
    names = [
        f.name
        for f in fields(a)
        if f.name not in ("seed", "setting", "loss") and getattr(a, f.name) != getattr(b, f.name)
    ]
    if names and set(names) <= set(AUTHORS):
        names = ["the authors' choices"] if len(names) > 1 else names
    if (a.loss or b.loss) and a.loss_name != b.loss_name:  # both None: each has the loss that belongs to it
        names.append("loss")
    if a.adam != b.adam:
        inside = [f.name for f in fields(a.adam) if getattr(a.adam, f.name) != getattr(b.adam, f.name)]
        known = all(config.adam in NAMED_SETTINGS.values() for config in (a, b))
        names += ["setting"] if known and len(inside) > 1 else inside
    return names


def _judge_plan(kinds, equal_time):
    """Wrong if the configurations do not hang together by single differences; otherwise the names of what differs."""
    groups, names = [{i} for i in range(len(kinds))], set()
    closest = {}
    for i, j in itertools.combinations(range(len(kinds)), 2):
        entries = [name for name in differing(kinds[i], kinds[j]) if not (equal_time and name == "steps")] or ["steps"]
        closest[i, j] = entries
        if len(entries) == 1:
            names |= set(entries)
            one, other = (next(group for group in groups if k in group) for k in (i, j))
            if one is not other:
                groups.remove(other)
                one |= other
    if len(groups) > 1:
        apart = [entries for (i, j), entries in closest.items() if not any({i, j} <= group for group in groups)]
        entries = min(apart, key=len)
        listed = ", ".join(entries[:-1]) + f" and {entries[-1]}"
        which = "the two" if len(entries) == 2 else "them"
        raise Wrong("entries", f"These configurations differ in {listed}: which of {which} will have done it? Change one entry at a time, or add the configurations between.")  # fmt: skip
    return sorted(names)


def _judge_claim(claim, kinds):
    """Wrong if a claim lacks a comparison, something that is compared, or a size."""
    if not isinstance(claim, str) or not COMPARISON.search(claim):
        raise Wrong(
            "claim", "The claim is a sentence that compares: what will be larger or smaller than what, and by how much?"
        )
    letters = {config.setting for config in kinds if isinstance(config.setting, str)}
    if not (QUANTITY.search(claim) or SUBJECT.search(claim) or letters & set(re.findall(r"\b[A-F]\b", claim))):
        raise Wrong("subject", "What is it that will be larger or smaller? Name what is measured (the distance, say) or what differs between your configurations.")  # fmt: skip
    values = {
        str(v)
        for config in kinds
        for part in (config, config.adam)
        for v in vars(part).values()
        if isinstance(v, (int, float))
    }
    bare = False
    for number in NUMBER.finditer(claim):
        before, behind = claim[: number.start()], claim[number.end() :]
        if UNIT.match(behind) or BY_FACTOR.search(before) or re.search(r"\*\s*$", before):
            return
        year = re.fullmatch(r"(19|20)\d\d", number[0])
        if not (A_NAME.search(before) or COUNTED.match(behind) or year or number[0] in values):
            bare = True
    if SIZE_WORDS.search(claim) or (bare and QUANTITY.search(claim)):
        return
    if bare:
        raise Wrong(
            "unit", "A number, but of what? Name what is measured (the distance, say), or write percent or times."
        )
    raise Wrong("vague", "By how much? Name a size in digits (10 percent, 1.5 times, a distance of 20): from which difference on would you believe it? The value of an entry, a year or a number of updates is none.")  # fmt: skip


def _followers(rng):
    """Two kinds of networks with batch norm, and for each a first average and the generator after three updates."""
    flat = lambda: nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), nn.Linear(4, 2))
    image = lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 4, 2, 1, bias=False), nn.BatchNorm2d(3), nn.Tanh())
    for build, shape in ((flat, (5, 3)), (image, (4, 2, 3, 3))):
        networks = []
        for n in range(4):
            network = build()
            with torch.no_grad():
                for p in network.parameters():
                    p.copy_(torch.randn(p.shape, generator=rng))
                    p.grad = torch.randn(p.shape, generator=rng)
                for _ in range(2 * n + 1):
                    network(2 * torch.randn(shape, generator=rng) + 1)  # batch norm notes means, variances, how many
            networks.append(network)
        yield networks


def _at_work(network):
    """What of a network the next update depends on, besides weights and buffers."""
    modes = [module.training for module in network.modules()]
    return modes + [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in network.parameters()]


def _followed(states, names, rule):
    """The tensors `names` of the average states[0] after rule(average, generator) has met each of the later states."""
    tensors = [states[0][name].double() for name in names]
    for state in states[1:]:
        tensors = [rule(tensor, state[name].double()) for tensor, name in zip(tensors, names)]
    return torch.cat([t.flatten() for t in tensors])


@exercise("5.6", "An average over the run", inplace_ok=True)
def check_average(answer, rng):
    worst = 0.0
    for decay, (average, *generators) in zip((0.9, 0.75), _followers(rng)):
        states = [{name: t.clone() for name, t in network.state_dict().items()} for network in (average, *generators)]
        for network, state in zip(generators, states[1:]):
            before, result = _at_work(network), answer(average, network, decay)
            if result is network:
                raise Wrong(
                    "generator",
                    "The result is the generator; return the other network, `average`. (The order of the arguments is average, generator, decay.)",
                )
            if result is not average:
                raise Wrong(
                    "other",
                    f"The result should be the network `average` itself, moved on in place; yours is another object, of type {type(result).__name__}.",
                )
            if changed := [name for name, t in network.state_dict().items() if not torch.equal(t, state[name])]:
                raise Wrong(
                    "changed",
                    f"The generator has changed: its {changed[0]}. It trains on and must not notice the average.",
                )
            if before != _at_work(network):
                raise Wrong(
                    "noticed",
                    "The generator's mode, its gradients or its requires_grad have changed, but it trains on. torch.no_grad() alone lets you change the average in place.",
                )
            if any(t.grad_fn is not None for t in [*average.parameters(), *average.buffers()]):
                raise Wrong(
                    "graph", "The average carries a graph, which grows from update to update: use torch.no_grad()."
                )
            with torch.no_grad():
                for t in network.state_dict().values():
                    t.add_(1)  # the generator trains on
        found = {name: t.detach().clone() for name, t in average.state_dict().items()}
        kept = lambda name, t, found=found: found[name].shape == t.shape and found[name].dtype == t.dtype
        if set(found) != set(states[0]) or not all(kept(name, t) for name, t in states[0].items()):
            raise Wrong(
                "shape", "The average no longer has the tensors that it had: their names, shapes or types are others."
            )
        worst = max(worst, _compare_average(states, found, [name for name, _ in average.named_parameters()], decay))
    return worst


def _compare_average(states, found, weights, m):
    """Error of the average `found`, or Wrong; `weights` names the parameters, the other tensors are buffers."""
    after, mixed = partial(_followed, states), lambda a, w: m * a + (1 - m) * w
    taken = lambda a, w: w

    def only_some(names, rule):
        """Names of the tensors that are not what `rule` makes of them, if others are."""
        off = [name for name in names if distance(found[name].flatten(), after([name], rule)) > 1e-4]
        return ", ".join(off) if len(off) < len(names) else ""

    if names := only_some(weights, mixed):
        raise Wrong("some", f"These parameters of the average are wrong, the others right: {names}.")
    hints = {
        "stands": (after(weights, lambda a, w: a), "The weights of the average have not moved. Are they changed in place, as by lerp_ or copy_?"),
        "swapped": (after(weights, lambda a, w: m * w + (1 - m) * a), "decay is the share of the old average: a <- decay * a + (1 - decay) * w."),
        "copied": (after(weights, taken), "The weights are those of the last generator: does something overwrite the old average, load_state_dict perhaps?"),
        "shared": (after(weights, taken) + 1, "The average shares its weights with the generator, and moves with it: copy entries, do not hand over tensors."),
        "half": (after(weights, lambda a, w: (a + w) / 2), "This is the mean of the old average and the generator; decay decides how much of each."),
        "twice": (after(weights, lambda a, w: m * m * a + (1 - m * m) * w), "decay is applied twice."),
        "shares": ([after(weights, lambda a, w: a + (1 - m) * w), after(weights, lambda a, w: m * a + w), after(weights, lambda a, w: a + w)],
                   "The shares of the old average and of the generator add up to 1: decay and 1 - decay."),
        "away": (after(weights, lambda a, w: a + (1 - m) * (a - w)), "The average moves away from the generator: a + (1 - decay) * (w - a) moves towards it."),
        "fixed": ([after(weights, lambda a, w, d=d: d * a + (1 - d) * w) for d in (0.9, 0.99, 0.999)], "decay is an argument; yours is a fixed number."),
    }  # fmt: skip
    now = torch.cat([found[name].double().flatten() for name in weights])
    worst = compare(now, after(weights, mixed), 1e-4, "The list of all weights after three updates", hints)
    buffers = [name for name in states[0] if name not in weights]
    statistics = [name for name in buffers if states[0][name].is_floating_point()]
    now = torch.cat([found[name].double().flatten() for name in statistics])
    for rule in (mixed, lambda a, w: m * w + (1 - m) * a):
        if distance(now, after(statistics, rule)) < 1e-4:
            raise Wrong(
                "buffers-averaged",
                "The buffers are averaged, too. That can be done with means and variances (not with the counter, a whole number), but asked is a copy.",
            )
    if names := only_some(buffers, taken):
        raise Wrong(
            "buffers-some", f"These buffers of the average are not those of the generator, the others are: {names}."
        )
    hints = {
        "buffers": (after(buffers, lambda a, w: a), "The buffers are those of the start: batch norm would go on with means and variances of the first networks. b.copy_(w) fills a buffer; b = w only gives w a second name."),
        "buffers-shared": (after(buffers, taken) + 1, "The average shares its buffers with the generator: copy their entries."),
    }  # fmt: skip
    now = torch.cat([found[name].double().flatten() for name in buffers])
    return max(worst, compare(now, after(buffers, taken), 1e-4, "The list of all buffers after three updates", hints))


@exercise("5.7", "An experiment of your own", limit=10.0)
def check_project(answer, rng):
    plan, claim = expect_tuple(answer(), 2, "The result")
    runs = expect_tuple(plan, len(plan), "The plan") if isinstance(plan, (list, tuple)) else (plan,)
    if not runs or not all(isinstance(run, Config) for run in runs):
        raise Wrong("config", "The first of the two results should be a list of configurations, made with Config(...).")
    if len(runs) < 2:
        raise Wrong("alone", "One configuration shows nothing: what is it compared with?")
    said = {replace(run, seed=0, loss=run.loss_name, setting=run.adam): replace(run, seed=0) for run in runs}
    kinds = list(said.values())  # "C" is SETTINGS["C"], loss=None the loss it stands for
    if len(kinds) < 2:
        raise Wrong("same", "All configurations are the same up to the seed: nothing is compared.")
    if any(len({run.seed for run in runs if not differing(run, kind)}) < 2 for kind in kinds):
        raise Wrong("seeds", "Each configuration needs at least two seeds, or the difference may be luck.")
    _judge_claim(claim, kinds)
    names = _judge_plan(kinds, equal_time=bool(re.search(r"\btime\b|seconds?|minutes?", claim, re.IGNORECASE)))
    for kind in kinds:  # one of each kind, two steps: does it run at all?
        small = replace(kind, steps=1 if kind.adam.n_dis > 1 else 2, batch_size=4, width=min(kind.width, 4))
        images = 2 * torch.rand(8, kind.channels, kind.size, kind.size, generator=rng) - 1
        train(small, images)
    return f"What differs, one entry at a time: {', '.join(names)}."
