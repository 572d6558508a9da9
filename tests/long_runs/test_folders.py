"""Folders that are full, read-only, written with a tilde or not named at all: a sentence, and nothing in the wrong place."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
from torchvision import datasets

from course_utils.classroom import exercises, slides
from course_utils.data import DATA_DIR, DataError, load_fashion_mnist
from course_utils.long_runs import command_line, inception
from course_utils.long_runs import datasets as registry
from course_utils.long_runs.checkpoint import read_checkpoint
from course_utils.long_runs.datasets import downloads, load_cifar10, load_stl10, why_not_written
from course_utils.long_runs.files import written_whole
from course_utils.records import RunError

ARCHIVE = datasets.CIFAR10.filename


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and an empty current folder in which nothing may appear."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("urllib.request.urlopen", refuse(URLError("no network")))
    for name in ("COURSE_DATA", "COURSE_INCEPTION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())


def refuse(error):
    def call(*args, **kwargs):
        raise error

    return call


def failing(monkeypatch, error):
    """Make CIFAR-10's loader fail with ``error``."""
    stub = type("Stub", (), {"url": datasets.CIFAR10.url, "__init__": refuse(error)})
    monkeypatch.setattr(datasets, "CIFAR10", stub)


def test_no_temporary_folder_is_needed(monkeypatch):
    full = refuse(OSError(errno.ENOSPC, "No space left on device"))
    for name in ("TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile", "mkdtemp", "mkstemp", "gettempdir"):
        monkeypatch.setattr(f"tempfile.{name}", full)
    assert load_fashion_mnist(16, train=False, limit=3).images.shape == (3, 1, 16, 16)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_empty_course_data_is_the_usual_folder(value, home, monkeypatch):
    if value is not None:
        monkeypatch.setenv("COURSE_DATA", value)
    assert downloads() == DATA_DIR / "downloads"


def test_an_empty_course_data_leaves_the_current_folder_alone(home, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", "")
    monkeypatch.setattr(registry, "DATA_DIR", home)
    with pytest.raises(DataError) as caught:
        load_cifar10()
    assert str(home / "downloads") in str(caught.value)


def test_a_tilde_in_the_paths_of_data(home, monkeypatch):
    with pytest.raises(DataError, match="is missing") as caught:
        load_fashion_mnist(root="~/fashion")
    assert str(home / "fashion") in str(caught.value)
    for load in load_cifar10, load_stl10:
        with pytest.raises(DataError) as caught:
            load(root="~/mine")
        assert f"from {home / 'mine'}" in str(caught.value)
    monkeypatch.setenv("COURSE_DATA", "~/theirs")
    assert downloads() == home / "theirs" and downloads(Path("~/mine")) == home / "mine"
    monkeypatch.setenv("COURSE_DATA", "~nobody-of-this-name/x")
    with pytest.raises(DataError, match="COURSE_DATA: no home folder is known"):
        load_cifar10()


@pytest.mark.parametrize("load", [load_fashion_mnist, load_cifar10, load_stl10])
def test_an_empty_root_is_refused(load, home):
    with pytest.raises(DataError, match="root: a path is expected, got ''"):
        load(root="")


def test_the_same_for_the_weights_of_inception(home, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse(URLError("no network")))
    monkeypatch.setattr(registry, "DATA_DIR", home)
    monkeypatch.setenv("COURSE_DATA", "")
    monkeypatch.setenv("COURSE_INCEPTION", " ")
    name = inception.ADDRESS.rsplit("/", 1)[1]
    with pytest.raises(DataError) as caught:
        inception.load_inception()
    assert str(home / "downloads" / name) in str(caught.value)
    for weights, variable in (("~/w.pth", ""), (None, "~/w.pth")):
        monkeypatch.setenv("COURSE_INCEPTION", variable)
        with pytest.raises(DataError) as caught:
            inception.load_inception(weights)
        assert f"from {home / 'w.pth'}" in str(caught.value)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_folder_is_named_and_no_advice_is_useless(number, there, tmp_path, monkeypatch):
    if there:
        (tmp_path / ARCHIVE).touch()
    failing(monkeypatch, OSError(number, os.strerror(number)))
    with pytest.raises(DataError) as caught:
        load_cifar10(root=tmp_path)
    message = str(caught.value)
    assert "cannot be written to" in message and "COURSE_DATA" in message and "another machine" not in message
    assert (f"{ARCHIVE} lies in {tmp_path}" in message) == there


def test_without_network_a_read_only_folder_is_not_recommended(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to" in why_not_written(tmp_path, ARCHIVE, URLError("no network"))
    assert "cannot be written to" in why_not_written(tmp_path / "not" / "yet", ARCHIVE, URLError("no network"))


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(DataError, match="The disk of .* is full: make room there, or set COURSE_DATA") as caught:
        load_cifar10(root=tmp_path)
    assert "damaged" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file, not a folder: set COURSE_DATA"):
        load_cifar10(root=tmp_path / "file" / "below")


def test_a_file_that_cannot_be_read_is_not_called_damaged(monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", refuse(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        load_fashion_mnist(train=False)


def test_a_tilde_in_the_folders_of_runs(home, capsys):
    options = command_line.parser().parse_args(["--output=~/runs/a"])
    assert options.output == home / "runs" / "a"
    with written_whole(options.output / "file") as file:
        file.write(b"x")
    assert (home / "runs" / "a" / "file").read_bytes() == b"x"
    with pytest.raises(RunError) as caught:
        read_checkpoint("~/none.pt")
    assert str(home / "none.pt") in str(caught.value)
    for bad, words in (("", "a path is expected"), ("~nobody-of-this-name/x", "no home folder is known")):
        with pytest.raises(SystemExit):
            command_line.parser().parse_args([f"--output={bad}"])
        assert words in capsys.readouterr().err


def test_checkpoints_go_into_the_course_from_wherever_it_is_called(tmp_path):
    command = [sys.executable, "-m", "course_utils", "record", "--help"]
    settings = {**os.environ, "PYTHONPATH": str(DATA_DIR.parent), "COLUMNS": "500"}
    shown = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=120)
    assert f"for checkpoints (default: {DATA_DIR / 'runs'})" in shown.stdout, shown.stderr


def test_decks_and_exercises_say_in_a_line_that_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert slides.main(["00", "--out", str(tmp_path / "file")]) == 1
    assert slides.main(["00", "--out", "~nobody-of-this-name/x"]) == 1
    (tmp_path / "exercises").touch()
    shutil.copy(exercises.NOTEBOOKS / "00_start_here.ipynb", tmp_path)
    monkeypatch.setattr(exercises, "NOTEBOOKS", tmp_path)
    assert exercises.main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error"] * 3, lines
