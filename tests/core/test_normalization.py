"""normalization.py: spectral_norm bit by bit against torch's own, and every other method against its formula."""

import copy
import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from course_utils.methods import METHODS, normalize, other_weights
from course_utils.normalization import (
    DivisionBySigma,
    FusedSpectralNorm,
    SpectralNorm,
    clip_singular_values,
    clip_weights_,
    fuse,
    gradient_penalty,
    orthonormal_penalty,
    spectral_norm,
    spectral_norm_gain,
    weight_norm,
)
from course_utils.spectral import linear_layers, output_dim, weight_matrix

torch_spectral_norm = parametrizations.spectral_norm
quick = settings(max_examples=30, deadline=None, derandomize=True)
sides, seeds = st.integers(1, 10), st.integers(0, 10**6)

LAYERS = {  # a layer and an input for it
    "Linear": (lambda: nn.Linear(6, 5), (4, 6)),
    "wide Linear": (lambda: nn.Linear(40, 3), (4, 40)),
    "scalar Linear": (lambda: nn.Linear(6, 1), (4, 6)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 2, 7)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), (2, 2, 6, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "grouped Conv2d": (lambda: nn.Conv2d(4, 4, 3, groups=2), (2, 4, 5, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 3), (2, 2, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 2, 4, 2, 1), (2, 3, 4, 4)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "Embedding": (lambda: nn.Embedding(7, 3), None),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def twins(kind, dtype=torch.float32, **options):
    """The same layer under this course's spectral_norm and under torch's, and an input."""
    make, shape = LAYERS[kind]
    made = []
    for apply in (spectral_norm, torch_spectral_norm):
        torch.manual_seed(0)
        made.append(apply(make().to(dtype), **options))
    x = torch.arange(7) if shape is None else torch.randn(shape, dtype=dtype, generator=rng(1))
    return *made, x


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def step(layer, optimizer, x):
    optimizer.zero_grad()
    output = layer(x)
    output.square().sum().backward()
    optimizer.step()
    return output.detach()


def sigma_of(layer, name="weight"):
    return float(torch.linalg.matrix_norm(weight_matrix(getattr(layer, name).detach(), output_dim(layer)), ord=2))


def layer_with(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(weight.dtype)
    layer.weight.data = weight.clone()
    return layer


# ---- spectral normalization is torch's, bit by bit


def test_signature_is_that_of_torch():
    ours, theirs = inspect.signature(spectral_norm), inspect.signature(torch_spectral_norm)
    assert [(p.name, p.default) for p in ours.parameters.values()] == [
        (p.name, p.default) for p in theirs.parameters.values()
    ]


@each_layer
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_training_is_torchs_bit_by_bit(kind, n):
    ours, theirs, x = twins(kind, n_power_iterations=n)
    assert same_state(ours, theirs)
    optimizers = [torch.optim.Adam(layer.parameters(), lr=0.05) for layer in (ours, theirs)]
    for _ in range(5):
        assert torch.equal(step(ours, optimizers[0], x), step(theirs, optimizers[1], x))
        grads = [layer.parametrizations.weight.original.grad for layer in (ours, theirs)]
        assert torch.equal(*grads)
        assert same_state(ours, theirs)


@each_layer
def test_training_is_torchs_in_double_precision(kind):
    ours, theirs, x = twins(kind, torch.float64)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (ours, theirs)]
    for _ in range(3):
        assert torch.equal(step(ours, optimizers[0], x), step(theirs, optimizers[1], x))
    assert same_state(ours, theirs) and ours.weight.dtype == torch.float64


@pytest.mark.parametrize(
    "kind, dim", [("Linear", 1), ("Linear", -1), ("Conv2d", 1), ("Conv2d", -2), ("ConvTranspose2d", 0)]
)
def test_dim_is_torchs(kind, dim):
    ours, theirs, x = twins(kind, dim=dim)
    for _ in range(3):
        assert torch.equal(ours(x), theirs(x))
    assert same_state(ours, theirs)
    assert ours.parametrizations.weight[0]._u.shape == (ours.weight.shape[dim],)


def test_default_dim_is_1_for_transposed_convolutions_only():
    assert spectral_norm(nn.ConvTranspose2d(3, 5, 2)).parametrizations.weight[0]._u.shape == (5,)
    assert spectral_norm(nn.Conv2d(3, 5, 2)).parametrizations.weight[0]._u.shape == (5,)


@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0"])
def test_any_parameter_by_name(name):
    made = []
    for apply in (spectral_norm, torch_spectral_norm):
        torch.manual_seed(0)
        made.append(apply(nn.LSTM(3, 4), name=name))
    x = gaussian(5, 2, 3, dtype=torch.float32)
    assert torch.equal(made[0](x)[0], made[1](x)[0]) and same_state(*made)
    if name.startswith("bias"):  # a vector is divided by its length
        assert float(getattr(made[0], name).detach().norm()) == pytest.approx(1, abs=1e-6)


@each_layer
def test_eval_mode_moves_nothing(kind):
    ours, theirs, x = twins(kind)
    ours(x), theirs(x)
    for layer in (ours, theirs):
        layer.eval()
        layer.parametrizations.weight.original.data.mul_(1.5).add_(0.1)
    before = copy.deepcopy(ours.state_dict())
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours(x), ours(x))
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
    ours.train()(x)
    if ours.weight.flatten(1).shape[0] > 1:
        assert not torch.equal(before["parametrizations.weight.0._u"], ours.parametrizations.weight[0]._u)


def test_training_mode_moves_u_by_one_round_of_the_papers_algorithm():
    layer = spectral_norm(layer_with(gaussian(5, 4)))
    part = layer.parametrizations.weight[0]
    w = layer.parametrizations.weight.original.detach()
    w.add_(gaussian(5, 4, seed=1))
    v = part._v.clone()
    layer.weight  # noqa: B018  # read once in training mode
    u_expected = F.normalize(w @ v, dim=0)
    v_expected = F.normalize(w.T @ u_expected, dim=0)
    torch.testing.assert_close((part._u, part._v), (u_expected, v_expected))
    torch.testing.assert_close(layer.eval().weight, w / (u_expected @ w @ v_expected))


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("direction", ["from ours", "from torch"])
def test_state_dict_interchange(kind, direction):
    source, target, x = twins(kind)
    if direction == "from torch":
        source, target = target, source
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1)
    for _ in range(3):
        step(source, optimizer, x)
    target.load_state_dict(copy.deepcopy(source.state_dict()), strict=True)
    assert same_state(source, target)
    assert torch.equal(source.eval()(x), target.eval()(x))
    assert torch.equal(source.train()(x), target.train()(x)) and same_state(source, target)


