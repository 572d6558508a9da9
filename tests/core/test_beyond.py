"""The Dirac-GAN's fields and dynamics, MaxMin and Björck, certificates, Gram iteration, Newton-Schulz."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_utils import beyond, training


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autograd_field(y: torch.Tensor, game: str, rho: float, score) -> torch.Tensor:
    """Each player's gradient of its own value, by autograd from the course's losses; data at the origin."""
    theta, d = (half.clone().requires_grad_() for half in y.chunk(2))
    fake, real = score(theta, d)[None], score(torch.zeros_like(theta), d)[None]
    if game in ("wasserstein", "wgan-gp"):
        d_loss, g_loss = training.wasserstein_loss(real, fake), training.generator_loss(fake, "wasserstein")
    else:
        d_loss = training.standard_loss(real, fake)
        g_loss = -F.softplus(fake).mean() if game == "saturating" else training.generator_loss(fake, "standard")
    size = d.norm()
    d_loss = d_loss + rho / 2 * {"r1": size**2, "wgan-gp": (size - 1) ** 2}.get(game, 0 * size)
    (g_d,) = torch.autograd.grad(-d_loss, d, retain_graph=True)
    (g_theta,) = torch.autograd.grad(-g_loss, theta)
    return torch.cat([g_theta, g_d])


@pytest.mark.parametrize("game", beyond.GAMES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_dirac_field_is_the_gradient_of_the_courses_losses(game: str, d: int) -> None:
    y = random(2 * d, seed=d)
    expected = autograd_field(y, game, 0.7, lambda x, psi: (x * psi).sum())
    torch.testing.assert_close(beyond.dirac_field(y, game, 0.7), expected)


@pytest.mark.parametrize("game", ["wasserstein", "saturating", "non-saturating"])
@pytest.mark.parametrize("d", [2, 4])
def test_normalized_field_is_the_gradient_of_the_courses_losses(game: str, d: int) -> None:
    y = random(2 * d, seed=d)
    theta_dot, w_dot = autograd_field(y, game, 0.0, lambda x, w: (x * w).sum() / w.norm()).chunk(2)
    found = beyond.normalized_field(y, game, eta_g=0.3, eta_d=2.0)
    torch.testing.assert_close(found, torch.cat([0.3 * theta_dot, 2.0 * w_dot]))
    assert abs(float(found[d:] @ y[d:])) < 1e-14  # the weight only turns


@pytest.mark.parametrize(("score", "same"), [(-1.1, False), (-0.9, True), (0.72, True), (3.0, True)])
def test_hinge_is_the_wasserstein_game_above_its_margin(score: float, same: bool) -> None:
    theta, psi = (torch.tensor([[v]], dtype=torch.float64, requires_grad=True) for v in (score / 0.8, 0.8))
    (psi_dot,) = torch.autograd.grad(-training.hinge_loss(0 * psi, psi * theta), psi)
    state = torch.tensor([score / 0.8, 0.8], dtype=torch.float64)
    assert (float(psi_dot) == float(beyond.dirac_field(state, "wasserstein")[1])) is same


def test_games_side_by_side_equal_games_one_by_one() -> None:
    y, rho = random(5, 4), torch.linspace(0.1, 2, 5, dtype=torch.float64)[:, None]
    together = beyond.play(lambda y: beyond.dirac_field(y, "r1", rho), y, 0.1, 7)
    for k in range(5):
        alone = beyond.play(lambda y, k=k: beyond.dirac_field(y, "r1", float(rho[k])), y[k], 0.1, 7)
        torch.testing.assert_close(together[:, k], alone)


def test_flow_is_of_fourth_order() -> None:
    y, exact = (
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        torch.tensor([math.cos(1), -math.sin(1)], dtype=torch.float64),
    )
    errors = [
        float((beyond.flow(lambda y: beyond.dirac_field(y, "wasserstein"), y, 1 / n, n)[-1] - exact).norm())
        for n in (10, 20)
    ]
    assert errors[1] < 1e-6 and 14 < errors[0] / errors[1] < 18


def test_players_in_turn_and_at_once() -> None:
    y, eta = torch.tensor([1.0, 2.0], dtype=torch.float64), 0.1
    field = lambda y: beyond.dirac_field(y, "wasserstein")
    at_once, in_turn = beyond.play(field, y, eta, 1, in_turn=False)[-1], beyond.play(field, y, eta, 1)[-1]
    torch.testing.assert_close(at_once, torch.tensor([1.2, 1.9], dtype=torch.float64))
    torch.testing.assert_close(in_turn, torch.tensor([1.19, 1.9], dtype=torch.float64))  # G meets psi = 1.9
    assert beyond.play(field, y, eta, 3).shape == (4, 2)
    growth = beyond.play(field, y, eta, 100, in_turn=False).norm(dim=1)[-1] / y.norm()
    assert float(growth) == pytest.approx((1 + eta**2) ** 50)


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 3])
def test_h_is_conserved_or_climbs_to_the_circle(d: int) -> None:
    y, eta_g, eta_d = random(2 * d, seed=5), 0.8, 0.5
    R = y[d:].norm() * math.sqrt(eta_g / eta_d)

    def log_h(path: torch.Tensor) -> torch.Tensor:
        theta, w = path.chunk(2, dim=-1)
        along = (theta * w).sum(-1, keepdim=True) * w / w.square().sum(-1, keepdim=True)
        return (theta - along).norm(dim=-1).log() - theta.square().sum(-1) / (2 * R**2)

    for game in ("wasserstein", "saturating"):
        path = beyond.flow(lambda y, game=game: beyond.normalized_field(y, game, eta_g, eta_d), y, 0.01, 2000)
        assert (log_h(path) - log_h(path)[0]).abs().max() < 1e-7
        assert path[:, :d].norm(dim=1).std() > 0.05  # it is not the circle
    path = beyond.flow(lambda y: beyond.normalized_field(y, "non-saturating", eta_g, eta_d), y, 0.02, 6000)
    assert log_h(path).diff().min() > -1e-10
    assert float(path[-1, :d].norm()) == pytest.approx(float(R), rel=1e-3)


@pytest.mark.parametrize("game", ["wasserstein", "non-saturating"])
def test_the_circle_widens_exactly(game: str) -> None:
    eta_g, eta_d, push = 0.3, 0.1, 1.0 if game == "wasserstein" else 0.5
    y = torch.tensor([1.5, 0.0, 0.0, 1.5 / math.sqrt(3)], dtype=torch.float64)
    path = beyond.play(lambda y: beyond.normalized_field(y, game, eta_g, eta_d), y, 1.0, 500, in_turn=False)
    n = torch.arange(501, dtype=torch.float64)
    torch.testing.assert_close(path[:, :2].square().sum(1), 1.5**2 + n * (push * eta_g) ** 2)
    torch.testing.assert_close(path[:, 2:].square().sum(1), 0.75 + n * push**2 * eta_g * eta_d)


def test_maxmin_sorts_pairs_and_keeps_lengths() -> None:
    h = torch.tensor([[1.0, 2.0, 5.0, -3.0], [0.0, -1.0, 4.0, 4.0]])
    assert torch.equal(beyond.maxmin(h), torch.tensor([[2.0, 1.0, 5.0, -3.0], [0.0, -1.0, 4.0, 4.0]]))
    x = random(6)
    jacobian = torch.func.jacrev(beyond.maxmin)(x)
    torch.testing.assert_close(jacobian @ jacobian.T, torch.eye(6, dtype=torch.float64))
    a, b = random(50, 6, seed=1), random(50, 6, seed=2)
    assert ((beyond.maxmin(a) - beyond.maxmin(b)).norm(dim=1) <= (a - b).norm(dim=1) + 1e-12).all()


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (1, 7), (3, 8, 5)])
def test_orthonormalize_comes_from_below(shape: tuple[int, ...]) -> None:
    weight = 20 * random(*shape)
    for rounds in (0, 3, 30):
        values = torch.linalg.svdvals(beyond.orthonormalize(weight, rounds))
        assert values.max() <= 1 + 1e-12
    assert values.min() > 1 - 1e-9
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(beyond.orthonormalize(weight, 30), u @ vh)


def test_certified_radius_is_safe_and_sharp_for_a_linear_classifier() -> None:
    rows = torch.linalg.qr(random(20, 5)).Q.T
    x, generator = random(40, 20, seed=1), torch.Generator().manual_seed(2)
    logits = x @ rows.T
    labels = logits.argmax(1)
    radius = beyond.certified_radius(logits, labels, 1.0)
    order = logits.topk(2, dim=1).indices
    toward = (rows[order[:, 1]] - rows[order[:, 0]]) / math.sqrt(2)
    assert torch.equal(((x + 0.999 * radius[:, None] * toward) @ rows.T).argmax(1), labels)
    assert not (((x + 1.001 * radius[:, None] * toward) @ rows.T).argmax(1) == labels).any()
    for _ in range(20):
        shift = F.normalize(torch.randn(40, 20, generator=generator).double(), dim=1)
        assert torch.equal(((x + 0.999 * radius[:, None] * shift) @ rows.T).argmax(1), labels)
    torch.testing.assert_close(beyond.certified_radius(logits, labels, 4.0), radius / 4)
    assert not beyond.certified_radius(logits, (labels + 1) % 5, 1.0).any()


@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (8, 3), (1, 4)])
def test_gram_bound_is_a_schatten_norm(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    values = torch.linalg.svdvals(weight)
    for k in range(7):
        bound, p = beyond.gram_bound(weight, k), 2 ** (k + 1)
        torch.testing.assert_close(bound, torch.linalg.vector_norm(values, ord=p))
        assert values[0] * (1 - 1e-12) <= bound <= min(shape) ** (1 / p) * values[0] * (1 + 1e-12)


def test_gram_bound_of_many_and_of_large_matrices() -> None:
    many = random(3, 4, 5)
    together = beyond.gram_bound(many, 4)
    torch.testing.assert_close(together, torch.stack([beyond.gram_bound(weight, 4) for weight in many]))
    for scale in (1e15, 1e-15):
        weight = (scale * many[0]).float()
        found = beyond.gram_bound(weight, 8)
        assert float(found / torch.linalg.matrix_norm(weight, ord=2)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (2, 6, 9)])
def test_newton_schulz_acts_on_singular_values_alone(shape: tuple[int, ...]) -> None:
    matrix, coefficients = random(*shape), (1.5, -0.5, 0.1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(3):
        s = coefficients[0] * s + coefficients[1] * s**3 + coefficients[2] * s**5
    expected = u @ torch.diag_embed(s) @ vh
    torch.testing.assert_close(beyond.newton_schulz(matrix, 3, coefficients), expected)
    assert torch.linalg.svdvals(beyond.newton_schulz(matrix)).max() < 1.3
    assert not beyond.newton_schulz(torch.zeros(3, 4)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_newton_schulz_is_the_step_of_torchs_muon() -> None:
    gradient = random(12, 30).float()
    weight = torch.nn.Parameter(torch.zeros(12, 30))
    weight.grad = gradient.clone()
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
    ours = beyond.newton_schulz(gradient)
    assert float((weight.detach() + ours).norm() / ours.norm()) < 0.05  # torch computes in bfloat16


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: beyond.dirac_field(torch.ones(2), "lsgan"), ValueError, "choose one of: wasserstein"),
        (lambda: beyond.dirac_field(torch.ones(3), "r1"), ValueError, "even number of entries"),
        (lambda: beyond.normalized_field(torch.ones(5), "r1"), ValueError, "even number of entries"),
        (lambda: beyond.dirac_field([1.0, 2.0], "r1"), TypeError, "floating-point tensor"),
        (lambda: beyond.maxmin(torch.ones(2, 5)), ValueError, "even number of entries, got 5"),
        (lambda: beyond.certified_radius(torch.ones(4), torch.zeros(4).long(), 1.0), ValueError, "(N, classes)"),
        (lambda: beyond.certified_radius(torch.ones(4, 3), torch.zeros(4).long(), 0.0), ValueError, "K must be positive"),
        (lambda: beyond.gram_bound(torch.ones(3), 2), ValueError, "matrix"),
        (lambda: beyond.gram_bound(torch.ones(3, 3), -1), ValueError, "k must be 0 or more"),
        (lambda: beyond.gram_bound(torch.full((2, 2), torch.nan), 1), ValueError, "finite"),
    ],
)  # fmt: skip
def test_bad_input(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)
