"""Right and wrong answers to the exercises of lecture 05."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from harness import Case, answer_from, notebook, setup, test_exercise  # noqa: F401
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from course_utils import environment
from course_utils.checks import core, lecture05
from course_utils.data import load_fashion_mnist
from course_utils.metrics import features_of, matrix_sqrt
from course_utils.models import SmallClassifier
from course_utils.training import SETTINGS, Config, generator_loss, hinge_loss

# ---- 5.1


def hinge_by_losses(real, fake):
    return -hinge_loss(real, fake), generator_loss(fake, "hinge")


def hinge_by_loops(real, fake):
    total = sum(min(0.0, -1 + float(f)) for f in real) / len(real)
    total += sum(min(0.0, -1 - float(f)) for f in fake) / len(fake)
    return [total, -sum(float(f) for f in fake) / len(fake)]


def hinge_in_double(real, fake):
    zero = torch.zeros(())
    real, fake = real.double().flatten(), fake.double().flatten()
    return torch.minimum(zero, real - 1).mean() + torch.minimum(zero, -1 - fake).mean(), -fake.mean()[None]


def hinge_loss_not_value(real, fake):
    return hinge_loss(real, fake), -fake.mean()


def hinge_sums(real, fake):
    return (real - 1).clamp(max=0).sum() + (-1 - fake).clamp(max=0).sum(), -fake.mean()


def hinge_max(real, fake):
    return F.relu(real - 1).mean() + F.relu(-1 - fake).mean(), -fake.mean()


def hinge_no_margin(real, fake):
    return real.clamp(max=0).mean() + (-fake).clamp(max=0).mean(), -fake.mean()


def hinge_fake_sign(real, fake):
    return (real - 1).clamp(max=0).mean() + (fake - 1).clamp(max=0).mean(), -fake.mean()


def hinge_unclipped(real, fake):
    return (real - 1).mean() + (-1 - fake).mean(), -fake.mean()


def hinge_g_sign(real, fake):
    return -hinge_loss(real, fake), fake.mean()


def hinge_g_sum(real, fake):
    return -hinge_loss(real, fake), -fake.sum()


def hinge_g_hinge(real, fake):
    return -hinge_loss(real, fake), F.relu(1 + fake).mean()


def hinge_one_value(real, fake):
    return -hinge_loss(real, fake) - fake.mean()


def hinge_of_the_mean(real, fake):
    return (real.mean() - 3).clamp(max=0) + (-3 - fake.mean()).clamp(max=0), -fake.mean()


def hinge_mean_first(real, fake):
    return (real.mean() - 1).clamp(max=0) + (-1 - fake.mean()).clamp(max=0), -fake.mean()


def hinge_roles(real, fake):
    return hinge_by_losses(fake, real)


def hinge_order(real, fake):
    return hinge_by_losses(real, fake)[::-1]


def hinge_with(real_term, fake_term, weight=1.0):
    def hinge(real, fake):
        low = lambda t: t.clamp(max=0).mean()
        return weight * (low(real_term(real)) + low(fake_term(fake))), -fake.mean()

    return hinge


hinge_real_sign = hinge_with(lambda f: 1 - f, lambda f: -1 - f)
hinge_half = hinge_with(lambda f: f - 1, lambda f: -1 - f, 0.5)
hinge_both_turned = hinge_with(lambda f: 1 - f, lambda f: 1 + f)


def hinge_standard(real, fake):
    return F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean(), -fake.mean()


def hinge_g_standard(real, fake):
    return -hinge_loss(real, fake), F.softplus(-fake).mean()


# ---- 5.2


def penalty_vectorised(f, real, fake, t):
    x = torch.lerp(fake, real, t[:, None, None, None]).requires_grad_()
    (g,) = torch.autograd.grad(f(x), x, grad_outputs=torch.ones(len(x), 1), create_graph=True)
    return F.mse_loss(g.square().sum(dim=(1, 2, 3)).sqrt(), torch.ones(len(x)))


def penalty_used_up(f, real, fake, t):
    value = penalty_vectorised(f, real, fake, t)
    value.backward()
    return value


def penalty_by_loop(f, real, fake, t):
    total = 0.0
    for a, b, s in zip(real, fake, t):
        x = (s * a + (1 - s) * b)[None].requires_grad_()
        (g,) = torch.autograd.grad(f(x).squeeze(), x, create_graph=True)
        total = total + (g.norm() - 1) ** 2
    return total / len(real)


def _mixed(real, fake, t):
    t = t.view(-1, 1, 1, 1)
    return (t * real + (1 - t) * fake).requires_grad_()


def _slopes(f, x, graph=True):
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=graph)
    return g.flatten(1).norm(dim=1)


def penalty_at_real(f, real, fake, t):
    return (_slopes(f, real.clone().requires_grad_()) - 1).square().mean()


def penalty_at_fake(f, real, fake, t):
    return (_slopes(f, fake.clone().requires_grad_()) - 1).square().mean()


def penalty_swapped(f, real, fake, t):
    return (_slopes(f, _mixed(fake, real, t)) - 1).square().mean()


def penalty_one_t(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t[:1])) - 1).square().mean()


def penalty_one_norm(f, real, fake, t):
    x = _mixed(real, fake, t)
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    return (g.norm() - 1) ** 2


def penalty_mean_first(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t)).mean() - 1).square()


def penalty_sum(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t)) - 1).square().sum()


def penalty_square(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t)).square() - 1).square().mean()


def penalty_one_sided(f, real, fake, t):
    return F.relu(_slopes(f, _mixed(real, fake, t)) - 1).square().mean()


def penalty_unchanged(f, real, fake, t):
    x = real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(x).sum(), x)
    return (gradient.norm() - 1) ** 2


def penalty_no_graph(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t), graph=False) - 1).square().mean()


def penalty_item(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t)) - 1).square().mean().item()


def penalty_ten(f, real, fake, t):
    return 10 * (_slopes(f, _mixed(real, fake, t)) - 1).square().mean()


def penalty_per_image(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t)) - 1).square()


def penalty_wrong_axes(f, real, fake, t):
    x = _mixed(real, fake, t)
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    return (g.norm(dim=1) - 1).square().mean()


def penalty_plain_t(f, real, fake, t):
    if len(t) not in (1, real.shape[-1]):
        return penalty_vectorised(f, real, fake, t)
    x = (t * real + (1 - t) * fake).requires_grad_()
    return (_slopes(f, x) - 1).square().mean()


def penalty_of_mean(f, real, fake, t):
    x = _mixed(real, fake, t)
    (g,) = torch.autograd.grad(f(x).mean(), x, create_graph=True)
    return (g.flatten(1).norm(dim=1) - 1).square().mean()


def penalty_no_square(f, real, fake, t):
    return (_slopes(f, _mixed(real, fake, t)) - 1).mean()


def penalty_to_zero(f, real, fake, t):
    return _slopes(f, _mixed(real, fake, t)).square().mean()


def penalty_swapped_sum(f, real, fake, t):
    return (_slopes(f, _mixed(fake, real, t)) - 1).square().sum()


def penalty_by_backward(f, real, fake, t):
    x = _mixed(real, fake, t)
    f(x).sum().backward(create_graph=True)
    return (x.grad.flatten(1).norm(dim=1) - 1).square().mean()


# ---- 5.3


def loop_no_grad(G, D, adam_g, adam_d, draw_real, draw_noise, n_dis):
    """Noise before images, no_grad in place of detach, both batches at once, gradients for G alone."""
    for _ in range(n_dis):
        with torch.no_grad():
            fake = G(draw_noise())
        real = draw_real()
        adam_d.zero_grad()
        scores = D(torch.cat([real, fake]))
        hinge_loss(scores[: len(real)], scores[len(real) :]).backward()
        adam_d.step()
    adam_g.zero_grad()
    loss = -D(G(draw_noise())).mean()
    loss.backward(inputs=list(G.parameters()))
    adam_g.step()
    return loss.item()


def loop_frozen(G, D, adam_g, adam_d, draw_real, draw_noise, n_dis):
    """D switched off in G's update, zero_grad at the end of each update, the loss as a detached tensor."""
    adam_d.zero_grad()
    for _ in range(n_dis):
        loss = F.relu(1 - D(draw_real())).mean() + F.relu(1 + D(G(draw_noise()).detach())).mean()
        loss.backward()
        adam_d.step()
        adam_d.zero_grad()
    D.requires_grad_(False)
    loss = generator_loss(D(G(draw_noise())), "hinge")
    loss.backward()
    adam_g.step()
    adam_g.zero_grad()
    D.requires_grad_(True)
    return loss.detach()


