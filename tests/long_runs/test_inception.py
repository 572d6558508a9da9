"""inception.py with the real network and random weights, against torch-fidelity's own figures."""

import hashlib
import math
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch_fidelity
from torch_fidelity import feature_extractor_inceptionv3 as library
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

from course_utils.data import DataError
from course_utils.long_runs import command_line, inception
from course_utils.long_runs.inception import (
    PROTOCOLS,
    InceptionMetrics,
    Protocol,
    inception_metrics,
    load_inception,
    to_bytes,
)
from course_utils.metrics import frechet_distance, inception_score
from course_utils.records import load_record

SMALL = Protocol(n_real=4, n_generated=3, n_score=2)


def images(n, channels=3, size=8, seed=0):
    coarse = torch.rand(n, channels, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (size, size))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights, in the place and with the checksum of the published ones."""
    torch.manual_seed(0)
    network = library.FeatureExtractorInceptionV3
    with patch.object(library, "load_state_dict_from_url"), patch.object(network, "load_state_dict"):
        net = network("random", ["2048"])
    for module in net.modules():  # as large as keeps an image's differences alive up to the last layer
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    net.fc.weight.mul_(20)
    path = tmp_path_factory.mktemp("inception") / "weights-inception-test.pth"
    torch.save(net.state_dict(), path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        patched.delenv("COURSE_INCEPTION", raising=False)
        patched.delenv("COURSE_DATA", raising=False)
        yield path


# ---- the numbers


class Bytes(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = ((images.numpy() + 1) * 127.5).astype(np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.from_numpy(self.images[index])


def test_metrics_are_the_librarys(weights):
    generated, real = images(5, seed=1), images(5, seed=2)
    result = inception_metrics(generated, real, SMALL, load_inception(weights), splits=2)
    assert isinstance(result, InceptionMetrics) and result[3:] == (4, 3, 2, 2)

    options = {"cuda": False, "cache": False, "save_cpu_ram": True, "verbose": False, "samples_shuffle": False}
    options |= {"feature_extractor_weights_path": str(weights), "isc_splits": 2}
    expected = torch_fidelity.calculate_metrics(input1=Bytes(generated[:4]), isc=True, **options)
    assert result.inception_score == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert result.inception_score_std == pytest.approx(expected["inception_score_std"], rel=1e-3)
    assert result.inception_score > 1.02 and result.inception_score_std > 0.01  # the random network tells images apart

    # 2048 features of a few images: C1 = A A', C2 = B B' with thin A, B, and tr (C1 C2)^(1/2) the sum of A'B's values
    net = library.FeatureExtractorInceptionV3("again", ["2048"], str(weights))
    (x,), (y,) = (net(torch.stack([*Bytes(some)])) for some in (generated[:3], real[:4]))
    a, b = ((f.double() - f.double().mean(0)) / (len(f) - 1) ** 0.5 for f in (x, y))
    shift = (x.double().mean(0) - y.double().mean(0)).square().sum()
    fid = shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.mT).sum()
    assert result.fid == pytest.approx(float(fid), rel=1e-4) and result.fid > 0.01 * float(a.square().sum())


@pytest.mark.parametrize("d, n, m", [(1, 20, 30), (8, 50, 40), (16, 10, 300)])
def test_the_courses_frechet_distance_is_the_librarys(d, n, m):
    x, y = torch.randn(n, d, dtype=torch.float64), 2 * torch.randn(m, d, dtype=torch.float64) + 1
    both = [fid_features_to_statistics(features) for features in (x, y)]
    for statistics in both:
        statistics["sigma"] = np.atleast_2d(statistics["sigma"])
    expected = fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n, splits", [(30, 1), (60, 4), (50, 10)])
def test_the_courses_score_is_the_librarys(n, splits):
    logits = 3 * torch.randn(n, 10)
    expected = isc_features_to_metric(logits, splits, shuffle=False)
    scores = inception_score(logits.double().softmax(1), splits)
    assert float(scores.mean()) == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert float(scores.std(correction=0)) == pytest.approx(expected["inception_score_std"], rel=1e-6, abs=1e-12)


class Reads(torch.nn.Module):
    """In the network's place: the features of an image are its first two bytes, its logits their eighths."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        features = x[:, 0, 0, :2].float()
        return features, features / 8


