"""lipschitz.py: constants of activations, Jacobians, lower and upper bounds against networks with known answers."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from course_utils.lipschitz import (
    activation_constant,
    activation_slopes,
    ascent_lower_bound,
    jacobian_norm,
    layer_bounds,
    product_bound,
    rounded_lower_bound,
    sampled_lower_bound,
)
from course_utils.methods import normalize
from course_utils.models import cnn_discriminator, mlp
from course_utils.spectral import conv_norm
from course_utils.validation import require_batch

quick = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_net(sizes, seed, activation=nn.ReLU):
    net = mlp(sizes, activation).double()
    for i, parameter in enumerate(net.parameters()):
        parameter.data = gaussian(*parameter.shape, seed=seed + i)
    return net


def matrix_norm(w):
    return float(torch.linalg.matrix_norm(w.detach(), ord=2))


# ---- activations


@pytest.mark.parametrize(
    "activation, constant",
    [
        (nn.ReLU(), 1),
        (nn.LeakyReLU(0.1), 1),
        (nn.LeakyReLU(3.0), 3),
        (nn.Tanh(), 1),
        (nn.Sigmoid(), 0.25),
        (nn.ELU(), 1),
        (nn.Softplus(), 1),
        (nn.GELU(), 1.128904145),
        (nn.SiLU(), 1.099839320),
        (torch.sin, 1),
        (lambda h: -2 * h, 2),
    ],
)
def test_activation_constants(activation, constant):
    assert activation_constant(activation) == pytest.approx(constant, abs=1e-6)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.LeakyReLU(3.0, inplace=True), nn.ELU(inplace=True)])
def test_activations_that_work_in_place_have_their_constant(activation):
    h, slopes = activation_slopes(activation, -1, 1, 5)
    torch.testing.assert_close(h, torch.tensor([-1, -0.5, 0, 0.5, 1]).double())
    assert slopes[-1] == 1 and activation_constant(activation) == max(1, getattr(activation, "negative_slope", 0))


def test_slopes_are_the_derivative_on_the_grid():
    h, slopes = activation_slopes(torch.tanh, -2, 3, 11)
    torch.testing.assert_close(h, torch.linspace(-2, 3, 11).double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(slopes, 1 - torch.tanh(h).square())
    assert not h.requires_grad and not slopes.requires_grad
    with torch.no_grad():
        assert activation_constant(torch.tanh) == 1


# ---- Jacobians and lower bounds


def test_jacobian_norm_of_a_linear_map_is_sigma():
    w = gaussian(3, 4)
    norms = jacobian_norm(lambda x: x @ w.T, gaussian(5, 4))
    torch.testing.assert_close(norms, torch.full((5,), matrix_norm(w)).double())


def test_jacobian_norm_of_a_scalar_function_is_the_length_of_its_gradient():
    net = random_net((4, 6, 1), 0, nn.Tanh)
    x = gaussian(5, 4, seed=9).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    norms = jacobian_norm(net, x.detach())
    torch.testing.assert_close(norms, gradient.norm(dim=1))
    assert not norms.requires_grad and sampled_lower_bound(net, x.detach()) == float(norms.max())


def test_jacobian_norm_against_a_loop_over_points():
    net = random_net((3, 5, 4), 1, nn.SiLU)
    x = gaussian(6, 3, seed=2)
    expected = [torch.linalg.matrix_norm(torch.autograd.functional.jacobian(net, p), ord=2) for p in x]
    torch.testing.assert_close(jacobian_norm(net, x), torch.stack(expected).detach())


def test_jacobian_norm_of_images():
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    conv.weight.data = gaussian(3, 2, 3, 3)
    norms = jacobian_norm(conv, gaussian(2, 2, 5, 5))
    true = conv_norm(conv.weight.detach(), (5, 5), padding=1, n_iterations=2000)
    torch.testing.assert_close(norms, true.expand(2), rtol=1e-5, atol=0)


def test_ascent_finds_the_steep_place_that_samples_miss():
    bump = lambda x: torch.tanh(4 * (x[:, :1] - 1))  # noqa: E731  # steepest at 1, slope 4
    x = torch.linspace(-0.2, 0.3, 8).double()[:, None].repeat(1, 2)
    sampled, found = sampled_lower_bound(bump, x), ascent_lower_bound(bump, x, steps=200)
    assert sampled < 0.1 * 4 and 0.98 * 4 < found <= 4 * (1 + 1e-9)


def test_ascent_never_ends_below_the_samples():
    steep_only_at_zero = lambda x: torch.tanh(50 * x)  # noqa: E731
    x = torch.zeros(1, 1).double()
    assert ascent_lower_bound(steep_only_at_zero, x, steps=50, lr=1.0) >= sampled_lower_bound(steep_only_at_zero, x)


def test_ascent_is_repeatable_and_leaves_everything_alone():
    net, x, state = random_net((3, 6, 2), 0), gaussian(4, 3, seed=5), torch.get_rng_state()
    before, start = copy.deepcopy(net.state_dict()), x.clone()
    values = [ascent_lower_bound(net, x, steps=20) for _ in range(2)]
    assert values[0] == values[1] and torch.equal(torch.get_rng_state(), state) and torch.equal(x, start)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters()) and not x.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0, 10, 1000, 1e6])
def test_ascent_is_a_lower_bound_at_any_offset(offset, dtype):
    # 1000 + tanh(5x) in float32: pairs that meet differ by rounding alone, which divided by their distance was 5.14
    steep = lambda x: torch.tanh(5 * x) + offset  # noqa: E731  # slope 5 at 0
    inside = lambda x: (torch.tanh(5 * x) + offset) - offset  # noqa: E731  # the offset does not show in the output
    x = torch.linspace(-0.4, 0.5, 12, dtype=dtype)[:, None]
    for function in (steep, inside):
        assert 0.99 * 5 < ascent_lower_bound(function, x, steps=200) <= 5 * (1 + 1e-6)
    assert ascent_lower_bound(lambda x: x[:, :1] + offset, x.repeat(1, 3), steps=50) == 1


@pytest.mark.slow
def test_rounded_kinks_find_more_than_pairs_do():
    for seed in range(3):
        torch.manual_seed(seed)
        net = mlp((32, *[32] * 8, 1))
        for layer in net[::2]:
            nn.init.kaiming_normal_(layer.weight)
        x = torch.randn(64, 32)
        pairs, found = ascent_lower_bound(net, x, steps=60, lr=0.3, distance=1.0), rounded_lower_bound(net, x)
        assert sampled_lower_bound(net, x) < pairs and pairs < found < product_bound(net, x)


def test_rounded_kinks_on_known_networks():
    bump = nn.Sequential(nn.Linear(1, 2), nn.LeakyReLU(0.2, inplace=True), nn.Linear(2, 1)).double()
    for parameter, values in zip(bump.parameters(), ([[1.0], [1.0]], [0.0, -2.0], [[3.0, -2.0]], [0.0])):
        parameter.data = torch.tensor(values).double()  # 3 leaky(x) - 2 leaky(x - 2): slopes 0.2, 2.6 and 1
    x = torch.tensor([[-0.5], [3.0]]).double()
    start, before = x.clone(), copy.deepcopy(bump.state_dict())
    assert sampled_lower_bound(bump, x) == pytest.approx(1)
    assert rounded_lower_bound(bump, x) == pytest.approx(2.6)
    assert torch.equal(x, start) and all(torch.equal(v, before[k]) for k, v in bump.state_dict().items())
    assert type(bump[1]) is nn.LeakyReLU and all(p.requires_grad and p.grad is None for p in bump.parameters())


@pytest.mark.parametrize("net", [mlp((3, 4, 1), nn.Tanh), mlp((3, 4, 2)), nn.ReLU(), nn.Sequential(nn.Linear(3, 1))])
def test_rounding_needs_kinks_and_one_output(net):
    with pytest.raises(ValueError, match="ReLU or leaky ReLU modules and one output"):
        rounded_lower_bound(net, torch.ones(2, 3))


def test_layers_that_work_in_place_leave_the_batch_alone():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1), nn.LeakyReLU(0.1, inplace=True)).double()
    x = gaussian(4, 3)
    start = x.clone()
    lower = [sampled_lower_bound(net, x), ascent_lower_bound(net, x, steps=5), rounded_lower_bound(net, x, steps=5)]
    assert max(lower) <= product_bound(net, x) * (1 + 1e-12) == matrix_norm(net[1].weight) * (1 + 1e-12)
    assert torch.equal(x, start)


# ---- upper bounds


@quick
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU]),
    seeds,
)
def test_upper_bound_above_ascent_above_samples(sizes, activation, seed):
    net, x = random_net(tuple(sizes), seed, activation), gaussian(6, sizes[0], seed=seed + 99)
    upper, best, sampled = product_bound(net, x), ascent_lower_bound(net, x, steps=15), sampled_lower_bound(net, x)
    assert sampled <= best <= upper * (1 + 1e-6)


@pytest.mark.slow
@quick
@given(st.integers(1, 2), st.integers(1, 3), st.sampled_from([(3, 1, 1), (4, 2, 1), (1, 1, 0)]), seeds)
def test_exact_bound_holds_for_convolutional_networks(c_in, c_out, kernel, seed):
    k, stride, padding = kernel
    net = nn.Sequential(nn.Conv2d(c_in, c_out, k, stride, padding), nn.LeakyReLU(0.1), nn.Flatten()).double()
    net[0].weight.data = gaussian(c_out, c_in, k, k, seed=seed)
    x = gaussian(3, c_in, 6, 6, seed=seed)
    net.append(nn.Linear(net(x).shape[1], 1).double())
    assert sampled_lower_bound(net, x) <= product_bound(net, x, "exact") * (1 + 1e-2)
    assert product_bound(net, x, "exact") <= math.ceil(k / stride) * product_bound(net, x, "matrix") * (1 + 1e-9)


def test_bound_is_tight_for_aligned_layers():
    # each layer stretches most what the layer before puts out most, and ReLU lets it pass: positive vectors
    u = F.normalize(torch.rand(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1, dim=1)
    net = mlp((5, 5, 5)).double()
    for layer, left, right, sigma in ((net[0], u[1], u[0], 2.0), (net[2], u[2], u[1], 3.0)):
        layer.weight.data, layer.bias.data = sigma * torch.outer(left, right), torch.zeros(5).double()
    x = u[:1] + 0.01
    assert product_bound(net, x) == pytest.approx(6, abs=1e-9)
    assert sampled_lower_bound(net, x) == pytest.approx(6, abs=1e-9)
    assert ascent_lower_bound(net, x, steps=5) == pytest.approx(6, abs=1e-6)


def test_a_network_of_identities_has_the_constant_1():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Identity(), nn.Linear(4, 4)).double()
    for layer in (net[0], net[3]):
        layer.weight.data = torch.eye(4).double()
    assert product_bound(net, gaussian(2, 4)) == pytest.approx(1, abs=1e-12)


def test_layer_bounds_name_what_they_took():
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.LeakyReLU(0.1)),
        nn.Flatten(),
        nn.Linear(2 * 16, 3),
        nn.Unflatten(1, (3, 1)),
        nn.ConvTranspose1d(3, 2, 2),
    ).double()
    net[0][1].running_var.copy_(torch.tensor([4.0, 0.25]))
    net[0][1].weight.data = torch.tensor([2.0, -3.0]).double()
    net.eval()
    bounds = layer_bounds(net, gaussian(2, 1, 4, 4))
    assert [b.name for b in bounds] == ["0.0", "0.1", "0.2", "1", "2", "3", "4"]
    values = [b.bound for b in bounds]
    assert values[0] == pytest.approx(matrix_norm(net[0][0].weight.flatten(1)))
    assert values[1] == pytest.approx(3 / math.sqrt(0.25 + net[0][1].eps))
    assert values[2] == values[3] == values[5] == 1
    assert values[4] == pytest.approx(matrix_norm(net[2].weight))
    assert values[6] == pytest.approx(matrix_norm(net[4].weight.transpose(0, 1).flatten(1)))
    assert product_bound(net, gaussian(2, 1, 4, 4)) == pytest.approx(math.prod(values))
    affine_free = nn.Sequential(nn.BatchNorm1d(3, affine=False)).double().eval()
    assert product_bound(affine_free, gaussian(2, 3)) == pytest.approx(1 / math.sqrt(1 + 1e-5))


@pytest.mark.slow
def test_a_layer_that_occurs_twice_counts_twice():
    layer, gelu = nn.Linear(4, 4, bias=False), nn.GELU()
    layer.weight.data = 3 * torch.eye(4)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert product_bound(net, torch.ones(1, 4)) == 9 == sampled_lower_bound(net, torch.ones(1, 4))
    nested = nn.Sequential(net, gelu, net, gelu)
    assert product_bound(nested, torch.ones(1, 4)) == pytest.approx(81 * activation_constant(gelu) ** 2)
    assert [b.name for b in layer_bounds(nested, torch.ones(1, 4))] == [
        "0.0",
        "0.1",
        "0.2",
        "1",
        "2.0",
        "2.1",
        "2.2",
        "3",
    ]
    half = nn.Conv2d(1, 1, 4, 2, 1)
    bounds = layer_bounds(nn.Sequential(half, half), torch.ones(1, 1, 8, 8), "exact")
    for bound, size in zip(bounds, ((8, 8), (4, 4)), strict=True):
        true = conv_norm(half.weight.detach(), size, half.stride, half.padding, n_iterations=2000)
        assert bound.bound == pytest.approx(float(true), rel=5e-3)


def test_exact_kernels_take_the_norm_at_the_layers_own_input_size():
    net = nn.Sequential(nn.Conv2d(1, 2, 4, 2, 1), nn.Conv2d(2, 1, 3, padding=1)).double()
    bounds = layer_bounds(net, gaussian(1, 1, 8, 8), "exact")
    for bound, layer, size in zip(bounds, net, ((8, 8), (4, 4))):
        true = conv_norm(layer.weight.detach(), size, layer.stride, layer.padding, n_iterations=2000)
        assert bound.bound == pytest.approx(float(true), rel=5e-3) and "convolution" in bound.how


def test_the_papers_discriminator_is_not_1_lipschitz_by_its_bound():
    net = normalize(cnn_discriminator(16, 1, 4), "spectral_norm").eval()
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    matrix, exact = product_bound(net, x), product_bound(net, x, "exact")
    assert 0.99 < matrix < 1.5 < exact < 3**3 * 2**2 * matrix
    assert sampled_lower_bound(net, x) <= exact


def test_measuring_in_training_mode_moves_nothing():
    net = normalize(mlp((4, 6, 2)), "spectral_norm").train()
    before = copy.deepcopy(net.state_dict())
    layer_bounds(net, torch.ones(2, 4))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


def test_what_was_frozen_by_hand_stays_frozen():
    net = normalize(mlp((4, 6, 2)), "spectral_norm").train()
    net[0].parametrizations.eval()
    modes = [module.training for module in net.modules()]
    product_bound(net, torch.ones(2, 4))
    nested = nn.Sequential(net)
    product_bound(nested, torch.ones(2, 4))
    assert [module.training for module in net.modules()] == modes


# ---- bad input


@pytest.mark.parametrize(
    "x, error, message",
    [
        (torch.empty(0, 3), ValueError, r"batch \(batch, ...\) with at least one entry, got \(0, 3\)"),
        (torch.empty(2, 0), ValueError, r"got \(2, 0\)"),
        (torch.ones(3), ValueError, r"got \(3,\)"),
        (torch.tensor([[math.nan, 1, 1]]), ValueError, "finite, but it contains 1 NaN"),
        (torch.tensor([[math.inf, 1, 1]]), ValueError, "1 infinite"),
        (torch.ones(2, 3, dtype=torch.int64), TypeError, "x must be a floating-point tensor, got torch.int64"),
        ([[1.0, 2.0, 3.0]], TypeError, "got list"),
    ],
)
def test_bad_batches_are_named(x, error, message):
    net = nn.Sequential(nn.Linear(3, 2))
    for function in (
        jacobian_norm,
        sampled_lower_bound,
        ascent_lower_bound,
        product_bound,
        lambda _, y: require_batch(y),
    ):
        with pytest.raises(error, match=message):
            function(net, x)


def test_wrong_input_shapes_are_named():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"layer 0 does not take inputs of shape \(2, 5\)"):
        product_bound(net, torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"layer 1 does not take inputs of shape \(2, 3\)"):
        product_bound(net, torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"no Jacobian at points of shape \(5,\)"):
        jacobian_norm(net, torch.ones(2, 5))
    with pytest.raises(ValueError, match="layer 0 does not take inputs of shape .*(Double|double)"):
        product_bound(nn.Sequential(nn.Linear(4, 3)), torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), normalize(nn.Linear(3, 3), "spectral_norm")])
def test_jacobian_in_training_mode_asks_for_evaluation_mode(layer):
    net = nn.Sequential(layer, nn.Linear(3, 1))
    with pytest.raises(ValueError, match="evaluation mode"):
        jacobian_norm(net.train(), gaussian(2, 3).float())
    assert torch.isfinite(jacobian_norm(net.eval(), gaussian(2, 3).float())).all()


def test_nan_weights_are_named():
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].weight.data[0] = math.nan
    with pytest.raises(ValueError, match="3 NaN and 0 infinite"):
        product_bound(net, torch.ones(2, 3))
    with pytest.raises(ValueError, match="Jacobian is NaN or infinite"):
        jacobian_norm(net, torch.ones(2, 3))


@pytest.mark.parametrize(
    "layer, kernels, message",
    [
        (nn.Dropout(), "matrix", "no Lipschitz constant is known here for Dropout"),
        (nn.MaxPool2d(2), "matrix", "MaxPool2d"),
        (nn.BatchNorm2d(2), "matrix", "batch norm in training mode"),
        (nn.BatchNorm2d(2, track_running_stats=False).eval(), "matrix", "batch norm"),
        (nn.Conv2d(2, 2, 3, groups=2), "exact", "no groups or dilation"),
        (nn.Conv2d(2, 2, 3, dilation=2), "exact", "no groups or dilation"),
        (nn.Conv2d(2, 2, 3, padding="same"), "exact", "zero padding"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "exact", "zero padding"),
        (nn.ConvTranspose2d(2, 2, 3), "exact", "not ConvTranspose2d"),
        (nn.ReLU(), "precise", "'matrix' or 'exact', got 'precise'"),
    ],
)
def test_layers_without_a_known_bound_are_named(layer, kernels, message):
    with pytest.raises(ValueError, match=message):
        layer_bounds(nn.Sequential(layer), torch.ones(2, 2, 6, 6), kernels)


def test_only_a_chain_has_a_product_bound():
    with pytest.raises(ValueError, match="nn.Sequential, got Linear"):
        product_bound(nn.Linear(2, 2), torch.ones(2, 2))


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(net):
    net.register_forward_hook(lambda module, inputs, output: 2 * output)
    return net


def replaced(net):
    net.forward = lambda x: 2 * x
    return net


@pytest.mark.parametrize(
    "net, message",
    [
        (Residual(nn.Linear(2, 2)), "Residual has a forward of its own"),
        (nn.Sequential(Residual(nn.Linear(2, 2))), "Residual has a forward of its own"),
        (nn.Sequential(Doubled(2, 2)), "Doubled has a forward of its own: the constant of Linear is not its"),
        (hooked(nn.Sequential(nn.Linear(2, 2))), "the model does not return what the forward of Sequential does"),
        (nn.Sequential(hooked(nn.Linear(2, 2))), "layer 0 does not return what the forward of Linear does: a hook"),
        (nn.Sequential(hooked(nn.Sequential(nn.Linear(2, 2)))), "does not return what the forward of Sequential"),
        (nn.Sequential(replaced(nn.Linear(2, 2))), "layer 0 does not return what the forward of Linear does"),
        (replaced(nn.Sequential(nn.Linear(2, 2))), "the model does not return"),
    ],
)
def test_what_is_no_chain_of_known_layers_is_named(net, message):
    with pytest.raises(ValueError, match=message):
        product_bound(net, torch.ones(3, 2))


def test_a_hook_that_only_looks_is_allowed():
    net, seen = nn.Sequential(nn.Linear(2, 2)), []
    net[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert product_bound(net, torch.ones(3, 2)) == pytest.approx(matrix_norm(net[0].weight))


OLD_HOOKS = [
    nn.utils.spectral_norm,
    lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("hook", [*OLD_HOOKS, nn.utils.weight_norm])
def test_weights_that_an_old_hook_computes_are_refused(hook, used):
    net = nn.Sequential(nn.Sequential(hook(nn.Linear(3, 3))), nn.ReLU())
    if used:
        net(torch.ones(2, 3))
    for model in (net, net[0]):
        with pytest.raises(ValueError, match="a hook computes the weight or bias of layer .*0 .*parametrizations"):
            product_bound(model, torch.ones(2, 3))


def test_the_new_parametrizations_are_measured():
    for wrap in (nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm):
        net = nn.Sequential(wrap(nn.Linear(3, 3))).eval()
        assert product_bound(net, torch.ones(2, 3)) == pytest.approx(matrix_norm(net[0].weight), rel=1e-6)
