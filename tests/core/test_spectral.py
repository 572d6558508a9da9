"""spectral.py against numpy, torch.linalg, dense matrices of convolutions, and gradcheck."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_utils.methods import normalize
from course_utils.normalization import clip_weights_, orthonormal_penalty, spectral_norm
from course_utils.spectral import (
    compare_with_exact,
    conv_norm,
    conv_norm_fft,
    float32_by_default,
    gradient_through_sn,
    normalized_spectrum,
    output_dim,
    power_iteration,
    power_iteration_step,
    spectra,
    spectral_norm_gradient,
    stable_rank,
    top_singular_values,
    used_weight,
    weight_matrix,
)
from course_utils.validation import require_matrix

quick = settings(max_examples=40, deadline=None, derandomize=True)
sides, seeds = st.integers(1, 12), st.integers(0, 10**6)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def with_singular_values(values, d_out, d_in, seed=0):
    u, v = torch.linalg.qr(gaussian(d_out, d_out, seed=seed)).Q, torch.linalg.qr(gaussian(d_in, d_in, seed=seed + 1)).Q
    k = len(values)
    return u[:, :k] * torch.tensor(values, dtype=torch.float64) @ v[:, :k].mT


def dense_matrix(linear_map, shape):
    """The matrix of a linear map of images: its columns are what it makes of the unit images."""
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    return linear_map(units).flatten(1).mT


# ---- power iteration


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_iteration_converges_to_the_svd(shape, dtype):
    w = gaussian(*shape, dtype=dtype)
    sigma, u, v = power_iteration(w, n_power_iterations=500, generator=rng(1))
    left, values, right = np.linalg.svd(w.double().numpy())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    assert sigma.dtype == u.dtype == v.dtype == dtype and u.shape == shape[:1] and v.shape == shape[1:]
    assert float(sigma) == pytest.approx(values[0], rel=tolerance)
    assert abs(u.double().numpy() @ left[:, 0]) == pytest.approx(1, abs=tolerance)
    assert abs(v.double().numpy() @ right[0]) == pytest.approx(1, abs=tolerance)
    torch.testing.assert_close(w @ v, sigma * u, rtol=100 * tolerance, atol=100 * tolerance)


def test_one_round_is_equations_18_and_19():
    w, u = gaussian(3, 5), F.normalize(gaussian(3, seed=1), dim=0)
    v_expected = w.T @ u / (w.T @ u).norm()  # (18)
    u_expected = w @ v_expected / (w @ v_expected).norm()  # (19)
    u_next, v_next = power_iteration_step(w, u)
    torch.testing.assert_close(v_next, v_expected)
    torch.testing.assert_close(u_next, u_expected)
    sigma, u_once, v_once = power_iteration(w, u)
    torch.testing.assert_close((u_once, v_once), (u_expected, v_expected))
    torch.testing.assert_close(sigma, u_expected @ w @ v_expected)


def test_zero_rounds_start_from_u():
    w, u = gaussian(3, 5), gaussian(3, seed=1)
    sigma, u_out, v_out = power_iteration(w, u, n_power_iterations=0)
    torch.testing.assert_close(u_out, u / u.norm())
    torch.testing.assert_close(v_out, F.normalize(w.T @ u, dim=0))
    torch.testing.assert_close(sigma, (w.T @ u_out).norm())


@quick
@given(sides, sides, seeds, st.integers(0, 6), st.sampled_from([1e-3, 1.0, 1e3]))
def test_estimate_never_exceeds_sigma_and_never_falls_with_rounds(d_out, d_in, seed, n, scale):
    w = scale * gaussian(d_out, d_in, seed=seed)
    true = torch.linalg.matrix_norm(w, ord=2)
    start = gaussian(d_out, seed=seed + 1)
    sigmas = [power_iteration(w, start, n_power_iterations=k) for k in (n, n + 1)]
    for sigma, u, v in sigmas:
        assert sigma <= true * (1 + 1e-12)
        assert float(u.norm()) == pytest.approx(1, abs=1e-12) and float(v.norm()) == pytest.approx(1, abs=1e-12)
    assert sigmas[1].sigma >= sigmas[0].sigma * (1 - 1e-12)


def test_error_falls_at_the_rate_of_the_gap():
    w = with_singular_values([2.0, 1.0, 0.5], 6, 5)
    start = gaussian(6, seed=3)
    errors = [2.0 - float(power_iteration(w, start, n_power_iterations=k).sigma) for k in (6, 7, 8)]
    assert errors[1] / errors[0] == pytest.approx((1 / 2) ** 4, rel=0.02)
    assert errors[2] / errors[1] == pytest.approx((1 / 2) ** 4, rel=0.01)


def test_equal_singular_values_need_no_rounds():
    w = torch.linalg.qr(gaussian(6, 6)).Q
    assert float(power_iteration(w, n_power_iterations=0, generator=rng()).sigma) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_zero_matrix_has_sigma_zero(n):
    sigma, u, v = power_iteration(torch.zeros(3, 4), n_power_iterations=n, generator=rng())
    assert sigma == 0 and torch.isfinite(u).all() and not v.any()
    assert float(u.norm()) == pytest.approx(1, abs=1e-6)  # the iteration can go on once the matrix moves


def test_generator_decides_the_start_and_the_global_state_stays():
    w, state = gaussian(5, 4), torch.get_rng_state()
    first, second, other = (power_iteration(w, generator=rng(s)).sigma for s in (0, 0, 1))
    assert first == second and first != other
    assert torch.equal(torch.get_rng_state(), state)


def test_u_is_not_changed_in_place():
    w, u = gaussian(5, 4), gaussian(5)
    before = u.clone()
    power_iteration(w, u, n_power_iterations=3)
    assert torch.equal(u, before)


def test_gradient_holds_u_and_v_constant():
    w = gaussian(4, 3).requires_grad_()
    sigma, u, v = power_iteration(w, gaussian(4, seed=1), n_power_iterations=1)
    assert not u.requires_grad and not v.requires_grad
    (gradient,) = torch.autograd.grad(sigma, w)
    torch.testing.assert_close(gradient, torch.outer(u, v), rtol=0, atol=1e-14)


def test_gradcheck_where_u_and_v_are_exact():
    w, start = with_singular_values([3.0, 1.0, 0.2], 4, 3).requires_grad_(), gaussian(4)
    assert torch.autograd.gradcheck(lambda x: power_iteration(x, start, n_power_iterations=200).sigma, w)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (1, 5)])
def test_gradient_of_the_spectral_norm(shape):
    w = gaussian(*shape).requires_grad_()
    (expected,) = torch.autograd.grad(torch.linalg.matrix_norm(w, ord=2), w)
    torch.testing.assert_close(spectral_norm_gradient(w.detach()), expected, rtol=0, atol=1e-12)
    direction, h = gaussian(*shape, seed=5), 1e-6  # and by finite differences
    up, down = (np.linalg.norm((w.detach() + s * h * direction).numpy(), 2) for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(float((expected * direction).sum()), abs=1e-7)


# ---- the gradient that an SN layer returns, and how far its memory is from the exact one


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (1, 6), (6, 1)])
def test_gradient_through_sn_is_the_layers_own(shape):
    layer = spectral_norm(nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64))
    own = layer.parametrizations.weight
    own[0]._u.copy_(F.normalize(gaussian(shape[0], seed=2), dim=0))  # far from u_1: no convergence is needed
    own[0]._v.copy_(F.normalize(gaussian(shape[1], seed=3), dim=0))
    pull = gaussian(*shape, seed=4)
    (layer.eval().weight * pull).sum().backward()
    found = gradient_through_sn(own.original.detach(), pull, own[0]._u, own[0]._v)
    torch.testing.assert_close(found, own.original.grad, rtol=1e-9, atol=1e-11)
    assert abs((found * own.original).sum()) < 1e-10 * found.norm() * own.original.norm()


def test_gradient_through_sn_at_the_exact_vectors_is_autograd_through_the_norm():
    weight, pull = gaussian(6, 4, seed=5).requires_grad_(), gaussian(6, 4, seed=6)
    (expected,) = torch.autograd.grad((pull * weight / torch.linalg.matrix_norm(weight, 2)).sum(), weight)
    u, _, vh = torch.linalg.svd(weight.detach(), full_matrices=False)
    torch.testing.assert_close(gradient_through_sn(weight.detach(), pull, u[:, 0], vh[0]), expected)


def test_compare_with_exact_on_a_matrix_known_by_heart():
    weight, pull = torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)
    first, second = torch.eye(2)
    assert compare_with_exact(weight, pull, first, first) == (1, 0, 0)
    # (12): (I - 1.5 E_11)/2 = diag(-1/4, 1/2); with the second pair: I - 3 E_22 = diag(1, -2)
    excess, angle, error = compare_with_exact(weight, pull, second, second)
    assert (excess, angle) == (2, 90)
    assert error == pytest.approx(math.hypot(1.25, 2.5) / math.hypot(0.25, 0.5))


def test_what_does_not_fit_the_weight_is_named():
    weight, pull, u, v = torch.eye(2, 3), torch.ones(2, 3), torch.ones(2), torch.ones(3)
    for bad in [(pull.T, u, v), (pull, v, v), (pull, u, u), (pull, u[None], v)]:
        with pytest.raises(ValueError, match=r"shapes \(2, 3\), \(2,\), \(3,\) to fit weight, got"):
            gradient_through_sn(weight, *bad)
    with pytest.raises(ValueError, match="nothing to divide by"):
        gradient_through_sn(torch.zeros(2, 3), pull, u, v)


# ---- several singular values, stable rank, spectra


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6), (1, 4), (4, 1)])
def test_top_singular_values_converge_to_svdvals(shape):
    w = gaussian(*shape)
    k = min(3, *shape)
    values = top_singular_values(w, k, n_iterations=400, generator=rng())
    torch.testing.assert_close(values, torch.linalg.svdvals(w)[:k], rtol=1e-8, atol=0)


@quick
@given(sides, sides, seeds, st.integers(0, 5), st.data())
def test_top_singular_values_never_exceed_the_true_ones(d_out, d_in, seed, n, data):
    w = gaussian(d_out, d_in, seed=seed)
    k = data.draw(st.integers(1, min(d_out, d_in)))
    values = top_singular_values(w, k, n_iterations=n, generator=rng(seed))
    assert values.shape == (k,) and (values.diff() <= 1e-12).all()
    assert (values <= torch.linalg.svdvals(w)[:k] * (1 + 1e-12) + 1e-12).all()


def test_top_singular_values_of_degenerate_matrices():
    assert not top_singular_values(torch.zeros(4, 3), 2, generator=rng()).any()
    one = torch.outer(torch.ones(4), torch.ones(3)).double()
    torch.testing.assert_close(top_singular_values(one, 2, generator=rng()), torch.tensor([12**0.5, 0.0]).double())


def test_stable_rank_of_known_matrices():
    assert stable_rank(torch.eye(5)) == pytest.approx(5)
    assert stable_rank(torch.outer(torch.arange(1.0, 4), torch.ones(4))) == pytest.approx(1)
    assert stable_rank(with_singular_values([2.0, 1.0, 1.0], 5, 4)) == pytest.approx(6 / 4)
    assert stable_rank(torch.zeros(3, 2)) == 0
    kernel = gaussian(4, 3, 2, 2)
    assert stable_rank(kernel) == pytest.approx(stable_rank(kernel.reshape(4, 12)))
    assert stable_rank(kernel, dim=1) == pytest.approx(stable_rank(kernel.permute(1, 0, 2, 3).reshape(3, 16)))


@quick
@given(sides, sides, seeds, st.floats(0.01, 100))
def test_stable_rank_lies_between_1_and_the_rank_and_ignores_scale(d_out, d_in, seed, scale):
    w = gaussian(d_out, d_in, seed=seed)
    value = stable_rank(w)
    assert 1 - 1e-12 <= value <= min(d_out, d_in) + 1e-12
    assert stable_rank(scale * w) == pytest.approx(value, rel=1e-10)
    assert value == pytest.approx(float(normalized_spectrum(w).sum()), rel=1e-10)


def test_normalized_spectrum():
    spectrum = normalized_spectrum(with_singular_values([4.0, 2.0, 1.0], 5, 3))
    torch.testing.assert_close(spectrum, torch.tensor([1, 1 / 4, 1 / 16]).double())
    assert torch.equal(normalized_spectrum(torch.zeros(3, 4)), torch.zeros(3))


def test_spectra_takes_the_weights_in_use_by_layer_name():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.Flatten()), nn.Linear(8, 1)
    )
    found = spectra(model)
    assert list(found) == ["0", "2.0", "3"]
    torch.testing.assert_close(found["0"], normalized_spectrum(model[0].weight))
    torch.testing.assert_close(found["2.0"], normalized_spectrum(model[2][0].weight, dim=1))
    assert len(found["2.0"]) == 2 and not found["0"].requires_grad
    weight = normalize(model, "weight_norm")[0].weight.flatten(1).detach()
    torch.testing.assert_close(spectra(model)["0"], normalized_spectrum(weight))


def test_measuring_spectra_in_training_mode_moves_nothing():
    model = normalize(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), "spectral_norm").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spectra(model), used_weight(model[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_weight_matrix_rows_belong_to_outputs():
    kernel = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    assert torch.equal(weight_matrix(kernel), kernel.reshape(2, 12))
    transposed = weight_matrix(kernel, dim=1)
    assert transposed.shape == (3, 8)
    assert torch.equal(transposed[1], torch.cat([kernel[0, 1].flatten(), kernel[1, 1].flatten()]))
    assert output_dim(nn.ConvTranspose3d(1, 1, 1)) == 1 and output_dim(nn.Conv3d(1, 1, 1)) == 0


# ---- norm of a convolution

CASES = [  # d_out, d_in, k, stride, padding, size
    (3, 2, 3, 1, 1, (6, 6)),
    (2, 3, 4, 2, 1, (8, 6)),
    (2, 1, 3, 1, 0, (5, 7)),
    (1, 2, 3, 2, 1, (7, 7)),
    (4, 4, 1, 1, 0, (3, 3)),
    (2, 2, 3, (2, 1), (0, 2), (6, 5)),
    (2, 2, 5, 3, 2, (9, 9)),
    (3, 2, 3, 1, 2, (2, 2)),
]


@pytest.mark.parametrize("d_out, d_in, k, stride, padding, size", CASES)
def test_conv_norm_is_the_norm_of_the_dense_matrix(d_out, d_in, k, stride, padding, size):
    w = gaussian(d_out, d_in, k, k)
    matrix = dense_matrix(lambda x: F.conv2d(x, w, stride=stride, padding=padding), (d_in, *size))
    true = float(torch.linalg.matrix_norm(matrix, ord=2))
    found = conv_norm(w, size, stride, padding, n_iterations=1000, generator=rng())
    few = conv_norm(w, size, stride, padding, n_iterations=3, generator=rng())
    assert float(found) == pytest.approx(true, rel=1e-4)
    assert few < found <= true * (1 + 1e-12)


@quick
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), seeds)
def test_reshaped_sigma_bounds_the_convolution_from_both_sides(d_out, d_in, k, stride, padding, seed):
    # the lower bound needs one output that sees k x k pixels of the input, not only padding: the input is that large
    w, size = gaussian(d_out, d_in, k, k, seed=seed), (k + stride + 2, k + stride + 3)
    matrix = dense_matrix(lambda x: F.conv2d(x, w, stride=stride, padding=padding), (d_in, *size))
    true = torch.linalg.matrix_norm(matrix, ord=2)
    reshaped = torch.linalg.matrix_norm(w.flatten(1), ord=2)
    assert reshaped * (1 - 1e-12) <= true <= math.ceil(k / stride) * reshaped * (1 + 1e-12)


def test_on_a_tiny_padded_input_the_convolution_can_shrink_below_the_reshaped_sigma():
    w = gaussian(1, 1, 3, 3)
    assert conv_norm(w, (1, 1), padding=1) == pytest.approx(float(w[0, 0, 1, 1].abs()))
    assert conv_norm(w, (1, 1), padding=1) < w.norm()


def test_the_bound_is_nearly_reached_by_a_constant_kernel():
    ratio = conv_norm(torch.ones(1, 1, 3, 3).double(), (40, 40), padding=1, n_iterations=300, generator=rng()) / 3
    assert 2.97 < ratio < 3
    ratio = conv_norm(torch.ones(1, 1, 4, 4).double(), (40, 40), 2, 1, n_iterations=300, generator=rng()) / 4
    assert 1.97 < ratio < 2


def test_conv_norm_of_zero_is_zero_and_has_a_gradient():
    w = torch.zeros(2, 3, 3, 3, requires_grad=True)
    norm = conv_norm(w, (5, 5), generator=rng())
    norm.backward()
    assert norm == 0 and not w.grad.isnan().any()


def test_conv_norm_gradcheck():
    w = (1 + 0.2 * gaussian(1, 2, 2, 2)).requires_grad_()  # smooth: its largest singular values lie well apart
    assert torch.autograd.gradcheck(lambda x: conv_norm(x, (3, 3), n_iterations=100, generator=rng()), w)


@pytest.mark.parametrize(
    "d_out, d_in, k, size", [(3, 2, 3, (6, 6)), (2, 3, 2, (5, 7)), (1, 1, 3, (3, 3)), (2, 2, 1, (4, 4))]
)
def test_conv_norm_fft_is_the_norm_of_the_dense_circulant(d_out, d_in, k, size):
    w = gaussian(d_out, d_in, k, k)

    def circular(x):
        left = (k - 1) // 2
        return F.conv2d(F.pad(x, (left, k - 1 - left, left, k - 1 - left), mode="circular"), w)

    true = torch.linalg.matrix_norm(dense_matrix(circular, (d_in, *size)), ord=2)
    torch.testing.assert_close(conv_norm_fft(w, size), true, rtol=1e-12, atol=0)


@quick
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), seeds)
def test_circular_norm_on_a_larger_grid_bounds_the_zero_padded_one(d_out, d_in, k, padding, seed):
    # an image framed by k - 1 black pixels cannot wrap around: the zero-padded map is a part of the circular one
    w = gaussian(d_out, d_in, k, k, seed=seed)
    found = conv_norm(w, (6, 6), padding=min(padding, k - 1), n_iterations=30, generator=rng(seed))
    assert found <= conv_norm_fft(w, (6 + k - 1, 6 + k - 1)) * (1 + 1e-12)


# ---- scales, autocast, and the default type


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1e10, 1e20, 1e30])
def test_scale_does_not_matter(scale):
    w = gaussian(4, 3, 3, 3, dtype=torch.float32)
    measures = {
        "conv_norm": lambda w: conv_norm(w, (8, 8), padding=1, generator=rng()),
        "conv_norm_fft": lambda w: conv_norm_fft(w, (8, 8)),
        "power_iteration": lambda w: power_iteration(w.flatten(1), n_power_iterations=30, generator=rng()).sigma,
        "top_singular_values": lambda w: top_singular_values(w.flatten(1), 2, generator=rng()),
    }
    for name, measure in measures.items():
        found = measure(scale * w).double() / scale
        torch.testing.assert_close(
            found, measure(w).double(), rtol=1e-5, atol=0, msg=lambda text, n=name: f"{n}: {text}"
        )
    _, u, v = power_iteration(scale * w.flatten(1), scale * torch.ones(4), n_power_iterations=1)
    assert float(u.norm()) == pytest.approx(1, abs=1e-6) and float(v.norm()) == pytest.approx(1, abs=1e-6)
    assert stable_rank(scale * torch.eye(3)) == pytest.approx(3)
    torch.testing.assert_close(normalized_spectrum(scale * w), normalized_spectrum(w), rtol=1e-5, atol=0)
    tracked = (scale * w.flatten(1)).requires_grad_()
    sigma, u, v = power_iteration(tracked, torch.ones(4))
    torch.testing.assert_close(torch.autograd.grad(sigma, tracked)[0], torch.outer(u, v))


def test_a_power_of_two_costs_no_bit():
    w = gaussian(5, 7, dtype=torch.float32)
    for exponent in (-60, 3, 60):
        ours, scaled = (power_iteration(2.0**k * w, torch.ones(5), n_power_iterations=5) for k in (0, exponent))
        assert torch.equal(2.0**exponent * ours.sigma, scaled.sigma)
        assert torch.equal(ours.u, scaled.u) and torch.equal(ours.v, scaled.v)


def test_an_overflow_is_not_taken_for_a_zero_matrix():
    w, u = 1e25 * torch.eye(3), F.normalize(torch.ones(3), dim=0)
    kept, v = power_iteration_step(w, u)
    assert v.isnan().all() and torch.equal(kept, u)
    kept, v = power_iteration_step(torch.zeros(3, 4), u)
    assert torch.equal(v, torch.zeros(4)) and torch.equal(kept, u)


def test_measurements_are_the_same_inside_autocast():
    w = gaussian(6, 5, 3, 3, dtype=torch.float32)

    def measured():
        values = conv_norm(w, (8, 8), generator=rng()), top_singular_values(w.flatten(1), 2, generator=rng())
        return *values, *power_iteration(w.flatten(1), generator=rng())

    plain = measured()
    with torch.autocast("cpu", torch.bfloat16):
        inside = measured()
        u, v = power_iteration_step(w.flatten(1), plain[3])
    assert all(torch.equal(a, b) for a, b in zip(plain, inside))
    assert u.dtype == v.dtype == torch.float32 and float(u.norm()) == pytest.approx(1, abs=1e-6)


def test_float32_by_default_puts_the_type_back():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(KeyError), float32_by_default():
            assert nn.Linear(1, 1).weight.dtype == torch.float32
            raise KeyError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# ---- bad input


@pytest.mark.parametrize(
    "bad, error, message",
    [
        (torch.ones(3), ValueError, r"matrix \(d_out x d_in\).*got \(3,\)"),
        (torch.ones(2, 3, 4), ValueError, r"got \(2, 3, 4\)"),
        (torch.empty(0, 3), ValueError, r"at least one entry, got \(0, 3\)"),
        (torch.tensor([[1.0, math.nan], [math.inf, math.inf]]), ValueError, "1 NaN and 2 infinite"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, "floating-point tensor, got torch.int64"),
        (torch.ones(2, 2, dtype=torch.complex64), TypeError, "got torch.complex64"),
        (torch.ones(2, 2, dtype=torch.float16), TypeError, "float32 or float64, got torch.float16"),
        (np.ones((2, 2)), TypeError, "weight must be a floating-point tensor, got ndarray"),
        ([[1.0]], TypeError, "weight must be a floating-point tensor, got list"),
        (None, TypeError, "got NoneType"),
        (torch.ones(2, 2, device="meta"), TypeError, "dense tensor with data, got torch.strided on meta"),
        (torch.eye(2).to_sparse(), TypeError, "got torch.sparse_coo on cpu"),
    ],
)
def test_bad_matrices_are_named(bad, error, message):
    for function in (require_matrix, power_iteration, spectral_norm_gradient, lambda w: top_singular_values(w, 1)):
        with pytest.raises(error, match=message):
            function(bad)


@pytest.mark.parametrize("function", [stable_rank, normalized_spectrum, weight_matrix])
@pytest.mark.parametrize(
    "bad, error, message",
    [
        (torch.ones(3), ValueError, r"at least two axes.*got \(3,\)"),
        (torch.ones(()), ValueError, r"got \(\)"),
        (torch.empty(0, 3, 3, 3), ValueError, r"at least one entry, got \(0, 3, 3, 3\)"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, "weight must be a floating-point tensor, got torch.int64"),
        (np.ones((2, 2)), TypeError, "got ndarray"),
        ([[1.0, 2.0]], TypeError, "got list"),
        (nn.Linear(2, 2), TypeError, "got Linear"),
    ],
)
def test_bad_weights_are_named(function, bad, error, message):
    with pytest.raises(error, match=message):
        function(bad)


@pytest.mark.parametrize("function", [stable_rank, normalized_spectrum])
def test_weights_without_a_spectrum_are_named(function):
    with pytest.raises(ValueError, match="1 NaN and 0 infinite"):
        function(torch.tensor([[math.nan, 1.0]]))
    with pytest.raises(TypeError, match="float32 or float64, got torch.bfloat16"):
        function(torch.ones(2, 2, dtype=torch.bfloat16))


@pytest.mark.parametrize("bad", [torch.ones(2, 2), [nn.Linear(2, 2)], None])
def test_what_is_no_model_is_named(bad):
    for function in (spectra, clip_weights_, orthonormal_penalty, lambda m: normalize(m, "none")):
        with pytest.raises(TypeError, match=r"a model \(torch.nn.Module\), got (Tensor|list|NoneType)"):
            function(bad)


@pytest.mark.parametrize(
    "u, message",
    [
        (torch.ones(3), "2 entries of torch.float32 on cpu .* got 3 entries of torch.float32 on cpu"),
        (torch.ones(2, 1), r"vector \(d_out\).*got \(2, 1\)"),
        (torch.ones(2, dtype=torch.float64), "got 2 entries of torch.float64"),
        (torch.ones(2, device="meta"), "got 2 entries of torch.float32 on meta"),  # stands for a GPU
        (torch.zeros(2), "not zero"),
        (torch.tensor([1.0, math.nan]), "finite"),
    ],
)
def test_bad_start_vectors_are_named(u, message):
    with pytest.raises(ValueError, match=message):
        power_iteration(torch.ones(2, 3), u)
    with pytest.raises(TypeError, match="u must be a floating-point tensor, got list"):
        power_iteration(torch.ones(2, 3), [1.0, 1.0])


def test_bad_numbers_are_named():
    for n in (1.5, "3", True):
        with pytest.raises(ValueError, match=f"n_power_iterations must be a whole number, 0 or more, got {n!r}"):
            power_iteration(torch.ones(2, 3), n_power_iterations=n)
    power_iteration(torch.ones(2, 3), n_power_iterations=np.int64(2))
    with pytest.raises(ValueError, match="0 or more, got -1"):
        power_iteration(torch.ones(2, 3), n_power_iterations=-1)
    for k in (0, 3):
        with pytest.raises(ValueError, match=rf"between 1 and min\(d_out, d_in\) = 2, got {k}"):
            top_singular_values(torch.ones(2, 3), k)


@pytest.mark.parametrize("function", [conv_norm, conv_norm_fft])
@pytest.mark.parametrize(
    "shape, size, message",
    [
        ((2, 3), (4, 4), r"\(d_out, d_in, k, k\), with .*got \(2, 3\)"),
        ((2, 3, 3), (4, 4), r"got \(2, 3, 3\)"),
        ((0, 3, 3, 3), (4, 4), "at least one entry"),
        ((1, 1, 3, 3), (8.0, 8), "whole numbers"),
        ((1, 1, 3, 3), "88", "got '88'"),
        ((1, 1, 3, 3), 8, r"\(height, width\).*got 8"),
        ((1, 1, 3, 3), (8,), "height, width"),
        ((1, 1, 3, 3), (8, 0), "at least 1, got"),
        ((1, 1, 3, 3), (8, 2), r"kernel \(3, 3\) must fit into \(8, 2\)"),
    ],
)
def test_bad_convolutions_are_named(function, shape, size, message):
    with pytest.raises(ValueError, match=message):
        function(torch.ones(shape), size)


@pytest.mark.parametrize("function", [conv_norm, conv_norm_fft])
@pytest.mark.parametrize("bad", [np.ones((1, 1, 3, 3)), [[[[1.0]]]], torch.ones(1, 1, 3, 3, dtype=torch.int64)])
def test_kernels_of_another_type_are_named(function, bad):
    with pytest.raises(TypeError, match="weight must be a floating-point tensor, got (ndarray|list|torch.int64)"):
        function(bad, (4, 4))


def test_bad_kernels_padding_and_stride_are_named():
    with pytest.raises(ValueError, match="1 NaN"):
        conv_norm(torch.full((1, 1, 1, 1), math.nan), (4, 4))
    for padding in (-1, "same", (1, 1, 1)):
        with pytest.raises(ValueError, match=r"padding must be \(height, width\), whole numbers of at least 0, got"):
            conv_norm(torch.ones(1, 1, 3, 3), (4, 4), padding=padding)
    with pytest.raises(ValueError, match="stride must be .* at least 1, got"):
        conv_norm(torch.ones(1, 1, 3, 3), (4, 4), stride=0)
    conv_norm(torch.ones(1, 1, 3, 3), (2, 2), padding=1)  # fits with its padding


def test_reading_a_weight_leaves_frozen_parts_frozen():
    layer = spectral_norm(nn.Linear(3, 2)).train()
    layer.parametrizations.weight[0].eval()  # frozen by hand, while the layer trains
    before = {name: module.training for name, module in layer.named_modules()}
    used_weight(layer)
    assert {name: module.training for name, module in layer.named_modules()} == before


@pytest.mark.parametrize("old", [nn.utils.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_stale_weight_is_not_read(old):
    with pytest.raises(ValueError, match=r"weight of Linear is computed by a hook from weight_(orig|g)"):
        used_weight(old(nn.Linear(3, 2)))