def loop_with(mistake):
    """The loop with one mistake, named as in the check."""

    def one_iteration(G, D, adam_g, adam_d, draw_real, draw_noise, n_dis):
        def update_g(z=None):
            fake = G(draw_noise() if z is None else z)
            scores = D(fake.detach() if mistake == "detached" else fake)
            loss = generator_loss(scores, "standard" if mistake == "g-standard" else "hinge")
            loss = F.relu(1 + scores).mean() if mistake == "saturating" else loss
            if mistake != "zero-g":
                adam_g.zero_grad()
            if mistake != "detached":
                (-loss if mistake == "g-sign" else loss).backward()
            if mistake == "g-stands":
                adam_g.zero_grad()
            adam_g.step()
            if mistake == "both-step":
                adam_d.step()
            return loss

        if mistake == "order":
            loss = update_g()
        x = draw_real() if mistake == "same-batch" else None
        if mistake == "zero-once":
            adam_d.zero_grad()
        for _ in range(1 if mistake == "once" else n_dis):
            z = draw_noise()
            fake = G(z) if mistake == "attached" else G(z).detach()
            scores = D(draw_real() if x is None else x), D(fake)
            d_loss = hinge_loss(*(scores[::-1] if mistake == "roles" else scores))
            if mistake not in ("zero-d", "zero-late", "zero-once"):
                adam_d.zero_grad()
            (-d_loss if mistake == "d-sign" else d_loss).backward()
            if mistake == "d-stands":
                adam_d.zero_grad()
            adam_d.step()
            if mistake == "zero-late":
                adam_d.zero_grad()
            if mistake == "g-inside":
                loss = update_g()
        if mistake in ("order", "g-inside"):
            return loss
        if mistake == "wasted":
            draw_noise()
        loss = update_g(z if mistake == "same-noise" else None)
        if mistake == "none":
            return None
        return {"d-loss": d_loss, "value": 2 * loss}.get(mistake, loss)

    one_iteration.__name__ = f"loop_{mistake}"
    return one_iteration