def test_state_dict_goes_through_a_file(tmp_path):
    ours, theirs, x = twins("Conv2d")
    ours(x)
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    theirs.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_deepcopy_is_independent():
    ours, _, x = twins("Conv2d")
    twin = copy.deepcopy(ours)
    assert same_state(ours, twin) and torch.equal(ours(x), twin(x))
    frozen = copy.deepcopy(twin.state_dict())
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.5)
    for _ in range(3):
        step(ours, optimizer, x)
    assert all(torch.equal(frozen[name], value) for name, value in twin.state_dict().items())
    assert not torch.equal(ours(x), twin(x))


def test_buffers_are_changed_in_place_but_not_those_that_the_graph_holds():
    ours, _, x = twins("Linear")
    part = ours.parametrizations.weight[0]
    place = part._u.data_ptr(), part._v.data_ptr()
    loss = ours(x).sum() - ours(2 * x).sum()  # two rounds before one backward pass
    loss.backward()
    assert (part._u.data_ptr(), part._v.data_ptr()) == place
    assert not part._u.requires_grad and part._u.grad_fn is None


def test_double_backward():
    ours, theirs, x = twins("Linear", torch.float64)
    second = []
    for layer in (ours, theirs):
        y = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(layer(y).square().sum(), y, create_graph=True)
        second.append(torch.autograd.grad(g.square().sum(), layer.parametrizations.weight.original)[0])
    torch.testing.assert_close(*second, rtol=1e-12, atol=1e-12)


def test_cached_forward_passes_share_one_round():
    ours, theirs, x = twins("Conv2d")
    for layer in (ours, theirs):
        layer.parametrizations.weight.original.data += gaussian(*layer.weight.shape, dtype=torch.float32)
    with parametrize.cached():
        first, second = ours(x), ours(x)
        weights = ours.weight, ours.weight
    assert torch.equal(first, second) and weights[0] is weights[1]
    theirs(x)  # one round
    assert same_state(ours, theirs)
    assert not torch.equal(ours(x), first)  # outside, each pass is a round of its own


def test_assigning_a_weight_stores_it():
    ours, theirs, x = twins("Linear")
    value = gaussian(5, 6, dtype=torch.float32)
    for layer in (ours, theirs):
        layer.eval().weight = value
    assert torch.equal(ours.parametrizations.weight.original, value)
    assert torch.equal(ours.train()(x), theirs.train()(x)) and same_state(ours, theirs)


@pytest.mark.parametrize("leave", [True, False])
def test_removal(leave):
    ours, theirs, x = twins("Linear")
    weight = ours.eval().weight.detach().clone()
    for layer in (ours, theirs):
        parametrize.remove_parametrizations(layer.eval(), "weight", leave_parametrized=leave)
    assert type(ours) is nn.Linear and torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.weight, weight) == leave
    assert list(ours.state_dict()) == list(nn.Linear(1, 1).state_dict()) or set(ours.state_dict()) == {"weight", "bias"}


def test_module_is_returned_and_only_the_original_is_trained():
    layer = nn.Linear(3, 2)
    assert spectral_norm(layer) is layer
    assert {name for name, _ in layer.named_parameters()} == {"bias", "parametrizations.weight.original"}
    assert {name for name, _ in layer.named_buffers()} == {
        "parametrizations.weight.0._u",
        "parametrizations.weight.0._v",
    }


def test_moves_to_another_precision_with_its_module():
    layer = spectral_norm(nn.Linear(4, 3)).double()
    assert layer(gaussian(2, 4)).dtype == torch.float64
    assert layer.parametrizations.weight[0]._u.dtype == torch.float64


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
def test_warm_start_is_close_to_one_and_many_rounds_reach_it(kind):
    layer, _, _ = twins(kind, torch.float64)
    assert 1 - 1e-12 <= sigma_of(layer.eval()) < 1.05
    layer.train()
    for _ in range(300):
        layer.weight  # noqa: B018
    assert sigma_of(layer.eval()) == pytest.approx(1, abs=1e-8)


@quick
@given(sides, sides, seeds, st.integers(1, 3))
def test_normalized_sigma_is_never_below_one(d_out, d_in, seed, n):
    layer = spectral_norm(layer_with(gaussian(d_out, d_in, seed=seed)), n_power_iterations=n)
    for _ in range(3):
        assert sigma_of(layer) >= 1 - 1e-12
        layer.parametrizations.weight.original.data += 0.3 * gaussian(d_out, d_in, seed=seed + 1)


def test_sigma_stays_within_five_percent_while_the_weight_moves():
    layer = spectral_norm(layer_with(gaussian(32, 64, dtype=torch.float32)))
    optimizer, x = torch.optim.Adam(layer.parameters(), lr=1e-3), gaussian(64, 64, dtype=torch.float32)
    for i in range(60):
        step(layer, optimizer, x)
        if i >= 20:
            assert 1 - 1e-5 <= sigma_of(copy.deepcopy(layer).eval()) < 1.05


# ---- its gradient


