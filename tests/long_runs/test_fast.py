"""fast.py: the faster updates compute what the plain ones compute, and sigma stays in float32."""

import copy
import dataclasses
import functools
import json

import pytest
import torch
from helpers import TINY, images

from course_utils.long_runs import benchmark, fast
from course_utils.long_runs.fast import Fast, PreparedSpectralNorm, Together, fast_updates, used_parameters
from course_utils.long_runs.parallel import Processes
from course_utils.methods import METHODS
from course_utils.normalization import DivisionBySigma, FusedSpectralNorm, fuse, spectral_norm
from course_utils.spectral import linear_layers, named_layers
from course_utils.training import PLAIN, Config, Run, build_models, train


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
@pytest.mark.parametrize("method", METHODS)
def test_in_float32_the_fast_updates_agree_with_the_plain_ones(method, architecture):
    """Compared by what the updated networks do: a single weight whose gradient is zero but for rounding may go either way."""
    config = Config(method, "A", architecture=architecture, **{**TINY, "steps": 3})
    plain = train(config, images())
    fast = train(config, images(), updates=fast_updates(config, "float32"))
    torch.testing.assert_close(plain.curves, fast.curves, rtol=1e-3, atol=1e-4)
    apart, moved = (
        (plain.sample(8) - fast.sample(8)).abs().mean(),
        (plain.sample(8) - Run.start(config).sample(8)).abs().mean(),
    )
    assert apart < 0.05 * moved