def test_a_loss_of_nearly_zero_may_be_rounded():
    """With this seed G's loss is 0.00036, a mean of scores that all but cancel."""
    assert core.run("5.3", answer_from("5.3", "lecture"), 1034).status == "right"


# ---- 5.4


def frechet_by_eigenvalues(x, y):
    c1, c2 = torch.cov(x.T), torch.cov(y.T)
    roots = torch.linalg.eigvals(c1 @ c2).real.clamp_min(0).sqrt().sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + c1.trace() + c2.trace() - 2 * roots


def frechet_by_cholesky(x, y):
    l1, l2 = (torch.linalg.cholesky(torch.cov(a.T)) for a in (x, y))
    nuclear = torch.linalg.svdvals(l1.T @ l2).sum()
    return float((x.mean(0) - y.mean(0)).norm() ** 2 + (l1**2).sum() + (l2**2).sum() - 2 * nuclear)


def frechet_with(mistake):
    def frechet(x, y):
        c1, c2 = (
            torch.cov(x.T, correction=int(mistake != "biased")),
            torch.cov(y.T, correction=int(mistake != "biased")),
        )
        gap = (x.mean(0) - y.mean(0)).square()
        gap = {"norm": gap.sum().sqrt(), "average": gap.mean(), "no-mean": 0.0}.get(mistake, gap.sum())
        root = torch.linalg.eigvals(c1 @ c2).real.clamp_min(0).sqrt().sum()
        if mistake == "type":
            root = torch.linalg.eigvals(c1 @ c2).sqrt().sum()
        if mistake == "entries":
            root = (c1 @ c2).abs().sqrt().trace()
        if mistake == "two-roots":
            root = (matrix_sqrt(c1) @ matrix_sqrt(c2)).trace()
        if mistake == "eigvalsh":
            root = torch.linalg.eigvalsh(c1 @ c2).clamp_min(0).sqrt().sum()
        if mistake == "root-of-trace":
            root = (c1 @ c2).trace().sqrt()
        if mistake == "all-mean":
            gap = (x.mean() - y.mean()) ** 2
        if mistake == "nan":
            root = (c1 @ c2 - 100).sqrt().trace()
        if mistake == "two-roots+factor":
            return gap + c1.trace() + c2.trace() - (matrix_sqrt(c1) @ matrix_sqrt(c2)).trace()
        if mistake == "no-root":
            root = (c1 @ c2).trace()
        if mistake == "diagonal":
            root = (c1.diagonal() * c2.diagonal()).sqrt().sum()
        if mistake == "no-cross":
            root = 0.0
        result = gap + c1.trace() + c2.trace() - (1 if mistake == "factor" else 2) * root
        if mistake == "root-of-all":
            return result.sqrt()
        if mistake == "no-transpose":
            c1, c2 = torch.cov(x), torch.cov(y)
            return gap + c1.trace() + c2.trace() - 2 * torch.linalg.eigvals(c1 @ c2).real.clamp_min(0).sqrt().sum()
        return c1 if mistake == "shape" else result

    frechet.__name__ = f"frechet_{mistake}"
    return frechet