def exact(weight):
    """A layer whose u and v are the singular vectors, in evaluation mode."""
    layer = spectral_norm(layer_with(weight)).eval()
    u, _, vh = torch.linalg.svd(weight)
    layer.parametrizations.weight[0]._u.copy_(u[:, 0])
    layer.parametrizations.weight[0]._v.copy_(vh[0])
    return layer, u[:, 0], vh[0]


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 3)])
def test_jacobian_is_equation_10_where_u_and_v_are_exact(shape):
    w = gaussian(*shape)
    layer, u, v = exact(w)
    part, sigma = layer.parametrizations.weight[0], torch.linalg.matrix_norm(w, ord=2)
    jacobian = torch.autograd.functional.jacobian(part, w)  # [k, l, i, j] = d W_SN[k, l] / d W[i, j]
    units = torch.einsum("ki,lj->klij", torch.eye(shape[0]), torch.eye(shape[1])).double()
    expected = (units - torch.einsum("ij,kl->klij", torch.outer(u, v), w / sigma)) / sigma  # (10)
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-12)
    with_exact_sigma = torch.autograd.functional.jacobian(lambda x: x / torch.linalg.matrix_norm(x, ord=2), w)
    torch.testing.assert_close(jacobian, with_exact_sigma, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
def test_gradcheck_in_evaluation_mode(kind):
    layer, _, _ = twins(kind, torch.float64)
    weight = layer.parametrizations.weight.original.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(layer.eval().parametrizations.weight[0], weight)
    assert torch.autograd.gradgradcheck(layer.parametrizations.weight[0], weight)


@quick
@given(sides, sides, seeds)
def test_gradient_is_orthogonal_to_the_weight(d_out, d_in, seed):
    layer = spectral_norm(layer_with(gaussian(d_out, d_in, seed=seed)))
    layer(gaussian(5, d_in, seed=seed + 1)).tanh().sum().backward()
    w, gradient = layer.parametrizations.weight.original.detach(), layer.parametrizations.weight.original.grad
    assert (gradient * w).sum().abs() <= 1e-10 * (1 + gradient.norm() * w.norm())


# ---- degenerate weights


@pytest.mark.parametrize("apply", [spectral_norm, weight_norm, spectral_norm_gain])
def test_the_zero_matrix_stays_zero_with_a_finite_gradient_and_recovers(apply):
    layer = layer_with(torch.zeros(3, 4))
    apply(layer)
    x = gaussian(5, 4, dtype=torch.float32)
    for _ in range(3):
        assert not layer(x).any()
    (layer(x) - 1).square().sum().backward()
    original = layer.parametrizations.weight.original
    assert torch.isfinite(original.grad).all()
    original.data += gaussian(3, 4, dtype=torch.float32)
    for _ in range(50):
        layer.weight  # noqa: B018
    assert torch.isfinite(layer(x)).all()
    if apply is not weight_norm:
        assert sigma_of(layer.eval()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("born_zero", [True, False])
def test_after_a_zero_weight_evaluation_mode_returns_the_weight_and_training_mode_recovers(born_zero):
    later = 5 * gaussian(3, 4)
    layer = spectral_norm(layer_with(torch.zeros(3, 4, dtype=torch.float64) if born_zero else later.clone()))
    original = layer.parametrizations.weight.original
    original.data.zero_()
    assert not layer.weight.any()  # in training mode: the buffer u is zero from here on
    original.data.copy_(later)
    assert torch.equal(layer.eval().weight, later) and torch.equal(layer.weight, later)
    layer.train()
    for _ in range(50):
        layer.weight  # noqa: B018
    assert sigma_of(layer.eval()) == pytest.approx(1, abs=1e-6)


def test_nan_that_appears_later_reaches_the_output_and_leaves_no_trace():
    layer, _, x = twins("Linear")
    good = layer.parametrizations.weight.original.detach().clone()
    layer.parametrizations.weight.original.data[0, 0] = math.nan
    assert layer(x).isnan().any()
    layer.parametrizations.weight.original.data = good
    assert torch.isfinite(layer(x)).all()


def test_nan_in_u_is_not_taken_for_a_weight_without_estimate():
    layer, _, x = twins("Linear")
    layer.parametrizations.weight[0]._u[0] = math.nan
    assert layer.eval()(x).isnan().all()


@pytest.mark.parametrize("apply", [spectral_norm, spectral_norm_gain, weight_norm])
@pytest.mark.parametrize("entry, dtype", [(1e25, torch.float32), (3e4, torch.float16), (1e25, torch.bfloat16)])
@pytest.mark.parametrize("training", [True, False])
def test_an_overflow_shows(apply, entry, dtype, training):
    layer = apply(layer_with(gaussian(16, 8, dtype=torch.float32).to(dtype))).train(training)
    original = layer.parametrizations.weight.original
    good = original.detach().clone()
    original.data.fill_(entry)
    if apply is weight_norm or training:
        assert layer.weight.isnan().any()  # not zero, and not the weight as it is
    original.data = good
    assert torch.isfinite(layer.weight).all()  # and leaves no trace


@pytest.mark.parametrize("apply", [spectral_norm, spectral_norm_gain, weight_norm])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("zero", ["row", "matrix"])
def test_half_precision_keeps_zeros_and_finite_gradients(apply, dtype, zero):
    layer = layer_with(gaussian(4, 8, dtype=torch.float32).to(dtype))
    layer.weight.data[: 1 if zero == "row" else 4] = 0
    apply(layer)
    for _ in range(2):
        weight = layer.weight
        assert torch.isfinite(weight).all() and not weight[0].any()
    weight.sum().backward()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()
    if zero == "row" and apply is not weight_norm:
        assert float(torch.linalg.matrix_norm(weight.detach().float(), ord=2)) == pytest.approx(1, abs=0.05)


def test_a_zero_vector_stays_zero_in_half_precision():
    layer = nn.Linear(3, 4).half()
    layer.bias.data.zero_()
    assert torch.equal(spectral_norm(layer, "bias").bias, torch.zeros(4).half())


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_torchs_bit_by_bit(kind, dtype):
    ours, theirs, _ = twins(kind, dtype)
    for layer in (ours, theirs):
        for _ in range(3):
            layer.zero_grad()
            layer.weight.square().sum().backward()
            torch.optim.SGD(layer.parameters(), 0.01).step()
    assert same_state(ours, theirs) and torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("kind", ["Linear", "wide Linear", "Conv2d", "ConvTranspose2d"])
def test_autocast_moves_u_and_v_as_torch_does(kind):
    ours, theirs, x = twins(kind, n_power_iterations=300)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x)) and ours(x).dtype == torch.bfloat16
        theirs(x)
        weight = ours.weight
        theirs.weight  # noqa: B018
    assert same_state(ours, theirs)
    part = ours.parametrizations.weight[0]
    assert float(part._u.norm()) == pytest.approx(1, abs=1e-6) and float(part._v.norm()) == pytest.approx(1, abs=1e-6)
    assert float(torch.linalg.matrix_norm(weight_matrix(weight.detach(), output_dim(ours)), ord=2)) == pytest.approx(
        1, abs=1e-5
    )


