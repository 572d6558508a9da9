"""fast.py: the faster updates compute what the plain ones compute, and sigma stays in float32."""

import dataclasses
import functools
import json

import pytest
import torch
from helpers import TINY, images

from course_utils.long_runs import benchmark
from course_utils.long_runs.fast import Fast, fast_updates, used_parameters
from course_utils.long_runs.parallel import Processes
from course_utils.methods import METHODS
from course_utils.normalization import SpectralNorm
from course_utils.spectral import linear_layers
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
    seen, forward = [], SpectralNorm.forward

    def watched(self, weight):
        seen.append((id(self), torch.is_autocast_enabled("cpu")))
        return forward(self, weight)

    run = Run.start(config)
    monkeypatch.setattr(SpectralNorm, "forward", watched)
    train(config, images(), run=run, updates=fast_updates(config, "bfloat16"))
    layers = len(linear_layers(run.discriminator))
    assert len(seen) == 2 * layers  # once for the update of D, once for that of G
    assert not any(autocast for _, autocast in seen)


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
    assert set(METHODS) | {benchmark.TORCHS} <= set(result["images_per_second"])
    assert all(f"\n{method} " in shown for method in METHODS) and "time over torch's" in shown
    assert all(speed > 0 for speed in result["images_per_second"].values())
    assert benchmark.fastest({"none": 9, "spectral_norm": 2, "spectral_norm, bfloat16": 3, benchmark.TORCHS: 4}) == (
        "spectral_norm, bfloat16"
    )
    for options, message in [(["--size", "17"], "got 17"), (["--rounds", "0"], "1 or more, got '0'")]:
        with pytest.raises(SystemExit) as stop:
            benchmark.main([*tiny, *options])
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_each_network_is_wrapped_once(monkeypatch):
    made, init = [], Fast.__init__

    def watched(self, *args):
        made.append(self)
        init(self, *args)

    monkeypatch.setattr(Fast, "__init__", watched)
    config = Config("spectral_norm", "A", **{**TINY, "steps": 3})
    train(config, images(), updates=fast_updates(config, "float32"))
    assert len(made) == 2