# ---- 5.5


def diagnose_by_mean(real_score, fake_score, spread):
    gap = real_score - fake_score
    if not torch.isfinite(gap).all():
        return "diverged"
    n = len(gap) // 10
    if spread[-n:].mean() < 0.05:
        return "collapse"
    return "D wins" if gap[-n:].mean() > 8 else "healthy"


def diagnose_by_median(real_score, fake_score, spread):
    gap = [float(r - f) for r, f in zip(real_score, fake_score)]
    if any(g != g or abs(g) == float("inf") for g in gap):
        return "Diverged"
    n = len(gap) // 10
    if float(spread[-n:].median()) < 0.1:
        return "collapse"
    return "D wins" if sorted(gap[-n:])[n // 2] > 5 else "healthy"


def diagnose_strict(real_score, fake_score, spread):
    """Lines near the other end of what the figure allows."""
    if not torch.isfinite(real_score - fake_score).all():
        return "diverged"
    gap, spread = ((curve[-(len(curve) // 10) :]).mean() for curve in (real_score - fake_score, spread))
    return "collapse" if spread < 0.14 else "D wins" if gap > 14 else "healthy"


def diagnose_optimist(real_score, fake_score, spread):
    return "healthy"


def diagnose_no_nan(real_score, fake_score, spread):
    gap = real_score - fake_score
    return diagnose_by_mean(torch.where(gap.isfinite(), gap, 1.0), torch.zeros(()), spread)


def diagnose_with(
    gap_of=lambda gap: gap[-(len(gap) // 10) :].mean(), spread_of=None, finite=torch.isfinite, winner_first=False
):
    """The right diagnosis with one of its parts replaced."""

    def diagnose(real_score, fake_score, spread):
        if not finite(torch.stack([real_score, fake_score])).all():
            return "diverged"
        gap = gap_of(real_score - fake_score)
        low = (spread_of or (lambda s: s[-(len(s) // 10) :].mean()))(spread) < 0.05
        if winner_first:
            return "D wins" if gap > 8 else "collapse" if low else "healthy"
        return "collapse" if low else "D wins" if gap > 8 else "healthy"

    return diagnose


diagnose_order = diagnose_with(winner_first=True)
diagnose_last_gap = diagnose_with(gap_of=lambda gap: gap[-1])
diagnose_last_spread = diagnose_with(spread_of=lambda spread: spread[-1])
diagnose_last_ten = diagnose_with(gap_of=lambda gap: gap[-10:].mean())
diagnose_last_fifty = diagnose_with(gap_of=lambda gap: gap[-50:].mean())
diagnose_largest_gap = diagnose_with(gap_of=torch.max)
diagnose_mean_of_all = diagnose_with(gap_of=lambda gap: gap.mean() * 2)
diagnose_finite_real = diagnose_with(finite=lambda scores: torch.isfinite(scores[0]))
diagnose_finite_fake = diagnose_with(finite=lambda scores: torch.isfinite(scores[1]))
diagnose_finite_last = diagnose_with(finite=lambda scores: torch.isfinite(scores[:, -1]))
diagnose_finite_tenth = diagnose_with(finite=lambda scores: torch.isfinite(scores[:, -(scores.shape[1] // 10) :]))
diagnose_only_nan = diagnose_with(finite=lambda scores: ~torch.isnan(scores))


def diagnose_real_alone(real_score, fake_score, spread):
    if not torch.isfinite(real_score - fake_score).all():
        return "diverged"
    return diagnose_by_mean(real_score, torch.zeros(()), spread)


def diagnose_real_small(real_score, fake_score, spread):
    """Like the one before, with a bound from which 102 is healthy."""
    if not torch.isfinite(real_score - fake_score).all():
        return "diverged"
    return diagnose_by_mean(real_score - 200, torch.zeros(()), spread)


def diagnose_no_collapse(real_score, fake_score, spread):
    answer = diagnose_by_mean(real_score, fake_score, spread)
    return "healthy" if answer == "collapse" else answer


def diagnose_no_winner(real_score, fake_score, spread):
    answer = diagnose_by_mean(real_score, fake_score, spread)
    return "healthy" if answer == "D wins" else answer


def diagnose_severe(real_score, fake_score, spread):
    answer = diagnose_by_mean(real_score, fake_score, spread)
    return "D wins" if answer == "healthy" else answer


def diagnose_other_word(real_score, fake_score, spread):
    return "overfitting"


# ---- 5.6


def follow_by_state(average, generator, decay):
    state, new = average.state_dict(), generator.state_dict()
    weights = {name for name, _ in average.named_parameters()}
    average.load_state_dict({k: decay * state[k] + (1 - decay) * new[k] if k in weights else new[k] for k in state})
    return average


def follow_by_data(average, generator, decay):
    for a, w in zip(average.parameters(), generator.parameters()):
        a.data = decay * a.data + (1 - decay) * w.data
    for module, other in zip(average.modules(), generator.modules()):
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean = other.running_mean.clone()
            module.running_var = other.running_var.clone()
            module.num_batches_tracked = other.num_batches_tracked.clone()
    return average


def follow_by_torch(average, generator, decay):
    """What torch's AveragedModel does with copied buffers."""
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(generator.parameters()), 1)
    for a, w in zip(average.buffers(), generator.buffers()):
        a.detach().copy_(w.detach())
    return average


@torch.no_grad()
def follow_with(
    average, generator, decay, weights=lambda a, w, d: a.lerp_(w, 1 - d), buffers=lambda a, w, d: a.copy_(w)
):
    for a, w in zip(average.parameters(), generator.parameters()):
        weights(a, w, decay)
    for a, w in zip(average.buffers(), generator.buffers()):
        buffers(a, w, decay)
    return average


def wrong_follow(**parts):
    return lambda average, generator, decay: follow_with(average, generator, decay, **parts)


def share(a, w, decay):
    a.data = w.data


def follow_by_a_mean(average, generator, decay):
    return follow_with(average, generator, 0.5)


def follow_the_generator(average, generator, decay):
    return generator


def follow_a_copy(average, generator, decay):
    return follow_with(copy.deepcopy(average), generator, decay)


def follow_both_ways(average, generator, decay):
    follow_with(average, generator, decay)
    return average if generator.load_state_dict(average.state_dict()) else None


def follow_with_a_graph(average, generator, decay):
    for name, w in generator.named_parameters():
        owner, _, last = name.rpartition(".")
        module = average.get_submodule(owner)
        new = decay * getattr(module, last) + (1 - decay) * w
        module._parameters[last] = new
    return average


def follow_nothing_returned(average, generator, decay):
    follow_with(average, generator, decay)


def follow_in_place_of_a_leaf(average, generator, decay):
    for a, w in zip(average.parameters(), generator.parameters()):
        a.mul_(decay).add_((1 - decay) * w)
    return average


def follow_without_buffers_of_floats(a, w, decay):
    return a.lerp_(w, 1 - decay) if a.is_floating_point() else a.copy_(w)


def follow_by_vector(average, generator, decay):
    a, w = (torch.nn.utils.parameters_to_vector(network.parameters()).detach() for network in (average, generator))
    torch.nn.utils.vector_to_parameters(decay * a + (1 - decay) * w, average.parameters())
    average.load_state_dict(dict(generator.named_buffers()), strict=False)
    return average


@torch.inference_mode()
def follow_in_inference(average, generator, decay):
    return follow_with(average, generator, decay)


def follow_switched_off(average, generator, decay):
    generator.requires_grad_(False)
    average.requires_grad_(False)
    return follow_with(average, generator, decay)


def follow_in_evaluation(average, generator, decay):
    return follow_with(average, generator.eval(), decay)


def follow_without_gradients(average, generator, decay):
    generator.zero_grad()
    return follow_with(average, generator, decay)


@torch.no_grad()
def follow_the_top(average, generator, decay):
    for a, w in zip(average, generator):
        for mine, other in zip(a.parameters(recurse=False), w.parameters(recurse=False)):
            mine.lerp_(other, 1 - decay)
    average.load_state_dict(dict(generator.named_buffers()), strict=False)
    return average


@torch.no_grad()
def follow_without_biases(average, generator, decay):
    for (name, a), w in zip(average.named_parameters(), generator.parameters()):
        if "weight" in name:
            a.lerp_(w, 1 - decay)
    average.load_state_dict(dict(generator.named_buffers()), strict=False)
    return average


@torch.no_grad()
def follow_without_variances(average, generator, decay):
    follow_with(average, generator, decay, buffers=lambda a, w, d: None)
    for (name, a), w in zip(average.named_buffers(), generator.buffers()):
        if "var" not in name:
            a.copy_(w)
    return average


def follow_in_double(average, generator, decay):
    return follow_with(average.double(), generator, decay, weights=lambda a, w, d: a.lerp_(w.double(), 1 - d))


# ---- 5.7

CLAIM = "Without normalization the Frechet distance is at least 1.5 times that of SN."


def plan(**options):
    return [Config(method=m, seed=s, steps=100, **options) for m in ("spectral_norm", "none") for s in (0, 1)]


SAME_TWICE = [Config(seed=s) for s in (0, 1)] + [Config(loss="standard", setting=SETTINGS["C"], seed=s) for s in (0, 1)]


def project_settings():
    return tuple(
        Config(setting=s, seed=seed, loss="hinge") for s in "CD" for seed in (0, 1, 2)
    ), "D is worse than C by at least 10 percent in all 3 seeds."


def varied(**entries):
    """A plan with every combination of the values given for each entry, two seeds each."""
    combined = itertools.product(*entries.values())
    return [Config(**dict(zip(entries, values)), seed=s) for values in combined for s in (0, 1)]


LOSSES = varied(loss=("standard", "hinge"))
BETAS = varied(setting=("C", replace(SETTINGS["C"], beta1=0.9)))
EQUAL_TIME = varied(architecture=["cnn"], steps=[600]) + varied(architecture=["resnet"], steps=[300])
CLAIMS = [  # each with the plan it belongs to
    (LOSSES, "Hinge is 10 % better than standard"),
    (LOSSES, "distance_hinge > 1.1 * distance_standard"),
    (LOSSES, "The hinge loss halves the Fréchet distance compared with the standard loss."),
    (LOSSES, "I expect no difference larger than 15 % between hinge and standard loss"),
    (LOSSES, "mean distance (hinge) / mean distance (standard) <= 0.8"),
    (BETAS, "With beta1 = 0.9 the mean distance is at least 1.5 times that with beta1 = 0.5 after 300 updates of G."),
    (varied(setting=("C", "F")), "F is worse than C by at least 10 percent in all 2 seeds."),
    (varied(width=(16, 32)), "Width 32 beats width 16 by 20 in distance."),
    (varied(width=(16, 32)), "Doubling the width lowers the distance by a factor of 2."),
    (varied(steps=(600, 3000)), "In F the distance after 3000 updates is less than half of that after 600."),
    (EQUAL_TIME, "At equal time the ResNet's distance is at least 10 percent larger than the CNN's."),
    (varied(loss=("standard", "hinge"), width=(8, 16)), "At both widths the hinge lowers the distance by 10 percent"),
    (varied(method=("spectral_norm", "wgan_gp")), "WGAN-GP takes 3 times longer and its distance is 20 % smaller"),
]
NO_CLAIMS = {
    "claim": [
        (LOSSES, "a b c d e f g 8"),
        (LOSSES, "The distance is 8"),
        (LOSSES, "1 2 3 4 5 6 7 8 9"),
        (LOSSES, 0.8),
    ],
    "vague": [
        (BETAS, "With beta1 = 0.9 the distance gets larger"),
        (LOSSES, "In 2018 the hinge was better than the standard loss"),
        (LOSSES, "The hinge gives better images than the standard loss after 300 steps with 2 seeds"),
        (LOSSES, "I believe that the hinge is much better than the standard loss."),
        (varied(width=(16, 32)), "width 32 is better than width 16"),
    ],
    "subject": [
        (LOSSES, "bananas are 3 times larger than apples"),
        (LOSSES, "lorem ipsum dolor sit amet consectetur more 8 elit"),
    ],
    "unit": [(varied(method=("spectral_norm", "none")), "SN wins by 2.")],
    "entries": [
        (
            varied(loss=["standard"], width=[8]) + varied(loss=["hinge"], width=[16]),
            "Hinge with width 16 is 10 percent better than standard",
        ),
        (EQUAL_TIME, "The ResNet's distance is at least 10 percent larger than the CNN's."),
    ],
}


def handed_in(plan_and_claim):
    return lambda: plan_and_claim


def test_the_check_says_which_entries_differ():
    plan = varied(loss=["standard"], width=[8]) + varied(loss=["hinge"], width=[16])
    line = core.run("5.7", lambda: (plan, "Hinge is 10 percent better than standard")).line
    assert "differ in width and loss: which of the two" in line
    line = core.run("5.7", lambda: (LOSSES, "Hinge is 10 percent better than standard")).line
    assert line.endswith("right. What differs, one entry at a time: loss.")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_recipe_of_the_project_fits_every_profile(name, monkeypatch):
    """The page's cells with the numbers of each profile, on this machine's CPU and with few images."""
    numbers = replace(environment.PROFILES[name], device="cpu", width=4, batch_size=4)
    cells, names = notebook("05", "lecture"), dict(setup("05"))
    names["profile"] = lambda: numbers
    names["load_fashion_mnist"] = lambda *size, **options: load_fashion_mnist(*size, limit=600, **options)
    exec(cells["data"], names)
    images = names["fashion_data"].images
    names["classifier"] = SmallClassifier()
    names["real_features"] = features_of(names["classifier"], images)
    exec(cells["project-tools"].partition("train_here(Config(")[0], names)
    for setting in ("C", replace(SETTINGS["C"], beta1=0.9)):
        run = names["train_here"](Config(setting=setting, width=4, batch_size=4, steps=2))
        assert run.sample(2).shape[-1] == numbers.size
        assert math.isfinite(names["distance_here"](run))
    assert 0 < names["minutes_for"](Config(width=4, batch_size=4, steps=100), tried=2) < 10
    for cell in ("fast-check", "resume-check"):
        exec(cells[cell], names)


def test_recorded_runs_end_clearly_on_their_side():
    lines = {"healthy": lambda gap: gap < 4, "D wins": lambda gap: gap > 15}
    for kind, names in lecture05.RECORDED.items():
        for name in names:
            real, fake, spread = lecture05.recorded_run(name)
            last = len(real) // 10
            assert lines[kind](float((real - fake)[-last:].mean())), name
            assert float(spread[-last:].mean()) > 0.15 and len(real) == len(fake) == len(spread), name


CASES = [
    Case(
        "5.1",
        right=[hinge_by_losses, hinge_by_loops, hinge_in_double],
        wrong={
            "sign": hinge_loss_not_value, "sum": hinge_sums, "max": hinge_max, "margin": hinge_no_margin,
            "fake-sign": hinge_fake_sign, "unclipped": hinge_unclipped, "g-sign": hinge_g_sign, "g-sum": hinge_g_sum,
            "real-sign": hinge_real_sign, "half": hinge_half, "real-sign+fake-plus": hinge_both_turned,
            "standard": hinge_standard, "g-standard": hinge_g_standard, "wasserstein": lambda real, fake: (real.mean() - fake.mean(), -fake.mean()),
            "g-hinge": hinge_g_hinge, "type": hinge_one_value, "value": hinge_of_the_mean,
            "mean-first": hinge_mean_first, "roles": hinge_roles, "order": hinge_order,
        },
    ),
    Case(
        "5.2",
        right=[penalty_vectorised, penalty_by_loop],
        wrong={
            "at-real": penalty_at_real, "at-fake": penalty_at_fake, "swapped": penalty_swapped, "one-t": penalty_one_t,
            "one-norm": penalty_one_norm, "mean-first": penalty_mean_first, "sum": penalty_sum, "square": penalty_square,
            "no-graph": [penalty_no_graph, penalty_item], "one-sided": penalty_one_sided, "unchanged": penalty_unchanged, "lambda": penalty_ten, "shape": penalty_per_image,
            "axes": penalty_wrong_axes, "backward": penalty_used_up, "t-broadcast": penalty_plain_t, "mean-score": penalty_of_mean,
            "no-square": penalty_no_square, "zero": penalty_to_zero, "swapped+sum": penalty_swapped_sum, "leaves-gradients": penalty_by_backward,
        },
    ),
    Case(
        "5.3",
        right=[loop_no_grad, loop_frozen],
        wrong={
            "d-steps": [loop_with("once"), loop_with("both-step")], "g-steps": loop_with("g-inside"),
            "order": loop_with("order"), "same-batch": loop_with("same-batch"), "same-noise": loop_with("same-noise"),
            "attached": loop_with("attached"), "detached": loop_with("detached"), "zero-d": loop_with("zero-d"),
            "zero-g": loop_with("zero-g"), "d-sign": loop_with("d-sign"), "g-sign": loop_with("g-sign"),
            "g-standard": loop_with("g-standard"), "saturating": loop_with("saturating"), "draws": loop_with("wasted"),
            "none": loop_with("none"), "value": loop_with("value"), "zero-late": loop_with("zero-late"),
            "roles": loop_with("roles"), "d-stands": loop_with("d-stands"), "g-stands": loop_with("g-stands"), "zero-once": loop_with("zero-once"), "d-loss": loop_with("d-loss"),
        },
    ),
    Case(
        "5.4",
        right=[frechet_by_eigenvalues, frechet_by_cholesky],
        wrong={code: frechet_with(code) for code in (
            "entries", "no-root", "diagonal", "no-cross", "factor", "norm", "average", "no-mean", "biased", "root-of-all", "shape", "no-transpose", "type",
            "two-roots", "eigvalsh", "root-of-trace", "all-mean", "nan", "two-roots+factor",
        )},
    ),
    Case(
        "5.5",
        right=[diagnose_by_mean, diagnose_by_median, diagnose_strict],
        wrong={
            "choice-healthy": [
                diagnose_no_collapse, diagnose_no_winner, diagnose_no_nan, diagnose_finite_real, diagnose_finite_fake,
                diagnose_finite_last, diagnose_finite_tenth, diagnose_only_nan, diagnose_real_small,
                diagnose_last_ten, diagnose_last_fifty,
            ],
            "choice-D wins": [
                diagnose_severe, diagnose_last_gap, diagnose_largest_gap, diagnose_mean_of_all, diagnose_real_alone, diagnose_order,
            ],
            "choice-collapse": diagnose_last_spread, "turned": diagnose_with(gap_of=lambda gap: gap[-(len(gap) // 10) :].mean().abs()), "option": diagnose_other_word,
        },
    ),
    Case(
        "5.6",
        right=[follow_by_state, follow_by_data, follow_by_torch, follow_by_vector, follow_in_inference],
        wrong={
            "stands": wrong_follow(weights=lambda a, w, d: a), "swapped": wrong_follow(weights=lambda a, w, d: a.lerp_(w, d)),
            "copied": wrong_follow(weights=lambda a, w, d: a.copy_(w)), "shared": wrong_follow(weights=share), "half": follow_by_a_mean,
            "buffers": wrong_follow(buffers=lambda a, w, d: a), "buffers-shared": wrong_follow(buffers=share),
            "some": [follow_the_top, follow_without_biases], "buffers-some": [
                follow_without_variances, wrong_follow(buffers=lambda a, w, d: a.copy_(w) if a.is_floating_point() else a.add_(1)),
            ],
            "twice": wrong_follow(weights=lambda a, w, d: a.lerp_(w, 1 - d * d)), "away": wrong_follow(weights=lambda a, w, d: a.sub_((1 - d) * (w - a))),
            "shares": [wrong_follow(weights=lambda a, w, d: a.add_((1 - d) * w)), wrong_follow(weights=lambda a, w, d: a.mul_(d).add_(w))],
            "fixed": wrong_follow(weights=lambda a, w, d: a.lerp_(w, 0.01)), "shape": follow_in_double,
            "noticed": [follow_switched_off, follow_in_evaluation, follow_without_gradients],
            "buffers-averaged": [
                wrong_follow(buffers=lambda a, w, d: a.copy_((1 - d) * a + d * w)), wrong_follow(buffers=follow_without_buffers_of_floats), wrong_follow(buffers=lambda a, w, d: a.copy_(d * a + (1 - d) * w)),
            ],
            "generator": follow_the_generator, "other": follow_a_copy, "changed": follow_both_ways, "graph": follow_with_a_graph,
            "none": follow_nothing_returned, "raises": follow_in_place_of_a_leaf,
        },
    ),
    Case(
        "5.7",
        right=[lambda: (plan(), CLAIM), project_settings, *map(handed_in, CLAIMS), lambda: [plan(loss="hinge", architecture="resnet"), CLAIM]],
        wrong={
            "type": lambda: plan()[0], "config": lambda: (["spectral_norm", "none"], CLAIM), "alone": lambda: (plan()[:1], CLAIM),
            **{code: [handed_in(pair) for pair in pairs] for code, pairs in NO_CLAIMS.items()},
            "same": [lambda: (plan()[:2], CLAIM), lambda: (SAME_TWICE, CLAIM)], "seeds": lambda: (plan()[::2], CLAIM),
        },
    ),
]  # fmt: skip