@pytest.mark.parametrize("method, backend", [("spectral_norm", "aot_eager"), ("batch_norm", "eager")])
def test_compiled_networks_agree_too(method, backend, monkeypatch):
    """aot_eager traces and differentiates as for a GPU, but leaves out the minutes of code generation; eager traces."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    config = Config(method, "C", **{**TINY, "steps": 2})
    plain = train(config, images())
    fast = train(config, images(), updates=fast_updates(config, "float32", compiled=True))
    torch.testing.assert_close(plain.curves, fast.curves, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.sample(8), fast.sample(8), rtol=1e-2, atol=1e-3)


def test_with_a_gradient_penalty_only_the_generator_is_compiled(monkeypatch):
    seen = []

    def watched(function, **options):
        return lambda parameters, x: (seen.append(x.ndim), function(parameters, x))[1]

    monkeypatch.setattr(torch, "compile", watched)
    config = Config("gan_gp", "C", **{**TINY, "steps": 1})
    train(config, images(), updates=fast_updates(config, "float32", compiled=True))
    assert seen == [2, 2]  # z, in the update of D and in that of G; no images


@pytest.mark.parametrize("method", ["spectral_norm", "weight_norm", "none", "wgan_gp"])
def test_bfloat16_is_near(method):
    config = Config(method, "A", **{**TINY, "steps": 2})
    plain, fast = train(config, images()), train(config, images(), updates=fast_updates(config, "bfloat16"))
    assert not torch.equal(plain.curves, fast.curves)
    torch.testing.assert_close(plain.curves, fast.curves, rtol=0.1, atol=0.1)
    assert all(p.dtype == torch.float32 for p in (*fast.generator.parameters(), *fast.discriminator.parameters()))


def test_sigma_is_computed_in_float32_and_once_for_both_batches(monkeypatch):
    config = Config("spectral_norm", "C", **{**TINY, "steps": 1})
    seen, apply = [], DivisionBySigma.apply

    class Watched:
        @staticmethod
        def apply(weight, sigma, *rest):
            seen.append((torch.is_autocast_enabled("cpu"), sigma.dtype))
            return apply(weight, sigma, *rest)

    run = Run.start(config)
    monkeypatch.setattr(fast, "DivisionBySigma", Watched)
    train(config, images(), run=run, updates=fast_updates(config, "bfloat16"))
    layers = len(linear_layers(run.discriminator))
    assert seen == [(False, torch.float32)] * 2 * layers  # once for the update of D, once for that of G


def moving(architecture, channels_last):
    """A fused discriminator and its twin behind `Fast`, whose weights have left the warm start."""
    _, plain = build_models(Config("spectral_norm", **{**TINY, "architecture": architecture}))
    for layer in linear_layers(plain):
        original = layer.parametrizations.weight.original
        original.data += 0.3 * torch.randn(original.shape, generator=torch.Generator().manual_seed(1))
    together = copy.deepcopy(plain)
    if channels_last:
        together.to(memory_format=torch.channels_last)
    return plain, together, Together(fuse(together, PreparedSpectralNorm))


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_all_layers_together_move_as_each_alone(architecture, channels_last):
    plain, network, together = moving(architecture, channels_last)
    pulls = {}
    for _ in range(3):
        together.__enter__()
        for name, layer in named_layers(network).items():
            twin = named_layers(plain)[name]
            weight, expected = layer.weight, twin.weight
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
            assert weight.stride() == layer.parametrizations.weight.original.stride()
            pull = pulls.setdefault(name, torch.randn(weight.shape))
            for one, made in ((layer, weight), (twin, expected)):
                one.zero_grad()
                made.backward(pull)
            gradients = [one.parametrizations.weight.original.grad for one in (layer, twin)]
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e25, float("nan")])
def test_together_zero_stays_overflow_shows_and_the_other_layers_do_not_notice(value):
    plain, network, together = moving("cnn", True)
    for net in (network, plain):
        linear_layers(net)[1].parametrizations.weight.original.data.fill_(value)
    together.__enter__()
    for layer, twin in zip(linear_layers(network), linear_layers(plain)):
        torch.testing.assert_close(layer.weight, twin.weight, rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(network.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6, equal_nan=True)
    assert linear_layers(plain)[1].eval().weight.isnan().all() == (value != 0) and not together.made


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_passes_of_one_update_share_a_round(architecture):
    """Under SN with the penalty an update of D has two passes, and the cache hands the weights of the first to the second."""
    config = Config("spectral_norm", "C", architecture=architecture, penalty=True, **{**TINY, "steps": 1})
    plain, quick = train(config, images()), train(config, images(), updates=fast_updates(config, "float32"))
    torch.testing.assert_close(plain.curves, quick.curves, rtol=1e-4, atol=1e-5)
    buffers = [dict(run.discriminator.named_buffers()) for run in (plain, quick)]
    assert len(buffers[0]) == 2 * len(linear_layers(plain.discriminator))
    torch.testing.assert_close(*buffers, rtol=1e-3, atol=1e-4)  # after two rounds, and one step of Adam between them


def test_in_evaluation_mode_nothing_moves_behind_fast():
    config = Config("spectral_norm", **TINY)
    _, D = build_models(config)
    expected, before = D.eval()(images(3)), copy.deepcopy(D.state_dict())
    torch.testing.assert_close(Fast(D, "float32")(images(3)), expected)
    torch.testing.assert_close(D.state_dict(), before, rtol=0, atol=0)


def test_a_run_keeps_its_checkpoint_whichever_loop_made_it():
    config = Config("spectral_norm", "C", **{**TINY, "steps": 1})
    plain = train(config, images())
    fused = train(config, images(), updates=fast_updates(config, "float32"))
    assert any(isinstance(m, FusedSpectralNorm) for m in fused.discriminator.modules())
    assert list(plain.discriminator.state_dict()) == list(fused.discriminator.state_dict())
    plain.discriminator.load_state_dict(fused.discriminator.state_dict())
    torch.testing.assert_close(plain.discriminator.eval()(images(3)), fused.discriminator.eval()(images(3)))


@pytest.mark.parametrize("n", [1, 2])
def test_layers_with_other_numbers_of_rounds_keep_their_own(n):
    plain = spectral_norm(torch.nn.Linear(4, 3), n_power_iterations=n)
    together = copy.deepcopy(plain)
    assert len(Together(fuse(together, PreparedSpectralNorm)).layers) == (n == 1)
    x = torch.randn(2, 4)
    torch.testing.assert_close(Fast(together, "float32")(x), plain(x))
    torch.testing.assert_close(together.state_dict(), plain.state_dict(), rtol=1e-6, atol=1e-6)


def test_used_parameters_are_those_of_the_network_without_normalization():
    config = Config("spectral_norm", **TINY)
    _, D = build_models(config)
    _, plain = build_models(dataclasses.replace(config, method="none"))
    D.eval()
    used = used_parameters(D)
    assert used.keys() == plain.state_dict().keys()
    x = images(3)
    torch.testing.assert_close(torch.func.functional_call(plain, used, (x,)), D(x))
    low, exact = Fast(D, "bfloat16")(x), D(x)
    assert low.dtype == torch.float32
    apart = float(((low - exact) / exact).abs().max().detach())
    assert 1e-4 < apart < 0.1  # bfloat16 keeps 8 bits; what rounding in float32 leaves is below 1e-5


def test_other_precisions_are_named():
    with pytest.raises(ValueError, match="unknown precision 'float16'; choose one of: float32, bfloat16"):
        fast_updates(Config(), "float16")


def test_one_process_is_no_different_from_none():
    run = Run.start(Config(**TINY))
    processes, batch = Processes(run, PLAIN), images(6)
    assert processes.discriminator is run.discriminator and torch.equal(processes.share(batch)[0], batch)
    assert processes.updates is PLAIN


def test_the_benchmark_times_every_method(tmp_path, monkeypatch, capsys):
    tiny = ["--profile", "cpu", "--architecture", "resnet", "--width", "4", "--batch-size", "2", "--rounds", "1"]
    benchmark.main([*tiny, "--repeats", "1", "--output", str(tmp_path / "b.json")])
    shown, result = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert set(METHODS) | {benchmark.TORCHS, benchmark.FUSED} <= set(result["images_per_second"])
    assert set(result["operations"]) == set(result["images_per_second"])
    assert all(f"\n{method} " in shown for method in METHODS) and "time over torch's" in shown
    assert all(speed > 0 for speed in result["images_per_second"].values())
    assert benchmark.fastest({"none": 9, "spectral_norm": 2, "spectral_norm, bfloat16": 3, benchmark.TORCHS: 4}) == (
        "spectral_norm, bfloat16"
    )
    for options, message in [(["--size", "17"], "got 17"), (["--rounds", "0"], "1 or more, got '0'")]:
        with pytest.raises(SystemExit) as stop:
            benchmark.main([*tiny, *options])
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_operations_are_counted_without_views():
    x = torch.ones(3, 4)
    assert benchmark.operations(lambda: (x.t().view(12) if x.t().is_contiguous() else x.view(12)).reshape(2, 6)) == 0
    assert benchmark.operations(lambda: x[0].add(1).mul_(2)) == 2


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_the_fast_loop_needs_at_most_half_as_many_operations_again_for_sn(architecture):
    config = {"architecture": architecture, "size": 32, "width": 4, "batch_size": 2, "channels": 1}
    made = benchmark.candidates(config, torch.zeros(2, 1, 32, 32))
    counts = {name: made[name].operations() for name in made if name.startswith(("none", "spectral_norm"))}
    assert counts["spectral_norm, one pass"] <= 1.5 * counts["none"]
    assert counts["spectral_norm, bfloat16"] <= 1.5 * counts["none, bfloat16"]
    assert counts[benchmark.FUSED] < counts[benchmark.TORCHS] < counts["spectral_norm"]


def test_the_benchmark_of_layers(tmp_path, monkeypatch, capsys):
    networks = {"small": (lambda: torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 1)), (6,))}
    monkeypatch.setattr(benchmark, "NETWORKS", networks)
    output = tmp_path / "layers.json"
    benchmark.main(["--profile", "cpu", "--layers", "--rounds", "3", "--output", str(output)])
    shown, result = capsys.readouterr().out, json.loads(output.read_text())
    step = result["steps"]["small"]
    assert all(set(step[what]) == set(benchmark.VERSIONS) for what in ("milliseconds", "time_over_none", "operations"))
    assert step["time_over_none"]["none"] == [1, 1, 1] and step["overhead_over_torchs"]["torch's"] == 1
    assert all(low <= middle <= high for middle, low, high in step["time_over_none"].values())
    kept = step["kept_megabytes"]  # of the first layer nothing but x is kept without SN, and x is not counted
    assert kept["none"] * 1e6 == pytest.approx(64 * 5 * 4, abs=1) and kept["fused"] > kept["none"]
    assert set(result["iterations"]) == {"cnn", "resnet"} and "together" in shown


def test_each_network_is_wrapped_once(monkeypatch):
    made, init = [], Fast.__init__

    def watched(self, *args):
        made.append(self)
        init(self, *args)

    monkeypatch.setattr(Fast, "__init__", watched)
    config = Config("spectral_norm", "A", **{**TINY, "steps": 3})
    train(config, images(), updates=fast_updates(config, "float32"))
    assert len(made) == 2


def test_layers_of_another_kind_are_normalized_one_by_one():
    network = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(4)))
    for layer, options in zip(network, ({}, {"n_power_iterations": 2}, {"eps": 1e-6}, {})):
        spectral_norm(layer, **options)
    twin = copy.deepcopy(network)
    fast = Fast(network, "float32")
    assert len(fast.together.layers) == 2
    x = torch.randn(2, 3)
    torch.testing.assert_close(fast(x), twin(x))
    torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=1e-6, atol=1e-6)
