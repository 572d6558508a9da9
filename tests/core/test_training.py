"""training.py: losses against their formulas, the two updates one by one, and every method, loss and architecture."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from helpers import TINY, images
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, TensorDataset

from course_utils import training
from course_utils.data import Images
from course_utils.methods import METHODS
from course_utils.models import ResNetDiscriminator, cnn_generator, count_parameters, resnet_generator, sample_noise
from course_utils.normalization import SpectralNorm, gradient_penalty, orthonormal_penalty
from course_utils.spectral import linear_layers, named_layers, output_dim, weight_matrix
from course_utils.training import (
    AUTHORS,
    LOSSES,
    SETTINGS,
    Config,
    Run,
    Setting,
    Updates,
    batches,
    build_models,
    generator_loss,
    hinge_loss,
    set_alpha,
    standard_loss,
    train,
    update_discriminator,
    update_generator,
    wasserstein_loss,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def state_of(*models):
    return [value.clone() for model in models for value in model.state_dict().values()]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


def sigmas(discriminator):
    discriminator = copy.deepcopy(discriminator).eval()
    matrices = [weight_matrix(layer.weight.detach(), output_dim(layer)) for layer in linear_layers(discriminator)]
    return torch.stack([torch.linalg.matrix_norm(matrix, ord=2) for matrix in matrices])


# ---- losses


def scores():
    return 3 * torch.randn(7, 1, generator=rng(1)), 3 * torch.randn(7, 1, generator=rng(2))


def test_standard_loss_is_minus_15():
    real, fake = scores()
    v = torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean()
    torch.testing.assert_close(standard_loss(real, fake), -v)
    ones, zeros = torch.ones(7, 1), torch.zeros(7, 1)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(standard_loss(real, fake), bce(real, ones) + bce(fake, zeros))
    assert float(standard_loss(zeros, zeros)) == pytest.approx(2 * math.log(2))


def test_hinge_loss_is_minus_16():
    real, fake = scores()
    v = torch.minimum(torch.zeros(7, 1), -1 + real).mean() + torch.minimum(torch.zeros(7, 1), -1 - fake).mean()
    torch.testing.assert_close(hinge_loss(real, fake), -v)
    assert (
        hinge_loss(torch.ones(3, 1), -torch.ones(3, 1)) == 0 and hinge_loss(torch.zeros(3, 1), torch.zeros(3, 1)) == 2
    )


def test_wasserstein_loss():
    real, fake = scores()
    torch.testing.assert_close(wasserstein_loss(real, fake), -(real.mean() - fake.mean()))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_losses_push_real_scores_up_and_fake_scores_down(loss):
    real, fake = (s.clone().mul(0.1).requires_grad_() for s in scores())
    LOSSES[loss](real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()
    score = scores()[1].requires_grad_()
    generator_loss(score, loss).backward()
    assert (score.grad < 0).all()  # G wants its images to score high


def test_generator_losses():
    fake = scores()[1]
    torch.testing.assert_close(generator_loss(fake, "standard"), -torch.sigmoid(fake).log().mean())
    for loss in ("hinge", "wasserstein"):
        torch.testing.assert_close(generator_loss(fake, loss), -fake.mean())


@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_scores_stay_finite(loss):
    for value in (1e4, -1e4):
        s = torch.full((3, 1), value, requires_grad=True)
        total = LOSSES[loss](s, s) + generator_loss(s, loss)
        total.backward()
        assert torch.isfinite(total) and torch.isfinite(s.grad).all()


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_empty_batches_are_named(sizes):
    real, fake = (torch.empty(n, 1) for n in sizes)
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=r"must not be empty, got shape \(0, 1\)"):
            loss(real, fake)
    for loss in LOSSES:
        with pytest.raises(ValueError, match="must not be empty"):
            generator_loss(torch.empty(0, 1), loss)


def test_unknown_generator_loss_is_named():
    with pytest.raises(ValueError, match="unknown loss 'hinges'; choose one of: standard, hinge, wasserstein"):
        generator_loss(torch.ones(2, 1), "hinges")


# ---- configuration


def test_settings_are_table_1():
    table = {
        "A": (1e-4, 0.5, 0.9, 5),
        "B": (1e-4, 0.5, 0.999, 1),
        "C": (2e-4, 0.5, 0.999, 1),
        "D": (1e-3, 0.5, 0.9, 5),
        "E": (1e-3, 0.5, 0.999, 5),
        "F": (1e-3, 0.9, 0.999, 5),
    }
    assert {name: dataclasses.astuple(setting) for name, setting in SETTINGS.items()} == {
        name: (*values, None)
        for name, values in table.items()  # one alpha for both players
    }
    assert Config().d_z == 128 and Config().c == 0.01 and Config().lambda_gp == 10  # the paper's


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_its_own_loss_unless_asked_otherwise(method):
    assert Config(method=method).loss_name == ("wasserstein" if method == "wgan_gp" else "standard")
    assert Config(method=method, loss="hinge").loss_name == "hinge"


def test_a_setting_of_ones_own():
    own = Setting(3e-4, 0.0, 0.9, 2)
    config = Config(setting=own)
    assert config.adam is own and Config(setting="F").adam == SETTINGS["F"]
    assert "alpha 0.0003, beta1 0, beta2 0.9, n_dis 2" in config.describe()


def test_the_paper_s_resnet_runs():
    """Appendix B.2 and Table 4: Adam as in Gulrajani et al. 2017, D of width 128 against a generator of twice that."""
    config = Config(setting="resnet", architecture="resnet", size=32, channels=3, width=128)
    assert dataclasses.astuple(config.adam) == (2e-4, 0.0, 0.9, 5, None) and "setting resnet" in config.describe()
    generator, discriminator = build_models(config)
    assert count_parameters(generator) == count_parameters(resnet_generator(32, 3, 256, 128))
    assert count_parameters(discriminator) == count_parameters(ResNetDiscriminator(3, 128))


def test_describe_says_everything():
    text = Config(method="weight_norm", setting="D", loss="hinge", seed=7, steps=123).describe()
    assert METHODS["weight_norm"].about in text and "hinge loss" in text
    assert "setting D: alpha 0.001, beta1 0.5, beta2 0.9, n_dis 5" in text
    for name, value in dataclasses.asdict(Config(seed=7, steps=123)).items():
        usual = name in (*AUTHORS, "penalty", "adam_eps", "init")  # said only where it is not as everywhere else
        assert name in ("method", "setting", "loss") or usual or f"{name} {value}" in text
    assert "last_bias False" in Config(**AUTHORS).describe() and "batch_size_g 128" in Config(**AUTHORS).describe()


def test_a_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "sn"}, "unknown method 'sn'; choose one of: none, .*spectral_norm"),
        ({"setting": "G"}, "unknown setting 'G'; choose one of: A, B, C, D, E, F"),
        ({"loss": "bce"}, "unknown loss 'bce'; choose one of: standard, hinge, wasserstein$"),
        ({"decay": "no"}, "decay must be True or False, got 'no'"),
        ({"setting": Setting(1e-3, 0.5, 0.9, 1.5)}, "n_dis must be a whole number, 1 or more, got 1.5"),
        ({"architecture": "vit"}, "unknown architecture 'vit'; choose one of: cnn, resnet"),
        ({"size": 17}, "4 to 7 times a power of two.*got 17"),
        ({"size": "16"}, "size must be a whole number, 1 or more, got '16'"),
        ({"d_z": 0}, "d_z must be a whole number, 1 or more, got 0"),
        ({"steps": 0}, "steps must be"),
        ({"batch_size": -1}, "batch_size must be"),
        ({"width": 2.5}, "width must be a whole number, 1 or more, got 2.5"),
        ({"channels": 0}, "channels must be"),
        ({"seed": -1}, "seed must be a whole number, 0 or more, got -1"),
        ({"seed": 1.5}, "seed must be .*got 1.5"),
        ({"setting": Setting(1e-3, 0.5, 0.9, 0)}, "n_dis must be a whole number, 1 or more, got 0"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


# ---- the networks


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_all_methods_of_one_seed_start_from_the_same_networks(architecture):
    state = torch.get_rng_state()
    plain = build_models(Config(method="none", architecture=architecture, **TINY))
    weights = [layer.weight for layer in linear_layers(plain[1])]
    for method in METHODS:
        made = build_models(Config(method=method, architecture=architecture, **TINY))
        assert equal(state_of(made[0]), state_of(plain[0]))
        for layer, weight in zip(linear_layers(made[1]), weights, strict=True):
            own = layer.parametrizations.weight.original if parametrize.is_parametrized(layer) else layer.weight
            assert torch.equal(own, weight)
    other = build_models(Config(method="none", architecture=architecture, seed=1, **TINY))
    assert not equal(state_of(other[0]), state_of(plain[0]))
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_come_from_the_images():
    data = torch.arange(10.0)[:, None]
    stream = batches(data, 4, rng())
    drawn = torch.stack([next(stream) for _ in range(200)])
    assert drawn.shape == (200, 4, 1) and set(drawn.flatten().tolist()) == set(range(10))
    assert torch.equal(drawn[0], next(batches(data, 4, rng())))
    assert next(batches(data[:2], 7, rng())).shape == (7, 1)  # with replacement


# ---- one update of D, one of G


def parts(method, **options):
    config = Config(method=method, **{**TINY, **options})
    generator, discriminator = build_models(config)
    optimizer = torch.optim.SGD([p for p in discriminator.parameters() if p.requires_grad], lr=1e-4)
    z = torch.randn(config.batch_size, config.d_z, generator=rng(5))
    return config, generator, discriminator, optimizer, images(config.batch_size), z


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_discriminator_update_descends_its_loss_and_leaves_g_alone(method, loss):
    config, generator, discriminator, optimizer, real, z = parts(method, loss=loss)
    for each in (generator, discriminator):
        each.double()  # where a method leaves D nearly flat, float32 cannot tell the losses apart
    real, z = real.double(), z.double()
    before_g, before_d = (
        list(generator.parameters()),
        [p.clone() for p in discriminator.parameters() if p.requires_grad],
    )
    before_g = [p.clone() for p in before_g]
    values = [update_discriminator(config, generator, discriminator, optimizer, real, z, rng()) for _ in range(3)]
    assert all(not value.requires_grad and value.shape == () for triple in values for value in triple)
    assert equal([p.detach() for p in generator.parameters()], before_g)
    assert all(p.grad is None for p in generator.parameters())
    trained = [p.detach() for p in discriminator.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(trained, before_d))
    if method != "weight_clipping":  # the clipping itself may raise the loss
        assert values[2][0] < values[1][0] < values[0][0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_discriminator_loss_is_the_formula(method, loss):
    config, generator, discriminator, optimizer, real, z = parts(method, loss=loss, lambda_gp=7.0, lambda_ortho=0.3)
    twin = copy.deepcopy(discriminator)
    with torch.no_grad():
        fake = copy.deepcopy(generator)(z)
    with parametrize.cached():
        expected = LOSSES[loss](twin(real), twin(fake))
        real_score, fake_score = twin(real).mean(), twin(fake).mean()
        if method in ("gan_gp", "wgan_gp"):
            expected = expected + 7.0 * gradient_penalty(twin, real, fake, rng())
    if method == "orthonormal":
        expected = expected + 0.3 * orthonormal_penalty(twin)
    found = update_discriminator(config, generator, discriminator, optimizer, real, z, rng())
    torch.testing.assert_close(
        found, (expected.detach(), real_score.detach(), fake_score.detach()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("method", ["spectral_norm", "spectral_norm_gain"])
def test_one_power_iteration_round_serves_real_and_fake(method, monkeypatch):
    config, generator, discriminator, optimizer, real, z = parts(method)
    calls, iterate = [], SpectralNorm.iterate
    monkeypatch.setattr(
        SpectralNorm, "iterate", lambda self, w, n: (calls.append((id(self), n)), iterate(self, w, n))[1]
    )
    update_discriminator(config, generator, discriminator, optimizer, real, z, rng())
    assert len(calls) == len(set(calls)) == len(linear_layers(discriminator)) and {n for _, n in calls} == {1}


@pytest.mark.parametrize("method", ["none", "spectral_norm", "batch_norm"])
@pytest.mark.parametrize("loss", LOSSES)
def test_generator_update_descends_its_loss_and_leaves_d_alone(method, loss):
    config, generator, discriminator, _, _, z = parts(method, loss=loss)
    optimizer = torch.optim.SGD(generator.parameters(), lr=1e-3)
    before = [p.clone() for p in discriminator.parameters()]
    for p in discriminator.parameters():
        p.grad = None
    discriminator.eval()  # u stands still, so that the losses can be compared
    values = [update_generator(config, generator, discriminator, optimizer, z) for _ in range(3)]
    assert values[2] < values[1] < values[0] and not values[0].requires_grad
    assert equal([p.detach() for p in discriminator.parameters()], before)
    assert all(p.grad is None for p in discriminator.parameters())


def test_the_order_of_algorithm_1():
    done = []

    def update_d(*args):
        done.append(("D", args[-2].clone()))
        return update_discriminator(*args)

    def update_g(*args):
        done.append(("G", args[-1].clone()))
        return update_generator(*args)

    train(Config(setting="A", **{**TINY, "steps": 2}), images(), updates=Updates(update_d, update_g))
    assert "".join(name for name, _ in done) == "DDDDDG" * 2
    noise = torch.stack([z for _, z in done])
    assert len(noise[:, 0, 0].unique()) == 12  # new noise for every update
    assert noise.shape[1:] == (TINY["batch_size"], TINY["d_z"])


@pytest.mark.parametrize("setting", ["A", "F", Setting(3e-4, 0.0, 0.7, 2)])
def test_both_optimizers_get_the_values_of_the_setting(setting, monkeypatch):
    made, adam = [], torch.optim.Adam

    def recorded(*args):
        made.append(adam(*args))
        return made[-1]

    monkeypatch.setattr(torch.optim, "Adam", recorded)
    config = Config(setting=setting, **{**TINY, "steps": 1})
    train(config, images())
    s = config.adam
    assert [(o.defaults["lr"], o.defaults["betas"]) for o in made] == [(s.alpha, (s.beta1, s.beta2))] * 2


# ---- whole runs


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_loss_and_architecture_trains(method, loss, architecture):
    config = Config(method=method, loss=loss, architecture=architecture, **TINY)
    before = build_models(config)
    run = train(config, images())
    assert run.config is config and run.seconds > 0
    for curve in (run.curve("d_loss"), run.curve("g_loss"), run.curve("real_score"), run.curve("fake_score")):
        assert len(curve) == config.steps and all(math.isfinite(value) for value in curve)
    for start, end in zip(before, (run.generator, run.discriminator)):
        moved = [not torch.equal(a, b) for a, b in zip(start.parameters(), end.parameters()) if a.requires_grad]
        assert sum(moved) >= 0.7 * len(moved)
    assert run.sample(2).shape == (2, 1, 16, 16)
    layers = linear_layers(run.discriminator)
    if method == "weight_clipping":
        assert all(layer.weight.abs().max() <= config.c for layer in layers)
    if method == "weight_norm":
        for layer in layers:
            rows = weight_matrix(layer.weight.detach(), output_dim(layer)).norm(dim=1)
            torch.testing.assert_close(rows, torch.ones_like(rows))
    if method == "spectral_norm":
        assert (sigmas(run.discriminator) > 1 - 1e-5).all() and (sigmas(run.discriminator) < 1.2).all()
    if method == "spectral_norm_gain":
        assert all(layer.parametrizations.weight[1].gamma != 1 for layer in layers)
    if method in ("batch_norm", "layer_norm"):
        norms = [m for m in run.discriminator.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))]
        assert norms and all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_sigma_of_the_normalized_weights_stays_near_one(architecture):
    largest, smallest = [], []

    def measure(step, run):
        values = sigmas(run.discriminator)
        largest.append(float(values.max())), smallest.append(float(values.min()))

    config = Config(architecture=architecture, width=4, d_z=6, batch_size=4, steps=20)
    run = train(config, images(), measure)
    assert min(smallest) > 1 - 1e-5 and max(largest) < 1.25  # one round lags behind the first, fast updates
    with torch.no_grad():
        for _ in range(100):  # and catches up once the weights rest
            run.discriminator(images(2))
    assert sigmas(run.discriminator).max() < 1.01


def test_clipping_holds_at_every_step_in_its_own_box():
    largest = []
    config = Config(method="weight_clipping", c=0.003, **TINY)

    def measure(step, run):
        largest.append(max(float(layer.weight.detach().abs().max()) for layer in linear_layers(run.discriminator)))

    train(config, images(), measure)
    assert largest[0] > 0.1 and all(value <= 0.003 + 1e-9 for value in largest[1:])


def test_orthonormal_penalty_falls():
    values = []
    config = Config(method="orthonormal", setting="D", lambda_ortho=1.0, **{**TINY, "steps": 10})
    train(config, images(), lambda step, run: values.append(float(orthonormal_penalty(run.discriminator).detach())))
    assert values[-1] < 0.5 * values[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", "spectral_norm", "wgan_gp", "batch_norm"])
def test_same_seed_same_run_bit_by_bit(method):
    config = Config(method=method, setting="D", **{**TINY, "steps": 2})
    state = torch.get_rng_state()
    first, second = train(config, images()), train(config, images())
    assert torch.equal(torch.get_rng_state(), state)  # and the global random state is left alone
    assert equal(state_of(first.generator, first.discriminator), state_of(second.generator, second.discriminator))
    for curve in ("d_loss", "g_loss", "real_score", "fake_score"):
        assert first.curve(curve) == second.curve(curve)
    other = train(dataclasses.replace(config, seed=1), images())
    assert not equal(state_of(first.generator), state_of(other.generator))
    torch.manual_seed(123)
    assert train(config, images()).curve("d_loss") == first.curve("d_loss")


def test_measuring_in_the_callback_does_not_change_the_run():
    config = Config(**TINY)
    first = train(config, images())
    second = train(config, images(), lambda step, run: (run.sample(3), sigmas(run.discriminator)))
    assert equal(state_of(first.generator, first.discriminator), state_of(second.generator, second.discriminator))


def test_callback_sees_each_step_in_order():
    seen = []
    run = train(
        Config(**TINY),
        images(),
        lambda step, run: seen.append((step, run, len(run.curve("d_loss")), len(run.curve("g_loss")), run.seconds)),
    )
    assert [(step, d, g) for step, _, d, g, _ in seen] == [(i, i, i) for i in range(TINY["steps"] + 1)]
    assert all(item is run for _, item, *_ in seen)
    seconds = [item[-1] for item in seen]
    assert seconds[0] == 0 and all(a < b for a, b in zip(seconds, seconds[1:])) and run.seconds == seconds[-1]


def test_an_error_in_the_callback_is_passed_on():
    def stop(step, run):
        if step == 1:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train(Config(**TINY), images(), stop)


def test_sample_is_repeatable_in_evaluation_mode_and_restores_the_mode():
    run = train(Config(**TINY), images())
    before = state_of(run.generator)
    assert run.generator.training
    first = run.sample(501, seed=3)
    assert torch.equal(first, run.sample(501, seed=3)) and not torch.equal(first, run.sample(501, seed=4))
    assert run.generator.training and equal(before, state_of(run.generator))
    assert first.shape == (501, 1, 16, 16) and first.abs().max() <= 1 and not first.requires_grad
    with torch.no_grad():
        z = torch.randn(501, TINY["d_z"], generator=rng(3))
        torch.testing.assert_close(first, run.generator.eval()(z), rtol=1e-4, atol=1e-5)
    run.sample(1)
    assert not run.generator.training


@pytest.mark.parametrize("which", ["d_loss", "g_loss"])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(which, monkeypatch):
    if which == "d_loss":
        monkeypatch.setitem(LOSSES, "standard", lambda real, fake: real.mean() * math.nan)
    else:
        monkeypatch.setattr(training, "generator_loss", lambda fake, loss: fake.mean() * math.inf)
    done = []
    with pytest.raises(FloatingPointError, match=r"none diverged at step 1: D's loss .*, G's loss"):
        train(Config(method="none", **TINY), images(), lambda step, run: done.append(step))
    assert done == [0]


def test_a_run_that_blows_up_is_stopped():
    config = Config(method="none", loss="wasserstein", setting=Setting(1e15, 0.5, 0.9, 1), **{**TINY, "steps": 20})
    with pytest.raises(FloatingPointError, match=r"none diverged at step \d+"):
        train(config, images())


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.empty(0, 1, 16, 16), r"non-empty .*\(1, 16, 16\).*got \(0, 1, 16, 16\)"),
        (torch.ones(4, 1, 16, 15), r"got \(4, 1, 16, 15\)"),
        (torch.ones(4, 3, 16, 16), r"got \(4, 3, 16, 16\)"),
        (torch.ones(4, 16, 16), r"got \(4, 16, 16\)"),
        (torch.ones(4, 1, 16, 16, dtype=torch.uint8), "float32 .*got torch.uint8"),
        (torch.ones(4, 1, 16, 16, dtype=torch.float64), "float32 .*got torch.float64"),
        (torch.full((4, 1, 16, 16), math.nan), "finite"),
    ],
)
def test_bad_images_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        train(Config(**TINY), bad)


@pytest.mark.parametrize("low, high", [(0, 255), (-1, 1.5), (-2.2, 2)])
def test_images_of_another_range_are_named(low, high):
    data = images()
    data[0, 0, 0, 0], data[-1, 0, -1, -1] = low, high
    with pytest.raises(ValueError, match=rf"in \[-1, 1\], got values from .* to {high}"):
        train(Config(**TINY), data)
    train(Config(**TINY), images().sign() * (1 + 5e-4))  # that is rounding


@pytest.mark.parametrize(
    "bad, message",
    [
        (Images(images(), torch.arange(32)), "got Images, images with their labels: hand over its .images"),
        (DataLoader(images()), "got DataLoader: join its images to one tensor"),
        (TensorDataset(images()), "got TensorDataset: join its images to one tensor"),
        (images().numpy(), "got ndarray: torch.from_numpy"),
        ((images(), torch.arange(32)), "got tuple"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_tensor_of_images_is_named(bad, message):
    with pytest.raises(TypeError, match="images must be a floating-point tensor, " + message):
        train(Config(**TINY), bad)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_a_default_type_of_float64_changes_no_run(method, architecture):
    config = Config(method=method, architecture=architecture, **TINY)
    data = images()
    plain = train(config, data)
    torch.set_default_dtype(torch.float64)
    try:
        run = train(config, data)
        samples = run.sample(2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(run.curves, plain.curves) and torch.equal(samples, plain.sample(2))
    assert run.curves.dtype == samples.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gan_gp", "wgan_gp"])
def test_gradient_penalty_brings_the_slope_between_the_batches_to_one(method):
    def slope(run):
        real, fake = images(16, seed=5), run.sample(16)
        x = torch.lerp(real, fake, torch.rand(16, 1, 1, 1, generator=rng(3))).requires_grad_()
        (gradient,) = torch.autograd.grad(run.discriminator(x).sum(), x)
        return float(gradient.flatten(1).norm(dim=1).mean())

    config = Config(method, Setting(5e-3, 0.5, 0.9, 5), width=4, d_z=6, batch_size=16, steps=25, seed=1)
    slopes = []
    train(config, images(64), lambda step, run: slopes.append(slope(run)) if step in (0, 21, 23, 25) else None)
    assert slopes[0] < 0.1 and abs(sum(slopes[1:]) / 3 - 1) < 0.3


def test_alpha_falls_linearly_when_asked():
    alphas = {False: [], True: []}
    for decay, seen in alphas.items():
        config = Config(decay=decay, **{**TINY, "steps": 4})
        train(config, images(), lambda step, run, seen=seen: seen.append(run.adam_g.param_groups[0]["lr"]))
    assert alphas[False] == [2e-4] * 5
    assert alphas[True] == pytest.approx([2e-4, 2e-4, 1.5e-4, 1e-4, 0.5e-4])  # as used in the update before


def test_a_callback_that_returns_true_ends_the_run_and_train_goes_on_with_it():
    config = Config(**TINY)
    whole, part = train(config, images()), train(config, images(), lambda step, run: step == 2)
    assert part.step == 2 and len(part.curve("d_loss")) == 2
    assert train(config, images(), run=part) is part and part.curve("d_loss") == whole.curve("d_loss")
    assert train(config, images(), lambda step, run: True).step == 0


def test_a_configuration_survives_json():
    for config in (Config("weight_norm", "F", loss="hinge", decay=True), Config(setting=Setting(1e-3, 0.0, 0.9, 2))):
        assert Config.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(ValueError, match="no configuration has the entries depth, sigma"):
        Config.from_dict({"sigma": 1, "depth": 2})


def test_an_early_loss_that_was_not_finite_is_found_later():
    """On a GPU the losses are looked at every hundred updates only: the message still names the first bad one."""
    run = training.Run.start(Config(**TINY))
    run.step, run.curves[1, 1] = 3, math.inf
    with pytest.raises(FloatingPointError, match="diverged at step 2: D's loss 0.0, G's loss inf"):
        run.require_finite()
    run.require_finite(since=2)


# ---- options of the recorded controls


def test_g_may_have_a_step_size_of_its_own():
    run = Run.start(Config(setting=Setting(1e-3, 0.5, 0.9, 5, alpha_g=2e-2), adam_eps=1e-6, decay=True, **TINY))
    set_alpha(run)
    assert [o.param_groups[0]["lr"] for o in (run.adam_g, run.adam_d)] == [2e-2, 1e-3]
    assert run.adam_d.param_groups[0]["eps"] == 1e-6
    run.step = run.config.steps // 2
    set_alpha(run)
    assert run.adam_g.param_groups[0]["lr"] == pytest.approx(2e-2 * (1 - run.step / run.config.steps))


def test_sn_with_the_penalty_has_both():
    data = images()
    config = Config("spectral_norm", Setting(1e-3, 0.5, 0.9, 1), "wasserstein", penalty=True, **TINY)
    plain = dataclasses.replace(config, penalty=False)
    first = [train(dataclasses.replace(c, steps=1), data).curve("d_loss")[0] for c in (config, plain)]
    G, D = build_models(config)
    rng = torch.Generator().manual_seed(config.seed)
    real = next(batches(data, config.batch_size, rng))
    z = sample_noise(config.batch_size, config.d_z, rng)
    expected = gradient_penalty(D, real, G(z), rng)
    assert first[0] - first[1] == pytest.approx(10 * float(expected.detach()), rel=1e-4)
    assert first[0] - first[1] > 1  # K is far below 1 at the start: the penalty is felt


@pytest.mark.parametrize("init, std", [("normal", 0.02), ("glorot", None), ("orthogonal", None)])
@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_initializations(init, std, architecture):
    config = Config("none", init=init, architecture=architecture, width=8)
    for network in build_models(config)[init == "orthogonal" :]:
        for name, layer in named_layers(network).items():
            W = layer.weight.detach().flatten(1)
            if init == "normal":
                assert float(W.std()) == pytest.approx(std, rel=5 / W.numel() ** 0.5)
            elif init == "orthogonal":
                gram = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
                torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
            else:
                fans = nn.init._calculate_fan_in_and_fan_out(layer.weight)
                gain = 2**0.5 if architecture == "resnet" and name[-5:] in ("conv1", "conv2") else 1
                limit = gain * (6 / sum(fans)) ** 0.5
                assert 0.9 * limit < float(W.abs().max()) <= limit
            if init != "orthogonal":
                assert not layer.bias.any()


def test_torchs_own_initialization_is_left_as_it_is():
    def weights(init):
        return [p for network in build_models(Config(init=init, **TINY)) for p in network.parameters()]

    torch.manual_seed(0)
    plain = cnn_generator(TINY.get("size", 16), 1, TINY["width"], TINY["d_z"])
    assert all(torch.equal(a, b) for a, b in zip(weights("torch"), plain.parameters()))
    assert not torch.equal(weights("normal")[0], weights("torch")[0])
    with pytest.raises(ValueError, match="unknown init 'he'; choose one of: torch, normal, glorot, orthogonal"):
        Config(init="he")


# ---- the choices of the authors' code


def test_dequantized_images_are_what_the_authors_hand_to_the_discriminator():
    levels = torch.arange(256.0).reshape(4, 1, 8, 8)
    stored = levels.div(127.5).sub(1)
    found = training.dequantized(stored, torch.Generator().manual_seed(0))
    noise = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 128
    torch.testing.assert_close(found, levels / 128 - 1 + noise, rtol=0, atol=1e-6)
    assert found.min() >= -1 and found.max() < 1
    assert torch.equal(((found + 1) * 128 + 1e-4).floor(), levels)  # the noise keeps a level below the next


def trained_with(monkeypatch, **choices):
    """The players in the order of their updates, the sizes of their batches, and the real images of a short run."""
    seen, real_batches = [], []
    step_d, step_g = training.update_discriminator, training.update_generator

    def watched_d(config, generator, discriminator, optimizer, real, z, rng):
        seen.append(("D", len(real), len(z)))
        real_batches.append(real)
        return step_d(config, generator, discriminator, optimizer, real, z, rng)

    def watched_g(config, generator, discriminator, optimizer, z):
        seen.append(("G", len(z)))
        return step_g(config, generator, discriminator, optimizer, z)

    config = Config(setting=Setting(1e-3, 0.0, 0.9, 2), **{**TINY, "steps": 2}, **choices)
    train(config, images(), updates=training.Updates(watched_d, watched_g))
    return config.batch_size, seen, torch.cat(real_batches)


def test_the_generator_s_batch_and_the_order_of_updates(monkeypatch):
    n, seen, _ = trained_with(monkeypatch)
    assert seen == [("D", n, n), ("D", n, n), ("G", n)] * 2
    n, seen, _ = trained_with(monkeypatch, batch_size_g=2 * TINY["batch_size"], generator_first=True)
    assert seen == [("G", 2 * n), ("D", n, n), ("D", n, n)] * 2


def test_real_images_get_new_noise_each_time(monkeypatch):
    known = {image.numpy().tobytes() for image in images()}
    _, _, plain = trained_with(monkeypatch)
    assert all(image.numpy().tobytes() in known for image in plain)
    _, _, noisy = trained_with(monkeypatch, dequantize=True)
    assert not any(image.numpy().tobytes() in known for image in noisy)
    nearest = torch.cdist(noisy.flatten(1), images().flatten(1), p=float("inf")).min(1).values
    assert nearest.max() <= 1 / 128 + 1e-6 and len({image.numpy().tobytes() for image in noisy}) == len(noisy)


@pytest.mark.parametrize("size", [0, -1, 2.0, "64"])
def test_a_bad_batch_of_the_generator_is_named(size):
    with pytest.raises(ValueError, match=f"batch_size_g must be a whole number, 1 or more, got {size!r}"):
        Config(batch_size_g=size)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_every_method_trains_with_the_authors_choices(method, architecture):
    config = Config(
        method, "resnet", architecture=architecture, **{**TINY, "steps": 2}, **AUTHORS | {"batch_size_g": 8}
    )
    run = train(config, images())
    assert run.step == 2 and torch.isfinite(run.curves).all()
    assert list(linear_layers(run.discriminator))[-1].bias is None


def test_numpys_whole_numbers_are_as_good_as_pythons():
    config = Config(width=np.int64(4), steps=np.int32(2), seed=np.int64(7))
    assert config == Config(width=4, steps=2, seed=7) and type(config.seed) is int
    json.dumps(dataclasses.asdict(config))
