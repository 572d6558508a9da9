"""data.py: real images from the repository, damaged files, a folder without write access, no network, toy data."""

import gzip
import hashlib
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.data import (
    DATA_DIR,
    FASHION_CLASSES,
    FASHION_SHA256,
    DataError,
    Images,
    load_fashion_mnist,
    ring_of_gaussians,
)

FOLDER = DATA_DIR / "FashionMNIST"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
quick = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def published():
    return load_fashion_mnist(28, train=False)


@pytest.fixture
def copy(tmp_path):
    """A copy of the test half of the data, to be damaged."""
    for name in (TEST_IMAGES, TEST_LABELS):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


# ---- Fashion-MNIST


def test_images_are_the_published_bytes(published):
    raw = gzip.decompress((FOLDER / TEST_IMAGES).read_bytes())
    pixels = torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).view(10_000, 1, 28, 28)
    labels = torch.frombuffer(bytearray(gzip.decompress((FOLDER / TEST_LABELS).read_bytes())[8:]), dtype=torch.uint8)
    assert published.images.dtype == torch.float32 and published.labels.dtype == torch.int64
    torch.testing.assert_close(published.images, pixels.float() / 127.5 - 1, rtol=0, atol=1e-6)
    assert torch.equal(published.labels, labels.long())
    assert published.images.min() == -1 and published.images.max() == 1
    assert torch.equal(published.labels.bincount(), torch.full((10,), 1000))


@pytest.mark.slow
def test_training_half():
    images, labels = load_fashion_mnist(16, train=True)
    assert images.shape == (60_000, 1, 16, 16) and torch.equal(labels.bincount(), torch.full((10,), 6000))
    assert images.min() >= -1 and images.max() <= 1 and len(FASHION_CLASSES) == 10


def test_sizes(published):
    at32, at16 = (
        load_fashion_mnist(32, train=False, limit=50).images,
        load_fashion_mnist(16, train=False, limit=50).images,
    )
    assert at32.shape == (50, 1, 32, 32) and at16.shape == (50, 1, 16, 16)
    assert torch.equal(at32[:, :, 2:30, 2:30], published.images[:50])
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    assert torch.all(at32[:, 0, border] == -1)
    torch.testing.assert_close(at16, at32.view(50, 1, 16, 2, 16, 2).mean((3, 5)))


@pytest.mark.parametrize("limit, n", [(1, 1), (7, 7), (10_000, 10_000), (10_001, 10_000), (None, 10_000)])
def test_limit(published, limit, n):
    images, labels = load_fashion_mnist(28, train=False, limit=limit)
    assert torch.equal(images, published.images[:n]) and torch.equal(labels, published.labels[:n])


def test_checksums_are_those_of_the_four_files():
    assert sorted(FASHION_SHA256) == sorted(path.name for path in FOLDER.glob("*.gz"))
    for name, expected in FASHION_SHA256.items():
        assert hashlib.sha256(gzip.decompress((FOLDER / name).read_bytes())).hexdigest() == expected


def test_a_file_that_someone_packed_again_is_fine(copy):
    content = gzip.decompress((copy / TEST_IMAGES).read_bytes())
    (copy / TEST_IMAGES).write_bytes(gzip.compress(content, compresslevel=1))
    assert len(load_fashion_mnist(28, train=False, limit=3, root=copy).images) == 3


def test_root_may_be_a_string_with_spaces_and_the_other_half_may_be_absent(copy):
    folder = copy / "a folder"
    folder.mkdir()
    for name in (TEST_IMAGES, TEST_LABELS):
        shutil.move(copy / name, folder)
    assert len(load_fashion_mnist(16, train=False, limit=3, root=str(folder)).images) == 3
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz is missing"):
        load_fashion_mnist(16, train=True, root=folder)


# ---- damaged files