# ---- the fused layer: (12) as backward pass


def fused_pair(kind, dtype=torch.float64, **options):
    """The same layer twice, the second one fused, and an input."""
    reference, _, x = twins(kind, dtype, **options)
    return reference, fuse(copy.deepcopy(reference)), x


def buffers(layer):
    part = layer.parametrizations.weight[0]
    return torch.cat([part._u, part._v])


def original(layer):
    return layer.parametrizations.weight.original


@each_layer
@pytest.mark.parametrize("n", [1, 3])
def test_fused_training_is_the_references_up_to_rounding(kind, n):
    reference, fused, x = fused_pair(kind, n_power_iterations=n)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.05) for layer in (reference, fused)]
    for i in range(5):
        outputs = [step(layer, optimizer, x) for layer, optimizer in zip((reference, fused), optimizers)]
        torch.testing.assert_close(*outputs, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(original(reference).grad, original(fused).grad, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(buffers(reference), buffers(fused), rtol=1e-13, atol=1e-13)
        assert i > 0 or torch.equal(buffers(reference), buffers(fused))  # from equal weights to the bit
        assert original(fused).grad.stride() == original(fused).stride()


@pytest.mark.parametrize("kind, dim", [("Linear", 1), ("Conv2d", 1), ("Conv2d", -2), ("ConvTranspose2d", 0)])
def test_fused_dim(kind, dim):
    reference, fused, x = fused_pair(kind, dim=dim)
    for layer in (reference, fused):
        layer(x).square().sum().backward()
    torch.testing.assert_close(original(reference).grad, original(fused).grad, rtol=1e-12, atol=1e-13)
    assert torch.equal(buffers(reference), buffers(fused))


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
def test_fused_checkpoints_go_both_ways(kind):
    reference, fused, x = fused_pair(kind)
    original(fused).data += 1
    fused(x)
    assert not same_state(reference, fused)
    reference.load_state_dict(fused.state_dict())
    assert same_state(reference, fused) and torch.equal(reference.eval()(x), fused.eval()(x))
    other = fuse(twins(kind, torch.float64)[0])
    other.load_state_dict(reference.state_dict())
    assert same_state(reference, other)


def test_fused_evaluation_uses_the_stored_vectors_also_after_the_weight_has_moved():
    reference, fused, x = fused_pair("Conv2d")
    for layer in (reference, fused):
        layer(x)
        original(layer).data += gaussian(*original(layer).shape)
        layer.eval()
    before = buffers(fused).clone()
    assert torch.equal(reference.weight, fused.weight) and torch.equal(buffers(fused), before)
    u, v = fused.parametrizations.weight[0]._u, fused.parametrizations.weight[0]._v
    torch.testing.assert_close(u @ fused.weight.flatten(1) @ v, torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("shape, dim", [((3, 4), 0), ((1, 4), 0), ((3, 4), 1), ((2, 3, 2, 2), 0), ((2, 3, 2), 1)])
def test_the_backward_pass_by_hand_is_right_and_can_be_differentiated(shape, dim):
    weight = gaussian(*shape)
    matrix = weight_matrix(weight, dim)
    u, v = (F.normalize(gaussian(n, seed=n), dim=0) for n in matrix.shape)  # any vectors, not the singular ones

    def by_hand(w):
        return DivisionBySigma.apply(w, (u @ weight_matrix(w, dim) @ v).detach(), u, v, dim)

    def by_autograd(w):
        return w / (u @ weight_matrix(w, dim) @ v)

    w = weight.clone().requires_grad_()
    assert torch.autograd.gradcheck(by_hand, w) and torch.autograd.gradgradcheck(by_hand, w)
    pull = gaussian(*shape, seed=1)
    found = [torch.autograd.grad(f(w), w, pull, create_graph=graph)[0] for f, graph in
             ((by_autograd, False), (by_hand, False), (by_hand, True))]  # fmt: skip
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found[0], found[2], rtol=1e-12, atol=1e-13)


def test_fused_layers_under_a_gradient_penalty():
    """The penalty's gradient in W goes through the gradient in the image, which W_SN has a part in."""
    torch.manual_seed(0)
    reference = normalize(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1)), "spectral_norm")
    found = []
    for net in (reference.double(), fuse(copy.deepcopy(reference))):
        with parametrize.cached():
            loss = net(gaussian(3, 1, 6, 6, seed=2)).mean()
            loss = loss + gradient_penalty(net, gaussian(3, 1, 6, 6), gaussian(3, 1, 6, 6, seed=1), rng())
        found.append(torch.autograd.grad(loss, list(net.parameters())))
    assert any(isinstance(m, FusedSpectralNorm) for m in net.modules())
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-13)