@pytest.mark.parametrize("splits, n_score", [(1, 4), (3, 2), (2, 7)])
def test_which_images_are_taken_for_what(splits, n_score, monkeypatch):
    monkeypatch.setattr(inception, "load_inception", lambda **_: Reads())
    generated, real = images(20, 1, 2, seed=3), images(9, 3, 2, seed=4)
    result = inception_metrics(generated, real, Protocol(6, 5, n_score), splits=splits)
    x, y = (to_bytes(some)[:, 0, 0].double() for some in (generated, real))
    scores = [inception_score((part / 8).softmax(1)).item() for part in x[: splits * n_score].split(n_score)]
    assert len(scores) == splits and result.inception_score == pytest.approx(np.mean(scores), rel=1e-6)
    assert result.fid == pytest.approx(frechet_distance(y[:6], x[:5]), rel=1e-6)
    if splits == 1:
        assert math.isnan(result.inception_score_std)
    else:
        assert result.inception_score_std == pytest.approx(np.std(scores), rel=1e-4)


def test_grey_counts_as_colour_and_batches_do_not_matter(weights):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    net = load_inception(weights)
    grey = images(2, 1)
    features, logits = inception.inception_features(grey, net, batch_size=1)
    colour, _ = inception.inception_features(grey.expand(-1, 3, -1, -1), net)
    assert torch.equal(torch.get_rng_state(), state)  # an evaluation amid a training changes nothing in it
    assert features.shape == (2, 2048) and logits.shape == (2, 1008) and not features.requires_grad
    torch.testing.assert_close(features, colour, rtol=1e-4, atol=1e-5)
    assert (features[0] - features[1]).norm() > 0.05 * features[0].norm()


# ---- bytes


@pytest.mark.parametrize("make", [lambda k: k / 127.5 - 1, lambda k: k / 255 * 2 - 1, lambda k: (k / 255 - 0.5) / 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_made_of_bytes_come_back_exactly(make, dtype):
    levels = torch.arange(256)
    found = to_bytes(make(levels.to(dtype)).reshape(1, 1, 16, 16))
    assert found.dtype == torch.uint8 and found.shape == (1, 3, 16, 16)
    assert all(torch.equal(channel.flatten(), levels.to(torch.uint8)) for channel in found[0])


def test_between_two_levels_the_lower_one_counts():
    between = (torch.tensor([0.0, 10.9, 127.5, 254.99]) / 127.5 - 1).reshape(1, 1, 2, 2)
    assert to_bytes(between)[0, 0].flatten().tolist() == [0, 10, 127, 254]
    assert to_bytes(torch.tensor([[[[-1.5, 1.5]]]]))[0, 0].flatten().tolist() == [0, 255]


# ---- bad input


def test_protocols():
    assert PROTOCOLS == {"paper": (10_000, 5_000, 5_000), "50k": (50_000, 50_000, 5_000)}


@pytest.mark.parametrize(
    "protocol, splits, n_generated, n_real, message",
    [
        ("paper", 10, 49_999, 10_000, "protocol paper, splits=10, needs 50000 generated images, got 49999"),
        ("paper", 1, 4_999, 10_000, "protocol paper, splits=1, needs 5000 generated images, got 4999"),
        ("paper", 1, 5_000, 9_999, "needs 10000 real images, got 9999"),
        ("50k", 1, 49_999, 50_000, "needs 50000 generated images, got 49999"),
        ("50k", 10, 50_000, 10_000, "needs 50000 real images, got 10000"),
        (SMALL, 1, 2, 5, "needs 3 generated images, got 2"),
        ("10k", 10, 5, 5, "protocol must be paper or 50k or a Protocol of counts .*got '10k'"),
        (SMALL, 0, 5, 5, "splits at least 1, got .* and 0"),
        (Protocol(5, 1, 1), 1, 5, 5, r"counts from 2 up .*n_generated=1"),
    ],
)
def test_too_few_images_are_refused_with_both_numbers(protocol, splits, n_generated, n_real, message):
    few = torch.zeros(1, 1, 1, 1)
    generated, real = (few.expand(n, 1, 1, 1) for n in (n_generated, n_real))
    with pytest.raises(ValueError, match=message):  # before any weights are looked for
        inception_metrics(generated, real, protocol, splits=splits)


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.zeros(5, 8, 8), r"batch \(N, channels, size, size\) with at least one entry, got \(5, 8, 8\)"),
        (torch.zeros(5, 2, 8, 8), r"1 or 3 channels, got \(5, 2, 8, 8\)"),
        (torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(0, 3, 8, 8), r"at least one entry, got \(0, 3, 8, 8\)"),
        (torch.linspace(0, 255, 75).reshape(5, 3, 1, 5), r"numbers in \[-1, 1\], got values from 0 to 255"),
        (torch.full((5, 3, 2, 2), math.nan), "contains 60 NaN"),
    ],
)
def test_other_images_are_refused(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        inception.inception_features(bad, torch.nn.Identity())


# ---- the weights


def test_the_published_weights_are_asked_for():
    assert inception.ADDRESS == library.URL_INCEPTION_V3


def test_without_network_the_error_names_file_address_and_way_out(tmp_path, monkeypatch):
    address = (tmp_path / "unreachable" / "weights-inception-x.pth").as_uri()
    monkeypatch.setattr(inception, "ADDRESS", address)
    monkeypatch.delenv("COURSE_INCEPTION", raising=False)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "downloads"))
    with pytest.raises(DataError) as caught:
        inception_metrics(images(6), images(5), SMALL, splits=2)
    message, place = str(caught.value), tmp_path / "downloads" / "weights-inception-x.pth"
    assert f"Inception weights could not be loaded from {place}" in message and f"Address: {address}" in message
    assert "Without network: fetch" in message and "`weights` or in COURSE_INCEPTION" in message
    assert not list((tmp_path / "downloads").iterdir())