def change_content(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[1000] ^= 1
    path.write_bytes(gzip.compress(bytes(content), compresslevel=1))


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "cut to a few bytes": lambda path: path.write_bytes(path.read_bytes()[:15]),
    "no gzip": lambda path: path.write_bytes(b"<html>404</html>"),
    "flipped bits": lambda path: path.write_bytes(path.read_bytes()[:900] + b"\0" * 50 + path.read_bytes()[950:]),
    "rubbish behind it": lambda path: path.write_bytes(path.read_bytes() + b"rubbish"),
    "wrong content": change_content,
    "empty": lambda path: path.write_bytes(b""),
    "another file's content": lambda path: shutil.copy(FOLDER / TEST_LABELS, path),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_with_the_way_out(copy, kind):
    DAMAGE[kind](copy / TEST_IMAGES)
    with pytest.raises(DataError) as caught:
        load_fashion_mnist(28, train=False, root=copy)
    message = str(caught.value)
    assert str(copy / TEST_IMAGES) in message and "git checkout -- data" in message
    if kind in ("wrong content", "empty", "another file's content"):
        assert FASHION_SHA256[TEST_IMAGES] in message and "found" in message
    else:
        assert "damaged (truncated or not gzip" in message


def test_damage_of_the_labels_is_found_too(copy):
    change_content(copy / TEST_LABELS)
    with pytest.raises(DataError, match="labels.*expected SHA-256"):
        load_fashion_mnist(28, train=False, root=copy)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_missing_file_is_named_with_its_place(tmp_path, make):
    make(tmp_path / TEST_IMAGES)
    with pytest.raises(DataError, match="is missing: expected it at .*git checkout") as caught:
        load_fashion_mnist(28, train=False, root=tmp_path)
    assert str(tmp_path / TEST_IMAGES) in str(caught.value)


# ---- a folder that must not be written to

READ_ONLY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from course_utils.data import load_fashion_mnist
load = lambda: load_fashion_mnist(16, train=False, limit=5, root=sys.argv[2]).images.shape
load()  # everything is imported now
if os.getuid() == 0:  # to root every folder is writable: become nobody
    os.setgid(65534), os.setuid(65534)
if os.access(sys.argv[2], os.W_OK) or not os.access(sys.argv[2], os.R_OK):
    sys.exit("this system cannot make a folder read-only")
print(*load())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no write permission there")
def test_a_read_only_folder_works():
    folder = Path(tempfile.mkdtemp())  # not in pytest's own folder, which is closed to other users
    try:
        for name in (TEST_IMAGES, TEST_LABELS):
            shutil.copy(FOLDER / name, folder)
            (folder / name).chmod(0o444)
        folder.chmod(0o555)
        command = [sys.executable, "-c", READ_ONLY, str(DATA_DIR.parent), str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if "cannot make a folder read-only" in run.stderr:
            pytest.skip(run.stderr)
        assert run.stdout.split() == ["5", "1", "16", "16"], run.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_nothing_is_written_beside_the_data(copy, monkeypatch):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in copy.iterdir())
    write = Path.write_bytes

    def guarded(path, content):
        assert copy not in path.parents
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", guarded)
    load_fashion_mnist(28, train=False, limit=1, root=copy)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in copy.iterdir()) == before


def test_nothing_is_left_in_the_temporary_folder(copy, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    load_fashion_mnist(28, train=False, limit=1, root=copy)
    assert not list((tmp_path / "scratch").iterdir())


def test_no_network_is_touched(copy, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_fashion_mnist(28, train=False, limit=1, root=copy)


# ---- toy distributions


@quick
@given(st.integers(1, 12), st.integers(1, 500), st.integers(0, 1000))
def test_ring_without_spread_lies_on_the_modes(modes, n, seed):
    x = ring_of_gaussians(n, modes, radius=2.0, std=0.0, generator=torch.Generator().manual_seed(seed))
    assert x.shape == (n, 2)
    torch.testing.assert_close(x.norm(dim=1), torch.full((n,), 2.0))
    turns = torch.atan2(x[:, 1], x[:, 0]) / (2 * torch.pi) * modes
    torch.testing.assert_close(turns, turns.round(), atol=1e-4, rtol=0)


def test_ring_visits_all_modes_evenly_with_its_spread():
    x = ring_of_gaussians(8000, 8, 2.0, 0.05, torch.Generator().manual_seed(0))
    mode = (torch.atan2(x[:, 1], x[:, 0]) / (2 * torch.pi) * 8).round().long() % 8
    assert (mode.bincount(minlength=8) - 1000).abs().max() < 150
    angle = mode * 2 * torch.pi / 8
    spread = x - 2 * torch.stack([angle.cos(), angle.sin()], 1)
    assert torch.allclose(spread.std(0), torch.tensor([0.05, 0.05]), rtol=0.05)


def test_the_toy_is_repeatable_and_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    first, second, other = (ring_of_gaussians(10, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


# ---- bad input


@pytest.mark.parametrize("size", [0, 27, 64, "16", None, (28, 28)])
def test_bad_sizes_are_named(size):
    with pytest.raises(ValueError, match="number 16, 28 or 32, got"):
        load_fashion_mnist(size)


@pytest.mark.parametrize("limit", [0, -1, 2.5, "3"])
def test_bad_limits_are_named_before_anything_is_loaded(limit, tmp_path):
    with pytest.raises(ValueError, match=f"limit must be a whole number, 1 or more, got {limit!r}"):
        load_fashion_mnist(limit=limit, root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [0, -1, 1.5])
def test_bad_toy_counts_are_named(bad):
    for options in ({"n": bad}, {"n": 5, "modes": bad}):
        with pytest.raises(ValueError, match=f"must be a whole number, 1 or more, got {bad}"):
            ring_of_gaussians(**options)


def test_images_is_a_pair():
    images, labels = Images(torch.ones(2), torch.zeros(2))
    assert images.sum() == 2 and labels.sum() == 0


@pytest.mark.parametrize("word", ["test", "train", 1, None])
def test_a_word_is_no_truth_value(word):
    with pytest.raises(ValueError, match=f"train must be True or False, got {word!r}"):
        load_fashion_mnist(28, train=word)