def test_fused_second_derivatives_in_training_mode():
    reference, fused, x = fused_pair("Linear")
    second = []
    for layer in (reference, fused):
        (g,) = torch.autograd.grad(layer(x).pow(3).sum(), original(layer), create_graph=True)
        second.append(torch.autograd.grad(g.square().sum(), original(layer))[0])
    torch.testing.assert_close(*second, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("what", ["zero", "NaN", "infinite", "overflow", "tiny", "no estimate"])
def test_a_fused_layer_leaves_what_is_not_plain_sailing_to_the_reference(what, dtype):
    reference, fused, _ = fused_pair("Conv2d", dtype)
    for layer in (reference, fused):
        w = original(layer).data
        if what in ("NaN", "infinite"):
            w[0, 0, 0, 0] = math.nan if what == "NaN" else math.inf
        elif what == "no estimate":
            layer.parametrizations.weight[0]._v.zero_()
        else:
            w.fill_(
                {"zero": 0, "overflow": torch.finfo(dtype).max / 4, "tiny": 1e-14 if dtype != torch.float16 else 0}[
                    what
                ]
            )
    for _ in range(2):
        for layer in (reference, fused):
            layer.zero_grad()
            weight = layer.weight
            weight.square().sum().backward()
        torch.testing.assert_close(reference.weight, fused.weight, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(original(reference).grad, original(fused).grad, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(buffers(reference), buffers(fused), rtol=0, atol=0, equal_nan=True)
    assert fused.weight.isnan().any() == (what in ("NaN", "infinite", "overflow"))


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_in_half_precision(kind, dtype):
    reference, fused, _ = fused_pair(kind, dtype)
    eps, weights = torch.finfo(dtype).eps, [layer.weight for layer in (reference, fused)]
    for weight in weights:
        weight.square().sum().backward()
    assert weights[1].dtype == dtype and torch.equal(buffers(reference), buffers(fused))
    torch.testing.assert_close(*weights, rtol=4 * eps, atol=eps)
    torch.testing.assert_close(original(reference).grad, original(fused).grad, rtol=16 * eps, atol=8 * eps)


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose2d"])
def test_fused_inside_autocast_keeps_the_weights_precision(kind):
    reference, fused, x = fused_pair(kind, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [layer(x) for layer in (reference, fused)]
        for output in outputs:
            output.float().square().sum().backward()  # also the backward pass
    assert outputs[1].dtype == torch.bfloat16 and torch.equal(buffers(reference), buffers(fused))
    torch.testing.assert_close(original(reference).grad, original(fused).grad, rtol=1e-2, atol=1e-2)
    pull = gaussian(*original(fused).shape, dtype=torch.float32)
    found = []
    for inside in (False, True):
        weight = copy.deepcopy(fused).parametrizations.weight[0](original(fused))
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            found.append(torch.autograd.grad(weight, original(fused), pull)[0])
    assert torch.equal(*found)  # a backward pass inside autocast is computed in float32 as well


def test_fused_layers_share_rounds_when_cached_and_keep_what_the_graph_holds():
    reference, fused, x = fused_pair("Conv2d")
    taken = fused.state_dict()["parametrizations.weight.0._u"]
    for layer in (reference, fused):
        with parametrize.cached():
            loss = layer(x).mean() - layer(-x).square().mean()
        (loss + layer(x).square().mean()).backward()  # the buffers have moved again since
    torch.testing.assert_close(original(reference).grad, original(fused).grad, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(buffers(reference), buffers(fused), rtol=1e-13, atol=1e-13)
    assert torch.equal(taken, fused.parametrizations.weight[0]._u)  # moved in place


def test_a_deepcopy_of_a_fused_layer_is_independent():
    _, fused, x = fused_pair("Linear")
    fused(x).sum().backward()
    twin = copy.deepcopy(fused)
    original(twin).data += 1
    twin(x)
    assert not same_state(twin, fused) and isinstance(twin.parametrizations.weight[0], FusedSpectralNorm)


@pytest.mark.parametrize("training", [True, False])
def test_a_fused_layer_compiles_as_a_whole(training):
    reference, fused, x = fused_pair("Conv2d", torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(fused.train(training), backend="aot_eager", fullgraph=True)
    for _ in range(2):
        y, z = reference.train(training)(x), compiled(x)
        torch.testing.assert_close(y, z)
    for output in (y, z):
        output.square().sum().backward()
    torch.testing.assert_close(original(reference).grad, original(fused).grad)
    torch.testing.assert_close(buffers(reference), buffers(fused))


def test_fused_layers_in_functional_call():
    reference, fused, x = fused_pair("Linear")
    other = {name: value.detach() + 0.1 for name, value in reference.named_parameters()}
    results = [torch.func.functional_call(layer, other, (x,)) for layer in (reference, fused)]
    torch.testing.assert_close(*results, rtol=1e-13, atol=1e-13)
    per_example = torch.func.vmap(lambda row: torch.func.functional_call(fused.eval(), other, (row,)))(x)
    torch.testing.assert_close(per_example, torch.func.functional_call(fused, other, (x,)))


def test_fuse_changes_the_courses_own_layers_and_nothing_else():
    class Other(SpectralNorm):
        pass

    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    spectral_norm(net[0])
    spectral_norm_gain(net[1])
    torch_spectral_norm(net[2])
    parametrize.register_parametrization(net[3], "weight", Other(net[3].weight))
    before = copy.deepcopy(net.state_dict())
    assert fuse(net) is net and list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [type(layer.parametrizations.weight[0]) is FusedSpectralNorm for layer in net] == [True, True, False, False]
    vector = fuse(spectral_norm(nn.Linear(3, 4), "bias"))
    torch.testing.assert_close(vector.bias.norm(), torch.ones(()))


# ---- weight normalization without gain


@each_layer
def test_weight_norm_has_rows_of_unit_length(kind):
    layer = LAYERS[kind][0]().double()
    dim, original = output_dim(layer), weight_matrix(layer.weight.detach().clone(), output_dim(layer))
    rows = weight_matrix(weight_norm(layer).weight, dim)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)).double())
    torch.testing.assert_close(F.cosine_similarity(rows, original), torch.ones(len(rows)).double())
    assert {name for name, _ in layer.named_parameters()} <= {"bias", "parametrizations.weight.original"}  # no gain


@quick
@given(sides, sides, seeds)
def test_weight_norm_squared_singular_values_sum_to_d_out(d_out, d_in, seed):
    weight = weight_norm(layer_with(gaussian(d_out, d_in, seed=seed))).weight.detach()
    assert float(torch.linalg.svdvals(weight).square().sum()) == pytest.approx(d_out, rel=1e-12)  # (13)


def test_weight_norm_is_torchs_with_gain_one():
    w = gaussian(4, 3)
    theirs = parametrizations.weight_norm(layer_with(w))
    theirs.parametrizations.weight.original0.data.fill_(1)
    torch.testing.assert_close(weight_norm(layer_with(w)).weight, theirs.weight)


@pytest.mark.parametrize("dim", [0, 1, -1, -2])
def test_weight_norm_dim_counts_from_either_end(dim):
    weight = weight_norm(layer_with(gaussian(4, 3)), dim=dim).weight
    torch.testing.assert_close(weight.norm(dim=1 - dim % 2), torch.ones(weight.shape[dim]).double())


def test_weight_norm_gradcheck_and_assignment():
    layer = weight_norm(layer_with(gaussian(3, 4)))
    assert torch.autograd.gradcheck(layer.parametrizations.weight[0], gaussian(3, 4).requires_grad_())
    layer.weight = 7 * gaussian(3, 4, seed=1)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(3).double())


# ---- the gain of equation (32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gain_scales_the_normalized_weight_and_trains(dtype):
    torch.manual_seed(0)
    plain = spectral_norm(nn.Linear(4, 3).to(dtype))
    torch.manual_seed(0)
    layer = spectral_norm_gain(nn.Linear(4, 3).to(dtype), gamma=2.5)
    layer.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(layer.eval().weight, 2.5 * plain.eval().weight)
    gamma = layer.parametrizations.weight[1].gamma
    assert gamma.dtype == dtype and gamma.shape == ()
    layer(gaussian(5, 4, dtype=dtype)).sum().backward()
    normalized = plain.weight.detach()
    expected = (gaussian(5, 4, dtype=dtype) @ normalized.T).sum()  # d(gamma W x)/d gamma = W x
    torch.testing.assert_close(gamma.grad, expected)
    before = float(gamma.detach())
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert float(gamma.detach()) != before


# ---- choosing a method by its name


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Sequential(nn.ConvTranspose2d(3, 2, 2)), nn.Flatten(), nn.Linear(50, 1)
    )


@pytest.mark.parametrize("method", METHODS)
def test_normalize_touches_every_layer_or_none(method):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert normalize(model, method) is model
    layers = linear_layers(model)
    assert [type(layer).__name__.removeprefix("Parametrized") for layer in layers] == [
        "Conv2d",
        "ConvTranspose2d",
        "Linear",
    ]
    if method in ("spectral_norm", "spectral_norm_gain"):
        assert all(isinstance(layer.parametrizations.weight[0], SpectralNorm) for layer in layers)
        assert all(1 - 1e-5 < sigma_of(layer.eval()) < 1.1 for layer in layers)
    elif method == "weight_norm":
        for layer in layers:
            rows = weight_matrix(layer.weight, output_dim(layer))
            torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    elif METHODS[method].weight:
        assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)
    else:
        assert not any(parametrize.is_parametrized(module) for module in model.modules())
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model(gaussian(2, 1, 6, 6, dtype=torch.float32)).shape == (2, 1)


