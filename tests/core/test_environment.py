"""environment.py: profiles, the report, complaints about versions."""

import platform
import sys
from pathlib import Path

import pytest
import torch

from course_utils import environment
from course_utils.environment import PROFILES, environment_report, processor, profile, untested_versions
from course_utils.models import bottom_size


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_profiles_are_complete():
    assert {name: p.name for name, p in PROFILES.items()} == {"cpu": "cpu", "gpu": "gpu"}
    for p in PROFILES.values():
        assert bottom_size(p.size) and len(set(p.seeds)) == len(p.seeds) >= 3
        assert min(p.width, p.batch_size, p.steps) > 0
    assert PROFILES["cpu"].device == "cpu" and PROFILES["gpu"].device == "cuda"


def test_default_follows_the_machine(no_gpu, monkeypatch):
    assert profile().name == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert profile().name == "gpu"


def test_environment_variable_overrides(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert profile() is PROFILES["cpu"]
    monkeypatch.setenv("COURSE_PROFILE", "")
    assert profile().name == "gpu"


def test_unknown_profile_is_named(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "laptop")
    with pytest.raises(ValueError, match="one of cpu, gpu, got 'laptop'"):
        profile()


def test_gpu_without_one_is_named(no_gpu, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    with pytest.raises(RuntimeError, match="COURSE_PROFILE=gpu, but torch sees no CUDA device"):
        profile()


def test_report(no_gpu):
    report = environment_report()
    assert report["Python"] == platform.python_version() and report["torch"] == torch.__version__
    assert set(report) >= {"Python", "torch", "torchvision", "system", "device", "profile"}
    assert report["profile"] == "cpu" and report["device"] == f"{processor()}, {torch.get_num_threads()} threads"
    assert all(isinstance(value, str) and value for value in report.values())


@pytest.mark.parametrize(
    "text, expected",
    [("processor : 0\nmodel name\t: A CPU @ 2: GHz\nmodel name\t: B\n", "A CPU @ 2: GHz"), ("Hardware : x\n", None)],
)
def test_processor(text, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr("course_utils.environment.Path", lambda name: tmp_path / Path(name).name)
    assert processor() == (expected or platform.processor() or platform.machine())
    (tmp_path / "cpuinfo").unlink()  # as on macOS and Windows
    assert processor() == (platform.processor() or platform.machine())


@pytest.mark.parametrize("version", ["2.11.0", "2.14.1+cpu", "2.15.0", "2.15.0a0+git1234"])
def test_supported_torch(version, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    assert not [text for text in untested_versions() if text.startswith("torch")]


@pytest.mark.parametrize("version", ["2.10.1", "1.13.0", "2.16.0", "3.0.0"])
def test_other_torch_is_named(version, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    (complaint,) = [text for text in untested_versions() if text.startswith("torch")]
    assert version in complaint and "2.11 to 2.15" in complaint


@pytest.mark.parametrize(
    "version, fine", [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 5), True), ((3, 14, 0), False)]
)
def test_python_versions(version, fine, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(environment.platform, "python_version", lambda: ".".join(map(str, version)))
    complaints = [text for text in untested_versions() if text.startswith("Python")]
    assert bool(complaints) != fine
    assert fine or ".".join(map(str, version)) in complaints[0]


def test_widths_on_a_gpu_are_those_of_the_paper():
    """Table 3: 64 channels; Table 4: 128 in D."""
    assert (PROFILES["gpu"].width_of("cnn"), PROFILES["gpu"].width_of("resnet")) == (64, 128)


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_or_blank_variable_counts_as_unset(value, no_gpu, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", value)
    assert environment.variable("COURSE_PROFILE") is None and profile().name == "cpu"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert environment.expanded("~/runs") == environment.expanded(Path("~/runs")) == tmp_path / "runs"
    assert environment.expanded("runs/~") == Path("runs/~")
    with pytest.raises(ValueError, match="no home folder is known for '~nobody-of-this-name/x'"):
        environment.expanded("~nobody-of-this-name/x")
    with pytest.raises(ValueError, match="a path is expected, got ''"):
        environment.expanded("")
