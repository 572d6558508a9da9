"""parallel.py: two processes of half the batch, started by torchrun, against one process of the full batch."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, assert_same, loopback_works

from course_utils.long_runs import parallel
from course_utils.long_runs.checkpoint import read_checkpoint
from course_utils.long_runs.command_line import main
from course_utils.long_runs.fast import fast_updates
from course_utils.long_runs.folder import train_in_folder
from course_utils.long_runs.parallel import SyncedBatchNorm
from course_utils.records import load_record
from course_utils.training import (
    PLAIN,
    Config,
    Run,
    Setting,
    Updates,
    build_models,
    train,
    update_discriminator,
    update_generator,
)

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def train_all(methods, images):
    """Train a few steps with each method and keep what this process holds at the end, in the working folder."""
    for name in methods:
        method = name.removeprefix("fast ")
        config = Config(method, Setting(1e-3, 0.5, 0.9, 2), width=4, d_z=6, batch_size=8, steps=3)
        run, updates = Run.start(config), fast_updates(config, "float32") if method != name else PLAIN
        train(config, images, run=run, updates=parallel.Processes(run, updates).updates)
        state = {
            **{f"G {name}": value for name, value in run.generator.state_dict().items()},
            **{f"D {name}": value for name, value in run.discriminator.state_dict().items()},
            "curves": run.curves,
        }
        torch.save(state, f"{name}-{parallel.world_size()}-{parallel.rank()}.pt")


def stop_and_resume(images):
    """A run in a folder, and the same one ended by a signal that reaches only one of the processes, then resumed."""
    config = Config("wgan_gp", "C", width=4, d_z=6, batch_size=8, steps=4)

    def stopping(*args):
        if parallel.rank() == 1:
            signal.raise_signal(signal.SIGINT)
        return update_generator(*args)

    train_in_folder(config, images, "whole", progress=0)
    updates = Updates(update_discriminator, stopping)
    assert train_in_folder(config, images, "parts", progress=0, updates=updates).step == 1
    train_in_folder(config, images, "parts", resume=True, progress=0)


METHODS = ("spectral_norm", "fast spectral_norm", "orthonormal", "batch_norm", "weight_clipping", "wgan_gp")

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no distributed package"),
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo is tried on Linux and macOS"),
]


def run(command, folder):
    if not loopback_works():
        pytest.skip("torchrun's processes talk over 127.0.0.1, which this machine cannot reach")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rng():
    return torch.Generator().manual_seed(0)


def read_images():
    return torch.load("images.pt", weights_only=True).float().div(127.5).sub(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with everything that one process (this one) and two under torchrun have left, and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    torch.save(torch.randint(0, 256, (32, 1, 16, 16), dtype=torch.uint8, generator=rng()), folder / "images.pt")
    with contextlib.chdir(folder):
        train_all(METHODS, read_images())
    return folder, run([*TORCHRUN, __file__], folder)


@pytest.fixture(scope="module")
def states(trained):
    return {p.stem: torch.load(p, weights_only=True) for p in trained[0].glob("*-?-?.pt")}


@pytest.mark.parametrize("method", METHODS)
def test_all_processes_hold_the_same_numbers(method, states):
    first, second = states[f"{method}-2-0"], states[f"{method}-2-1"]
    assert first.keys() == second.keys()
    for name, value in first.items():  # weights, u and v (and with them sigma), running averages, curves
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("method", [m for m in METHODS if m != "wgan_gp"])  # the penalty draws points of its own
def test_two_halves_make_the_full_batch(method, states):
    one, two = states[f"{method}-1-0"], states[f"{method}-2-0"]
    idle = without_effect(Config(method.removeprefix("fast "), width=4, d_z=6))
    compared = [name for name in one if name not in idle]
    assert len(compared) > 0.6 * len(one)
    for name in compared:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def without_effect(config):
    """Biases that a batch norm takes out again, and its running mean, which follows them.

    Their gradient is zero but for rounding, and Adam makes a full step of whatever sign the rounding has.
    """
    names = set()
    for letter, network in zip("GD", build_models(config)):
        for before, (index, layer) in zip(network, list(enumerate(network))[1:]):
            if isinstance(layer, torch.nn.BatchNorm2d):
                names |= {f"{letter} {index - 1}.bias", f"{letter} {index}.running_mean"}
                assert before.bias is not None
    return names


def test_the_command_line_under_torchrun(trained):
    folder, out = trained
    assert out.count("spectral normalization; standard loss") == 1  # one of them speaks
    assert read_checkpoint(folder / "run" / "checkpoint.pt")["step"] == 4
    assert sorted(p.name for p in (folder / "run").iterdir()) == [".lock", "checkpoint.pt", "record.npz", "samples.png"]
    assert out.count("the batch of 7 must be a multiple of the 2 processes") == 2
    assert not (folder / "uneven").exists()


def test_a_run_of_two_processes_that_one_was_asked_to_stop_resumes_bit_by_bit(trained):
    folder, out = trained
    assert out.count("stopped after update 1 of 4") == 1
    assert_same(*(read_checkpoint(folder / name / "checkpoint.pt") for name in ("whole", "parts")))
    whole, parts = (load_record(folder / name / "record.npz") for name in ("whole", "parts"))
    assert whole.about["processes"] == 2
    assert all(np.array_equal(whole[name], parts[name]) for name in whole.arrays)


def test_more_processes_than_gpus_are_named(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="each process needs a GPU of its own, and torch sees 1 here"):
        parallel.join("cuda")


def test_synced_batch_norm_of_a_single_process_is_batch_norm(monkeypatch):
    monkeypatch.setattr(parallel, "all_reduce", lambda value: value)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 1)
    torch.manual_seed(0)
    ours, theirs = SyncedBatchNorm(3).double(), torch.nn.BatchNorm2d(3).double()
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64) * 3 + 1
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    for module in (ours, theirs):
        torch.nn.init.uniform_(module.weight, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(a), theirs(b))
    ours(a).square().sum().backward(), theirs(b).square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


if __name__ == "__main__":  # one of the processes that torchrun starts
    parallel.join("cpu")
    train_all(METHODS, read_images())
    stop_and_resume(read_images())
    try:
        train_in_folder(Config(batch_size=7), read_images(), "uneven")
    except ValueError as error:
        print(f"refused: {error}\n", end="", flush=True)  # one write: the other process prints as well
    options = ["--profile", "cpu", "--width", "4", "--batch-size", "8", "--steps", "4", "--checkpoint-every", "2"]
    main([*options, "--data", "images.pt", "--output", "run"])