METHODS_ON_WEIGHTS = ["spectral_norm", "spectral_norm_gain", "weight_norm"]


@pytest.mark.parametrize("first", METHODS_ON_WEIGHTS)
@pytest.mark.parametrize("second", METHODS_ON_WEIGHTS)
def test_a_second_normalization_is_refused_and_changes_nothing(first, second):
    model = normalize(network(), first)
    plain = nn.Sequential(nn.Linear(2, 2), model)
    before = list(plain.state_dict())
    with pytest.raises(ValueError, match="weight of .* is already normalized .*(SpectralNorm|WeightNorm)"):
        normalize(plain, second)
    assert list(plain.state_dict()) == before  # nor is the first layer, which was plain
    parametrize.remove_parametrizations(layer := spectral_norm(nn.Linear(2, 2)), "weight")
    spectral_norm(layer)  # what the message offers


@pytest.mark.parametrize(
    "other",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    ],
)
@pytest.mark.parametrize("apply", [spectral_norm, spectral_norm_gain, weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_something_else_computes_are_refused(apply, other):
    with pytest.raises(ValueError, match="already normalized or parametrized|computed by a hook from weight_(orig|g)"):
        apply(other(nn.Linear(3, 3)))


@pytest.mark.parametrize(
    "model, names",
    [
        (lambda: nn.MultiheadAttention(4, 2), ["in_proj_weight"]),
        (lambda: nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2)), ["0.weight"]),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Bilinear(2, 3, 4)), ["1.weight"]),
        (lambda: nn.Sequential(nn.LSTM(2, 3)), ["0.weight_ih_l0", "0.weight_hh_l0"]),
        (lambda: nn.TransformerEncoderLayer(4, 2, 8), ["self_attn.in_proj_weight"]),
    ],
)
@pytest.mark.parametrize("method", ["weight_clipping", "orthonormal", *METHODS_ON_WEIGHTS])
def test_weights_that_no_method_reaches_are_named(model, names, method):
    made = model()
    assert other_weights(made) == names
    with pytest.warns(UserWarning, match=rf"{method} acts on .*these weights stay as they are: {', '.join(names)}\."):
        normalize(made, method)


