"""methods.py: one row for each method, and a row is all that a new one needs."""

import json
import warnings

import pytest
import torch
from helpers import TINY, images
from matplotlib import pyplot as plt
from torch import nn
from torch.nn.utils import parametrize

from course_utils import plotting
from course_utils.long_runs import benchmark, command_line
from course_utils.long_runs.fast import fast_updates
from course_utils.methods import METHODS, Method, normalize, require_method
from course_utils.spectral import linear_layers
from course_utils.training import Config, build_models, train

# ---- a new method, in one place: Frobenius normalization


class Frobenius(nn.Module):
    """W -> W / ||W||_F."""

    def forward(self, weight):
        return weight / weight.norm()


def frobenius_norm(layer):
    parametrize.register_parametrization(layer, "weight", Frobenius())
    return layer


FROBENIUS = Method("Frobenius normalization", "FN", "#444444", "<", (0, (2, 2)), weight=frobenius_norm, on_weights=True)

# ---- that is all


@pytest.fixture
def frobenius(monkeypatch):
    monkeypatch.setitem(METHODS, "frobenius_norm", FROBENIUS)


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
def test_a_new_row_trains(architecture, frobenius):
    config = Config("frobenius_norm", "D", architecture=architecture, **TINY)
    run = train(config, images())
    assert run.step == 3 and "Frobenius normalization; standard loss" in config.describe()
    for layer in linear_layers(run.discriminator):
        torch.testing.assert_close(layer.weight.norm(), torch.tensor(1.0))
    quick = train(config, images(), updates=fast_updates(config, "float32"))
    torch.testing.assert_close(quick.curves, run.curves, rtol=1e-3, atol=1e-4)


def test_a_new_row_is_drawn(frobenius):
    _, ax = plt.subplots()
    plotting.curve_with_band(ax, range(3), [[1, 2, 3], [2, 3, 4]], "frobenius_norm")
    assert ax.lines[0].get_color() == "#444444" and ax.lines[0].get_label() == "FN"
    plt.close()


@pytest.mark.slow
def test_a_new_row_is_timed_and_can_be_asked_for(frobenius, tmp_path, capsys):
    tiny = ["--profile", "cpu", "--size", "16", "--width", "2", "--batch-size", "2", "--rounds", "1", "--repeats", "1"]
    benchmark.main([*tiny, "--output", str(tmp_path / "b.json")])
    assert "frobenius_norm" in json.loads((tmp_path / "b.json").read_text())["time_over_none"]
    given = command_line.parser().parse_args(["--output", "x", "--method", "frobenius_norm"])
    assert given.method == "frobenius_norm"


def test_a_new_row_is_told_what_it_misses(frobenius):
    with pytest.warns(UserWarning, match="frobenius_norm acts on linear and convolutional layers; .*: 0.weight"):
        normalize(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 1)), "frobenius_norm")


# ---- the table


@pytest.mark.parametrize("name", METHODS)
def test_a_row_acts_in_at_most_one_place(name):
    method = METHODS[name]
    places = [method.weight, method.features, method.penalty, method.project]
    assert sum(place is not None for place in places) == (name != "none")
    assert method.acts == ("nowhere" if name == "none" else method.acts) and method.loss in ("standard", "wasserstein")
    assert set(method.style) == {"color", "marker", "linestyle", "label"} and method.style["label"] == method.label


def test_where_each_method_acts():
    where = {
        "none": "nowhere", "weight_clipping": "after the update", "gan_gp": "in the loss", "wgan_gp": "in the loss",
        "batch_norm": "in the feature maps", "layer_norm": "in the feature maps", "weight_norm": "in the weight",
        "orthonormal": "in the loss", "spectral_norm": "in the weight", "spectral_norm_gain": "in the weight",
    }  # fmt: skip
    assert where.items() <= {name: method.acts for name, method in METHODS.items()}.items()


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_on_weights_are_told_what_they_miss(name):
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        normalize(model, name)
    on_weights = {"weight_clipping", "weight_norm", "orthonormal", "spectral_norm", "spectral_norm_gain"}
    assert bool(caught) == METHODS[name].on_weights >= (name in on_weights)


def test_an_unknown_method_is_named_with_the_choices():
    for bad in ("SN", None, 3, ["none"]):
        with pytest.raises(ValueError, match="unknown method .*; choose one of: none, weight_clipping"):
            require_method(bad)


def test_the_gradient_penalty_is_counted_once():
    for name, n in (("none", 0), ("wgan_gp", 1), ("orthonormal", 1)):
        assert len(Config(name).penalties) == n
        assert len(Config(name, penalty=True).penalties) == {"none": 1, "wgan_gp": 1, "orthonormal": 2}[name]


def test_no_name_of_a_method_decides_in_the_code():
    """Neither the core nor long runs compare ``method`` with a word; the plan of recorded runs may."""
    from helpers import ROOT

    for path in [*(ROOT / "course_utils").glob("*.py"), *(ROOT / "course_utils" / "long_runs").glob("*.py")]:
        if path.stem != "record_plan":
            assert 'method == "' not in path.read_text(), path


@pytest.mark.parametrize("name", METHODS)
def test_build_models_uses_the_row(name):
    _, D = build_models(Config(name, **TINY))
    normalized = sum(parametrize.is_parametrized(layer) for layer in linear_layers(D))
    assert (normalized > 0) == (METHODS[name].weight is not None)