def test_they_are_downloaded_once(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "ADDRESS", weights.as_uri())
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    load_inception()
    assert [path.name for path in tmp_path.iterdir()] == [weights.name]
    monkeypatch.setattr(inception, "ADDRESS", weights.parent.as_uri() + "/gone/" + weights.name)
    load_inception()


def test_a_download_of_something_else_is_not_kept(weights, tmp_path, monkeypatch):
    (tmp_path / "page.pth").write_text("<html>please sign in</html>")
    monkeypatch.setattr(inception, "ADDRESS", (tmp_path / "page.pth").as_uri())
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "downloads"))
    with pytest.raises(DataError, match="invalid hash value.*Without network"):
        load_inception()
    assert not list((tmp_path / "downloads").iterdir())


def test_a_file_from_the_environment_or_the_argument(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_INCEPTION", str(weights))
    from_environment = load_inception().state_dict()
    monkeypatch.setenv("COURSE_INCEPTION", str(tmp_path / "missing"))
    from_argument = load_inception(weights).state_dict()
    assert all(torch.equal(from_environment[name], from_argument[name]) for name in from_argument)
    assert torch.equal(from_argument["fc.weight"], torch.load(weights, weights_only=True)["fc.weight"])
    with pytest.raises(DataError, match="missing.*No such file.*COURSE_INCEPTION"):
        load_inception()


@pytest.mark.parametrize("content", [b"", b"other", "truncated"])
def test_other_or_damaged_weights_are_refused(weights, tmp_path, content):
    path = Path(tmp_path / "w.pth")
    path.write_bytes(weights.read_bytes()[:-1] if content == "truncated" else content)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"w.pth.*expected SHA-256 {inception.SHA256}, found {found}.*must be deleted"):
        load_inception(path)


def test_the_library_is_needed_for_nothing_else(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_fidelity"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "course_utils.long_runs.inception")
    import course_utils.long_runs.inception as fresh

    assert fresh is not inception
    with pytest.raises(DataError, match="torch-fidelity: python -m pip install -r requirements-fid.txt"):
        fresh.load_inception()


# ---- the training command


def test_the_command_measures_a_finished_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command_line, "load_inception", lambda **_: Reads())
    monkeypatch.setitem(PROTOCOLS, "paper", Protocol(20, 10, 5))
    torch.save((images(30, size=16).add(1) * 127.5).to(torch.uint8), tmp_path / "images.pt")
    tiny = "--profile cpu --width 2 --batch-size 4 --steps 2 --measurements 2 --fid paper".split()
    asked = [*tiny, "--data", str(tmp_path / "images.pt"), "--output", str(tmp_path / "run")]
    command_line.main(asked)
    kept = load_record(tmp_path / "run" / "record.npz").about["inception"]
    assert kept["n_real"] == 20 and kept["n_generated"] == 10 and kept["fid"] > 0
    assert f"FID {kept['fid']:.2f}, inception score" in capsys.readouterr().out
    monkeypatch.setitem(PROTOCOLS, "paper", Protocol(31, 10, 5))
    with pytest.raises(SystemExit):
        command_line.main([*asked[:-1], str(tmp_path / "other")])
    assert "--fid paper needs 31 real images" in capsys.readouterr().err and not (tmp_path / "other").exists()