def test_no_warning_where_every_weight_is_reached():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalize(nn.Sequential(network(), nn.BatchNorm1d(1), nn.LayerNorm((2, 3)), nn.PReLU()), "spectral_norm")
        attention = spectral_norm(nn.MultiheadAttention(4, 2), "in_proj_weight")  # by hand, as the warning offers
        normalize(attention, "spectral_norm")
        normalize(nn.Embedding(2, 3), "none")
    assert isinstance(attention.out_proj.parametrizations.weight[0], SpectralNorm)


# ---- weight clipping


@quick
@given(st.floats(1e-3, 1.0), seeds)
def test_clipping_ends_inside_the_box_and_changes_nothing_there(c, seed):
    layer = layer_with(gaussian(4, 5, seed=seed))
    before = layer.weight.detach().clone()
    clip_weights_(nn.Sequential(layer), c)
    assert layer.weight.abs().max() <= c
    inside = before.abs() <= c
    assert torch.equal(layer.weight[inside], before[inside])
    assert torch.equal(layer.weight[~inside].sign(), before[~inside].sign())


def test_clipping_reaches_every_layer_but_no_bias():
    model = network()
    for parameter in model.parameters():
        parameter.data.fill_(3)
    clip_weights_(model)
    for layer in linear_layers(model):
        assert torch.all(layer.weight == 0.01) and torch.all(layer.bias == 3)


# ---- singular-value clipping


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_clipping_cuts_the_large_singular_values_and_keeps_the_vectors(shape):
    weight, bound = gaussian(*shape), 1.2
    clipped, values = clip_singular_values(weight, bound), torch.linalg.svdvals(weight)
    assert values[0] > bound
    torch.testing.assert_close(torch.linalg.svdvals(clipped), values.clamp(max=bound))
    for gram in (lambda a, b: a @ b.mT, lambda a, b: a.mT @ b):  # symmetric: the same vectors on both sides
        torch.testing.assert_close(gram(clipped, weight), gram(weight, clipped))
    torch.testing.assert_close(clip_singular_values(weight, 2 * float(values[0])), weight)


def test_clipping_is_the_nearest_matrix_of_that_norm():
    weight = 2 * gaussian(4, 6)
    distance = (clip_singular_values(weight) - weight).norm()
    for seed in range(200):
        other = clip_singular_values(weight) + 0.3 * gaussian(4, 6, seed=seed)
        other = other / torch.linalg.matrix_norm(other, 2).clamp(min=1)
        assert (other - weight).norm() > distance


def test_bad_singular_value_clipping_is_named():
    for bound in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="bound must be positive, got"):
            clip_singular_values(torch.eye(2), bound)
    with pytest.raises(ValueError, match=r"matrix \(d_out x d_in\)"):
        clip_singular_values(torch.ones(2, 2, 3, 3))


# ---- orthonormal regularization


def test_penalty_is_equation_14():
    wide, tall = gaussian(3, 5), gaussian(5, 3, seed=1)
    eye = torch.eye(3).double()
    torch.testing.assert_close(orthonormal_penalty(layer_with(wide)), (wide @ wide.T - eye).square().sum())
    torch.testing.assert_close(orthonormal_penalty(layer_with(tall)), (tall.T @ tall - eye).square().sum())
    both = nn.Sequential(layer_with(wide), nn.ReLU(), layer_with(tall))
    separate = orthonormal_penalty(both[0]) + orthonormal_penalty(both[2])
    torch.testing.assert_close(orthonormal_penalty(both), separate)


@quick
@given(sides, sides, seeds)
def test_penalty_pulls_all_singular_values_to_one(d_out, d_in, seed):
    w = gaussian(d_out, d_in, seed=seed)
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    penalty = orthonormal_penalty(layer_with(w))
    torch.testing.assert_close(penalty, (s.square() - 1).square().sum(), rtol=1e-10, atol=1e-10)
    assert orthonormal_penalty(layer_with(u @ vh)) < 1e-20 * max(d_out, d_in) ** 2


@pytest.mark.parametrize("module", [nn.Conv2d(2, 3, 2), nn.ConvTranspose2d(2, 3, 2)])
def test_penalty_of_convolutions_takes_the_reshaped_weight(module):
    matrix = weight_matrix(module.weight, output_dim(module))
    expected = (torch.linalg.svdvals(matrix).square() - 1).square().sum()
    torch.testing.assert_close(orthonormal_penalty(module), expected, rtol=1e-4, atol=1e-5)


def test_penalty_gradcheck_and_empty_model():
    layer = layer_with(gaussian(2, 3))
    loss = lambda w: orthonormal_penalty(_Holder(w))  # noqa: E731
    assert torch.autograd.gradcheck(loss, layer.weight.detach().requires_grad_())
    assert orthonormal_penalty(nn.Sequential(nn.ReLU())) == 0


class _Holder(nn.Linear):
    """A linear layer whose weight is a given tensor of a graph."""

    def __init__(self, weight):
        super().__init__(weight.shape[1], weight.shape[0])
        del self._parameters["weight"]
        self.weight = weight


# ---- gradient penalty


@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 3, 3)])
def test_penalty_of_a_linear_discriminator(shape):
    w = gaussian(math.prod(shape[1:]))
    f = lambda x: (x.flatten(1) @ w)[:, None]  # noqa: E731
    found = gradient_penalty(f, gaussian(*shape, seed=1), gaussian(*shape, seed=2), rng())
    torch.testing.assert_close(found, (w.norm() - 1).square())


def test_penalty_averages_over_the_batch_of_squares():
    w = torch.tensor([3.0, 4.0]).double()
    real = gaussian(5, 2, seed=1)
    scale = torch.arange(1.0, 6).double()  # another slope for each pair: real = fake, so that x_hat is known
    f = lambda x: scale[:, None] * (x @ w)[:, None]  # noqa: E731
    torch.testing.assert_close(gradient_penalty(f, real, real, rng()), (scale * 5 - 1).square().mean())


