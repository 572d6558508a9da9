"""metrics.py against scipy, closed forms, and data made to be easy or hard."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.data import Images
from course_utils.metrics import (
    accuracy,
    features_of,
    frechet_distance,
    gaussian_frechet_distance,
    inception_score,
    matrix_sqrt,
    precision_recall,
    probabilities_of,
    train_classifier,
)
from course_utils.models import SmallClassifier

quick = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(d, seed=0, rank=None):
    a = gaussian(d, rank or d, seed=seed)
    return a @ a.mT


def by_scipy(x, y):
    """Frechet distance with a general matrix square root of C1 C2, as the well-known implementations have it."""
    x, y = x.numpy(), y.numpy()
    c1, c2 = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)


# ---- Frechet distance


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_matrix_sqrt(rank):
    c = covariance(5, rank=rank)
    root = matrix_sqrt(c)
    torch.testing.assert_close(root @ root, c)
    torch.testing.assert_close(root, root.mT)
    assert torch.linalg.eigvalsh(root).min() > -1e-7
    if rank == 5:
        np.testing.assert_allclose(root.numpy(), scipy.linalg.sqrtm(c.numpy()).real, atol=1e-8)


@quick
@given(st.integers(1, 6), st.integers(8, 30), st.integers(8, 30), seeds)
def test_frechet_distance_is_scipys(d, n, m, seed):
    x, y = gaussian(n, d, seed=seed) @ covariance(d, seed), 2 * gaussian(m, d, seed=seed + 1) + 1
    assert frechet_distance(x, y) == pytest.approx(by_scipy(x, y), rel=1e-6, abs=1e-6)


@quick
@given(st.integers(1, 6), st.integers(2, 30), seeds)
def test_frechet_distance_is_symmetric_zero_for_equal_sets_and_not_negative(d, n, seed):
    x, y = gaussian(n, d, seed=seed), gaussian(n + 3, d, seed=seed + 1) * 3
    there, back = frechet_distance(x, y), frechet_distance(y, x)
    assert there == pytest.approx(back, rel=1e-6, abs=1e-6) and there > 0
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert frechet_distance(x, x[order]) == pytest.approx(0, abs=1e-6)


def test_a_shift_costs_its_squared_length_and_nothing_else():
    x, shift = gaussian(40, 4), torch.tensor([3.0, -4.0, 0.0, 0.0]).double()
    assert frechet_distance(x, x + shift) == pytest.approx(25, rel=1e-6)


def test_scaling_by_a_costs_the_variances_times_a_minus_1_squared():
    x = gaussian(40, 4)
    x = x - x.mean(0)
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * float(x.var(0).sum()), rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_diagonal_gaussians_in_closed_form(d):
    a, b = torch.rand(2, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    m1, m2 = gaussian(2, d)
    expected = float((m1 - m2).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert gaussian_frechet_distance(m1, torch.diag(a), m2, torch.diag(b)) == pytest.approx(expected, rel=1e-9)


def test_rank_deficient_covariances():
    c1, c2, zero = covariance(4, rank=1), covariance(4, 1, rank=2), torch.zeros(4).double()
    expected = np.trace(c1 + c2) - 2 * np.sqrt(np.clip(np.linalg.eigvals((c1 @ c2).numpy()).real, 0, None)).sum()
    assert gaussian_frechet_distance(zero, c1, zero, c2) == pytest.approx(expected, abs=1e-6)
    assert gaussian_frechet_distance(zero, torch.zeros(4, 4).double(), zero, c2) == pytest.approx(float(c2.trace()))


def test_covariance_is_the_unbiased_one():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])  # variances 2 and 8
    assert frechet_distance(x, y) == pytest.approx(1 + (2**0.5 - 8**0.5) ** 2, rel=1e-6)


def test_single_precision_features_are_measured_in_double():
    x, y = gaussian(50, 8).float() + 100, gaussian(50, 8, seed=1).float() + 101
    assert frechet_distance(x, y) == frechet_distance(x.double(), y.double())


def test_distance_falls_with_the_number_of_samples():
    values = [frechet_distance(gaussian(n, 16, seed=1), gaussian(n, 16, seed=2)) for n in (50, 500, 5000)]
    assert values[0] > 2 * values[1] > 4 * values[2]


@pytest.mark.parametrize("n, d, scale", [(10, 64, 100), (10, 512, 100), (50, 512, 1), (2, 128, 1e4), (65, 64, 1)])
def test_fewer_samples_than_features_by_the_nuclear_norm(n, d, scale):
    x, y = scale * gaussian(n, d), scale * gaussian(n + 3, d, seed=1)

    def exact(x, y):
        a, b = ((f - f.mean(0)) / (len(f) - 1) ** 0.5 for f in (x, y))
        roots = torch.linalg.matrix_norm(a @ b.mT, ord="nuc")  # tr (C1 C2)^(1/2) without a d x d matrix
        return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * roots)

    trace = float(x.var(0).sum() + y.var(0).sum())
    assert frechet_distance(x, y) == pytest.approx(exact(x, y), abs=1e-12 * trace)
    assert 0 <= frechet_distance(x, x.clone()) <= 1e-12 * trace
    near = x + 1e-4 * scale
    assert frechet_distance(x, near) == pytest.approx(d * (1e-4 * scale) ** 2, abs=1e-12 * trace)


@quick
@given(st.integers(1, 40), st.integers(2, 12), seeds, st.sampled_from([1e-3, 1.0, 1e3]))
def test_frechet_distance_is_never_negative(d, n, seed, scale):
    x = scale * gaussian(n, d, seed=seed)
    assert frechet_distance(x, x.clone()) >= 0 and frechet_distance(x, x[:1].expand(n, d)) >= 0


# ---- inception-style score


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_sure_and_diverse_scores_the_number_of_classes(classes):
    p = torch.eye(classes).repeat(7, 1)
    assert inception_score(p).tolist() == pytest.approx([classes])


@pytest.mark.parametrize(
    "p", [torch.full((9, 4), 0.25), torch.eye(4)[:1].repeat(9, 1), torch.tensor([[0.7, 0.2, 0.1]] * 5)]
)
def test_images_that_all_look_the_same_score_1(p):
    assert inception_score(p).tolist() == pytest.approx([1], abs=1e-9)


def test_two_classes_in_closed_form():
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    expected = math.exp(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))
    assert inception_score(p).tolist() == pytest.approx([expected], rel=1e-12)


@quick
@given(st.integers(1, 40), st.integers(1, 8), seeds)
def test_score_against_a_plain_loop_and_its_limits(n, classes, seed):
    p = (3 * gaussian(n, classes, seed=seed)).softmax(1)
    marginal = p.numpy().mean(0)
    divergences = [sum(q * math.log(q / m) for q, m in zip(row, marginal)) for row in p.tolist()]
    (score,) = inception_score(p).tolist()
    assert score == pytest.approx(math.exp(sum(divergences) / n), rel=1e-9)
    assert 1 - 1e-9 <= score <= classes + 1e-9


@pytest.mark.parametrize("n, splits", [(10, 1), (10, 2), (10, 4), (9, 6), (5, 5)])
def test_one_score_for_each_part(n, splits):
    p = gaussian(n, 4).softmax(1)
    scores = inception_score(p, splits)
    assert scores.shape == (splits,)
    torch.testing.assert_close(scores, torch.cat([inception_score(part) for part in p.tensor_split(splits)]))


# ---- the classifier and its features


def two_classes(n=300, seed=0):
    """Bright left half or bright right half, with noise, in [-1, 1]."""
    labels = torch.arange(n) % 2
    images = 0.3 * gaussian(n, 1, 8, 8, seed=seed).float()
    images[labels == 0, :, :, :4] += 0.7
    images[labels == 1, :, :, 4:] += 0.7
    return Images(images.clamp(-1, 1), labels)


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(two_classes(), epochs=3, batch_size=32, seed=1)


def test_classifier_learns_and_is_in_evaluation_mode(classifier):
    assert not classifier.training
    assert accuracy(classifier, two_classes(seed=5)) > 0.95
    torch.manual_seed(0)
    untrained = [accuracy(SmallClassifier(1, 2), two_classes(seed=5)) for _ in range(9)]  # one of them can be lucky
    assert sorted(untrained)[4] < 0.9


def test_training_is_repeatable_and_leaves_the_global_state_alone(classifier):
    state = torch.get_rng_state()
    again, other = (train_classifier(two_classes(), epochs=3, batch_size=32, seed=s) for s in (1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(classifier.state_dict().values(), again.state_dict().values()))
    assert not torch.equal(classifier.head.weight, other.head.weight)


def test_accuracy_counts():
    class Says(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot((4 * x[:, 0, 0, 0]).long(), 4).float()

    images = (torch.arange(4.0) / 4).repeat(300)[:, None, None, None].expand(-1, 1, 2, 2)
    labels = torch.arange(4).repeat(300)
    assert accuracy(Says(), Images(images, labels)) == 1
    assert accuracy(Says(), Images(images, (labels + (labels == 3).long()) % 4)) == 0.75


def test_features_and_probabilities_in_batches_are_those_in_one_go(classifier):
    images = two_classes(1201, seed=3).images
    features, probabilities = features_of(classifier, images), probabilities_of(classifier, images)
    assert features.shape == (1201, 64) and probabilities.shape == (1201, 2)
    with torch.no_grad():
        torch.testing.assert_close(features, classifier.body(images))
        torch.testing.assert_close(probabilities, torch.softmax(classifier(images), 1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1201))
    assert not features.requires_grad and not probabilities.requires_grad
    assert 1.5 < float(inception_score(probabilities)) <= 2
    half, other = features[:600], features_of(classifier, -images[:600])
    assert frechet_distance(half, features[600:1200]) < 0.2 * frechet_distance(half, other)


# ---- bad input


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.ones(5), r"got \(5,\)"),
        (torch.ones(1, 3), r"N at least 2, got \(1, 3\)"),
        (torch.empty(0, 3), r"got \(0, 3\)"),
        (torch.empty(4, 0), r"got \(4, 0\)"),
        (torch.ones(2, 3, 4), r"got \(2, 3, 4\)"),
        (torch.tensor([[math.nan, 0, 0], [1, 2, 3]]), "must be finite, but it contains 1 NaN"),
        (torch.tensor([[math.inf, 0, 0], [1, 2, 3]]), "1 infinite"),
    ],
)
def test_bad_features_are_named(bad, message):
    good = gaussian(5, 3)
    with pytest.raises(ValueError, match="features1.*" + message):
        frechet_distance(bad, good)
    with pytest.raises(ValueError, match="features2.*" + message):
        frechet_distance(good, bad)


@pytest.mark.parametrize("bad", [[[1.0, 2.0], [3.0, 4.0]], np.ones((5, 3)), torch.ones(5, 3, dtype=torch.uint8)])
def test_numbers_of_another_type_are_named(bad):
    message = "must be a floating-point tensor, got (list|ndarray|torch.uint8)"
    with pytest.raises(TypeError, match="features1 " + message):
        frechet_distance(bad, gaussian(5, 3))
    with pytest.raises(TypeError, match="probabilities " + message):
        inception_score(bad)
    for function in (features_of, probabilities_of):
        with pytest.raises(TypeError, match="images " + message):
            function(SmallClassifier(), bad)


def test_features_of_different_width_are_named():
    with pytest.raises(ValueError, match="same d on the same device, got 3 on cpu and 4 on cpu"):
        frechet_distance(gaussian(5, 3), gaussian(5, 4))


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (4, 8, 8), (4, 64)])
def test_bad_images_are_named(shape):
    images, classifier = torch.zeros(shape), SmallClassifier()
    data = Images(images, torch.zeros(len(images), dtype=torch.int64))
    for use in (
        lambda: features_of(classifier, images),
        lambda: probabilities_of(classifier, images),
        lambda: accuracy(classifier, data),
        lambda: train_classifier(data),
    ):
        with pytest.raises(ValueError, match=rf"images must be a batch \(N, channels, size, size\).*\({shape[0]}, "):
            use()


def test_bad_gaussians_are_named():
    m, c = torch.zeros(2), torch.eye(2)
    for bad in ((m, c, torch.zeros(3), torch.eye(3)), (m, c, torch.zeros(1), c), (m, torch.ones(2), m, c)):
        with pytest.raises(ValueError, match=r"means of shape \(d,\) and covariances of shape \(d, d\), got"):
            gaussian_frechet_distance(*bad)
    with pytest.raises(ValueError, match="cov2 must be finite, but it contains 4 NaN"):
        gaussian_frechet_distance(m, c, m, c * math.nan)


@pytest.mark.parametrize(
    "bad, message",
    [
        (-torch.eye(2), "negative eigenvalue, -1"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalue, -1"),
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "not symmetric: C and C.T differ by up to 1"),
        (torch.tensor([[1.0, 0.0], [0.0, -1e-3]]), "negative eigenvalue, -0.001"),
        (1e-20 * torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalue, -1e-20"),
    ],
)
def test_what_is_no_covariance_is_refused(bad, message):
    m, c = torch.zeros(2), torch.eye(2)
    with pytest.raises(ValueError, match="cov1 must be a covariance, but .*" + message):
        gaussian_frechet_distance(m, bad, m, c)
    with pytest.raises(ValueError, match="cov2 must be a covariance, but .*" + message):
        gaussian_frechet_distance(m, c, m, bad)


def test_a_covariance_in_single_precision_is_one():
    x = gaussian(20, 100).float()
    c, m = torch.cov(x.mT), x.mean(0)
    assert 0 <= gaussian_frechet_distance(m, c, m, c) <= 1e-5 * float(c.trace())
    assert gaussian_frechet_distance(m, 0 * c, m, 0 * c) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_probabilities_in_half_precision(dtype):
    p = (3 * gaussian(50, 10)).softmax(1)
    assert float(inception_score(p.to(dtype))) == pytest.approx(float(inception_score(p)), rel=0.01)


@pytest.mark.parametrize(
    "p, splits, message",
    [
        (torch.full((4, 2), 0.5), 0, "splits = 0"),
        (torch.full((4, 2), 0.5), 1.5, "splits must be a whole number"),
        (torch.full((4, 2), 0.5), 5, r"N >= splits = 5, got \(4, 2\)"),
        (torch.empty(0, 2), 1, r"got \(0, 2\)"),
        (torch.ones(4), 1, r"got \(4,\)"),
        (torch.ones(4, 2), 1, "sum to 1"),
        (torch.tensor([[1.5, -0.5]]), 1, "non-negative"),
        (torch.tensor([[math.nan, 1.0]]), 1, "finite, but it contains 1 NaN"),
        (torch.randn(4, 3), 1, "sum to 1"),
    ],
)
def test_bad_probabilities_are_named(p, splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(p, splits)


@pytest.mark.parametrize("use", [train_classifier, lambda data: accuracy(SmallClassifier(), data)])
@pytest.mark.parametrize("n_labels, dtype", [(3, torch.int64), (0, torch.int64), (4, torch.float32)])
def test_bad_labels_are_named(use, n_labels, dtype):
    with pytest.raises(ValueError, match=f"one label of torch.int64 .*got 4 images and {n_labels} labels of {dtype}"):
        use(Images(torch.zeros(4, 1, 8, 8), torch.zeros(n_labels, dtype=dtype)))


@pytest.mark.parametrize("low, high", [(0, 255), (-1, 1.5), (-2.2, 2), (0, 1.01)])
def test_images_of_another_range_are_named(low, high):
    images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
    images[0, 0, 0, 0], images[3, 0, 7, 7] = low, high
    for use in (
        lambda: features_of(SmallClassifier(), images),
        lambda: probabilities_of(SmallClassifier(), images),
        lambda: accuracy(SmallClassifier(), Images(images, labels)),
        lambda: train_classifier(Images(images, labels)),
    ):
        with pytest.raises(
            ValueError, match=rf"images must be .* in \[-1, 1\], got values from {min(low, 0)} to {high}"
        ):
            use()


def test_labels_that_teach_nothing_are_named():
    images = torch.zeros(4, 1, 8, 8)
    for use in (train_classifier, lambda data: accuracy(SmallClassifier(), data)):
        with pytest.raises(ValueError, match="count from 0, got -1"):
            use(Images(images, torch.full((4,), -1)))  # what load_stl10 returns
        with pytest.raises(TypeError, match="labels must be a tensor of torch.int64, got ndarray"):
            use(Images(images, np.arange(4)))
        with pytest.raises(ValueError, match=r"one label .*shape \(4, 1\)"):
            use(Images(images, torch.arange(4)[:, None]))
        for bad in (images, (images, torch.arange(4)), None, images.numpy()):
            with pytest.raises(TypeError, match="data must be Images, images with their labels, got"):
                use(bad)
    with pytest.raises(ValueError, match="at least two classes, but all are 3"):
        train_classifier(Images(images, torch.full((4,), 3)))


@pytest.mark.parametrize("bad", [{"epochs": "2"}, {"epochs": 1.5}, {"batch_size": 0}, {"seed": "a"}, {"seed": -1}])
def test_words_for_numbers_are_named(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be a whole number"):
        train_classifier(two_classes(8), **bad)
    train_classifier(two_classes(8), epochs=np.int64(1), batch_size=np.int32(4), seed=np.uint8(1))


def test_the_classifier_is_the_same_under_a_default_type_of_float64(classifier):
    torch.set_default_dtype(torch.float64)
    try:
        again = train_classifier(two_classes(), epochs=3, batch_size=32, seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(classifier.state_dict().values(), again.state_dict().values()))


# ---- precision and recall


def test_precision_and_recall_tell_missing_kinds_from_strange_ones():
    rng = torch.Generator().manual_seed(0)
    left, right, far = (torch.randn(300, 5, generator=rng) + shift for shift in (-20, 20, 200))
    both = torch.cat([left, right])
    again = torch.cat([torch.randn(150, 5, generator=rng) - 20, torch.randn(150, 5, generator=rng) + 20])
    one = torch.randn(300, 5, generator=rng) + 20
    assert min(precision_recall(both, again)) > 0.8
    precision, recall = precision_recall(both, one)  # half of the kinds, each sample good
    assert precision > 0.8 and 0.4 < recall <= 0.5
    assert precision_recall(both, torch.cat([one, far]))[0] == pytest.approx(0.5, abs=0.06)
    assert precision_recall(both, far) == (0, 0)
    assert precision_recall(both, both) == (1, 1)


def test_precision_and_recall_by_hand():
    real, fake = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[-0.5], [10.0], [14.5]])
    # with k = 1 the radii are 1, 1, 2 and 10.5, 4.5, 4.5
    assert precision_recall(real, fake, k=1) == pytest.approx((1 / 3, 1.0))


def test_precision_and_recall_need_more_rows_than_neighbours():
    with pytest.raises(ValueError, match=r"more than k = 3 of each, got \(3, 2\) and \(9, 2\)"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))
    for k in (0, 1.5, "3", True):
        with pytest.raises(ValueError, match="k must be a whole number, 1 or more"):
            precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), k)
