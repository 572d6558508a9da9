"""datasets.py: one row for each data set, CIFAR-10 and STL-10 with and without network, bad input."""

from urllib.error import URLError

import pytest
import torch
from torch.nn import functional as F
from torchvision import datasets

from course_utils.data import DataError, Images
from course_utils.long_runs import datasets as registry
from course_utils.long_runs.command_line import main
from course_utils.long_runs.datasets import DATASETS, DataSet, load_cifar10, load_images, load_stl10


def no_network(*args, **kwargs):
    raise URLError("no network")


@pytest.mark.parametrize(
    "load, dataset, name", [(load_cifar10, datasets.CIFAR10, "CIFAR-10"), (load_stl10, datasets.STL10, "STL-10")]
)
def test_without_network_the_message_names_file_address_and_way_out(load, dataset, name, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DataError) as caught:
        load(root=tmp_path / "new")
    message = str(caught.value)
    for part in (name, dataset.url, dataset.url.rsplit("/", 1)[1], str(tmp_path / "new"), "COURSE_DATA", "no network"):
        assert part in message
    assert "another machine" in message


def test_downloads_go_to_the_folder_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="elsewhere"):
        load_cifar10()
    assert (tmp_path / "elsewhere").is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="CIFAR-10 could not be loaded from"):
        load_cifar10(root=tmp_path / "file")


def test_a_damaged_download_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    (tmp_path / datasets.CIFAR10.filename).write_bytes(b"half of it")
    with pytest.raises(DataError, match="a damaged copy must be deleted first"):
        load_cifar10(root=tmp_path)


def test_cifar10_tensors(monkeypatch, tmp_path):
    class Stub:
        url = datasets.CIFAR10.url

        def __init__(self, root, download, train):
            pixels = torch.arange(6 * 32 * 32 * 3).view(6, 32, 32, 3) % 256
            self.data, self.targets = pixels.to(torch.uint8).numpy(), [3, 1, 4, 1, 5, 9]

    monkeypatch.setattr(datasets, "CIFAR10", Stub)
    images, labels = load_cifar10(limit=4, root=tmp_path)
    assert images.shape == (4, 3, 32, 32) and images.is_contiguous() and labels.tolist() == [3, 1, 4, 1]
    assert float(images[0, 1, 0, 2]) == pytest.approx(7 / 127.5 - 1)  # pixel (0, 2), channel 1: byte 2*3+1
    assert images.min() >= -1 and images.max() <= 1


def test_stl10_tensors(monkeypatch, tmp_path):
    class Stub:
        url = datasets.STL10.url

        def __init__(self, root, download, split):
            assert split == "unlabeled"
            self.data = (torch.arange(5 * 3 * 96 * 96).view(5, 3, 96, 96) % 251).to(torch.uint8).numpy()

    monkeypatch.setattr(datasets, "STL10", Stub)
    images, labels = load_stl10(limit=3, root=tmp_path)
    pixels = torch.from_numpy(Stub(tmp_path, True, "unlabeled").data[:3]).float() / 127.5 - 1
    torch.testing.assert_close(images, F.avg_pool2d(pixels, 2))
    assert images.shape == (3, 3, 48, 48) and labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("load", [load_cifar10, load_stl10])
@pytest.mark.parametrize("limit", [0, -1, 2.5, "3"])
def test_bad_limits_are_named_before_anything_is_loaded(load, limit, tmp_path):
    with pytest.raises(ValueError, match=f"limit must be a whole number, 1 or more, got {limit!r}"):
        load(limit=limit, root=tmp_path)
    assert not list(tmp_path.iterdir())


# ---- the registry


@pytest.mark.parametrize("name", ["mnist", "", "CIFAR10"])
def test_an_unknown_data_set_is_an_error_never_another_one(name):
    with pytest.raises(ValueError, match=f"unknown data '{name}'; choose one of: fashion_mnist, cifar10, stl10"):
        load_images(name, 32)


def test_a_row_is_all_that_a_new_data_set_needs(monkeypatch, tmp_path, capsys):
    grey = DataSet(
        lambda size: Images(torch.zeros(40, 1, size, size), torch.arange(40) % 4), channels=1, sizes=(16, 20)
    )
    monkeypatch.setitem(DATASETS, "grey", grey)
    tiny = "--width 2 --batch-size 4 --steps 2 --measurements 2".split()
    main(["--data", "grey", "--size", "20", "--output", str(tmp_path / "run"), "--profile", "cpu", *tiny])
    assert (tmp_path / "run" / "record.npz").is_file() and "size 20" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--data", "grey", "--size", "28", "--output", str(tmp_path / "other"), *tiny])
    assert "grey comes with 16 or 20 pixels, got --size 28" in capsys.readouterr().err


def test_every_row_names_what_it_loads(monkeypatch):
    for name in ("load_cifar10", "load_stl10"):
        monkeypatch.setattr(registry, name, lambda name=name: name)
    assert (load_images("cifar10", 32), load_images("stl10", 48)) == ("load_cifar10", "load_stl10")
    assert load_images("fashion_mnist", 16).images.shape == (60000, 1, 16, 16)