def test_points_lie_between_the_pairs_one_random_place_each():
    seen = []

    def f(x):
        seen.append(x.detach())
        return x.sum(dim=(1, 2), keepdim=True)

    real, fake = torch.zeros(500, 2, 2), torch.ones(500, 2, 2)
    gradient_penalty(f, real, fake, rng())
    (x,) = seen
    assert torch.equal(x, x[:, :1, :1].expand_as(x))  # the same place for every pixel of a pair
    places = x[:, 0, 0]
    assert places.min() >= 0 and places.max() <= 1
    assert len(places.unique()) > 400 and 0.45 < places.mean() < 0.55 and 0.24 < places.std() < 0.34


def test_penalty_trains_the_discriminator_and_nothing_else():
    f = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    real, fake = gaussian(6, 3).requires_grad_(), gaussian(6, 3, seed=1).requires_grad_()
    gradient_penalty(f, real, fake, rng()).backward()
    assert real.grad is None and fake.grad is None and f[0].weight.grad.abs().sum() > 0
    state, h = f[0].weight.data, 1e-6  # and its gradient is right
    slope = []
    for sign in (1, -1):
        state[0, 0] += sign * h
        slope.append(float(gradient_penalty(f, real, fake, rng()).detach()))
        state[0, 0] -= sign * h
    assert (slope[0] - slope[1]) / (2 * h) == pytest.approx(float(f[0].weight.grad[0, 0]), rel=1e-5)


def test_penalty_of_a_constant_slope_zero_has_a_finite_gradient():
    f = nn.Linear(3, 1)
    nn.init.zeros_(f.weight)
    loss = gradient_penalty(f, torch.ones(2, 3), torch.zeros(2, 3), rng())
    loss.backward()
    assert loss == 1 and torch.isfinite(f.weight.grad).all()


def test_penalty_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    found = [
        gradient_penalty(lambda x: x.square().sum(1), gaussian(5, 2), gaussian(5, 2, seed=1), rng(s)) for s in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2] and torch.equal(torch.get_rng_state(), state)


# ---- bad input


@pytest.mark.parametrize("apply", [spectral_norm, weight_norm, spectral_norm_gain])
def test_bad_weights_are_named(apply):
    layer = nn.Linear(3, 2)
    layer.whole, layer.complex = (
        torch.ones(2, 2, dtype=torch.int64),
        nn.Parameter(torch.ones(2, 2, dtype=torch.complex64)),
    )
    layer.empty, layer.scalar = nn.Parameter(torch.empty(0, 3)), nn.Parameter(torch.tensor(1.0))
    for name, error, message in [
        ("gain", ValueError, "Linear has no parameter or buffer named 'gain'"),
        ("in_features", ValueError, "no parameter or buffer named 'in_features'"),
        ("whole", TypeError, "whole must be a floating-point tensor, got torch.int64"),
        ("complex", TypeError, "got torch.complex64"),
        ("empty", ValueError, r"at least one entry, got \(0, 3\)"),
        ("scalar", ValueError, r"axis of scalar, whose shape is \(\), got 0"),
    ]:
        with pytest.raises(error, match=message):
            apply(layer, name)
    layer.weight.data[0, 0], layer.weight.data[1, 1] = math.nan, -math.inf
    with pytest.raises(ValueError, match="weight must be finite, but it contains 1 NaN and 1 infinite"):
        apply(layer)
    assert not parametrize.is_parametrized(layer)


@pytest.mark.parametrize("apply", [spectral_norm, weight_norm])
@pytest.mark.parametrize("dim", [2, -3])
def test_bad_dim_is_named(apply, dim):
    with pytest.raises(ValueError, match=rf"axis of weight, whose shape is \(2, 3\), got {dim}"):
        apply(nn.Linear(3, 2), dim=dim)


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True])
def test_bad_number_of_rounds_is_named(n):
    with pytest.raises(ValueError, match=f"1 or more, got {n!r}"):
        spectral_norm(nn.Linear(3, 2), n_power_iterations=n)


@pytest.mark.parametrize("bad", [{"dim": "0"}, {"dim": True}, {"eps": "small"}, {"eps": -1.0}, {"eps": math.nan}])
def test_words_for_numbers_are_named(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=rf"{name} must be .*got {value!r}"):
        spectral_norm(nn.Linear(3, 2), **bad)
    spectral_norm(nn.Linear(3, 2), n_power_iterations=np.int64(2), dim=np.int32(1))


@pytest.mark.parametrize("method", ["sn", "Spectral_Norm", "", None])
def test_unknown_method_is_named(method):
    with pytest.raises(ValueError, match=rf"unknown method {method!r}; choose one of: none, .*spectral_norm"):
        normalize(nn.Linear(3, 2), method)


def test_bad_clipping_is_named():
    for c in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"c must be positive, got {c}"):
            clip_weights_(nn.Linear(3, 2), c)
    with pytest.raises(ValueError, match="plain weights"):  # it would have no effect
        clip_weights_(spectral_norm(nn.Linear(3, 2)))


@pytest.mark.parametrize(
    "real, fake, error, message",
    [
        (torch.ones(2, 3), torch.ones(3, 3), ValueError, r"agree in shape.*got \(2, 3\).* and \(3, 3\)"),
        (torch.ones(2, 3), torch.ones(2, 3).double(), ValueError, "got .*float32 on cpu and .*float64"),
        (torch.ones(2, 3), torch.ones(2, 3, device="meta"), ValueError, "on cpu and .* on meta"),
        (torch.empty(0, 3), torch.empty(0, 3), ValueError, r"real must be a batch .*got \(0, 3\)"),
        (torch.ones(2, 3), torch.ones(()), ValueError, r"fake must be a batch .*got \(\)"),
        (torch.ones(2, 3).long(), torch.ones(2, 3), TypeError, "real must be a floating-point tensor, got torch.int64"),
        (torch.ones(2, 3), np.ones((2, 3)), TypeError, "fake must be a floating-point tensor, got ndarray"),
    ],
)
def test_bad_batches_are_named(real, fake, error, message):
    with pytest.raises(error, match=message):
        gradient_penalty(nn.Linear(3, 1), real, fake)
