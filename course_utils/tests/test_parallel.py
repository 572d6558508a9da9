"""parallel.py: two processes of half the batch, started by torchrun, against one process of the full batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from course_utils.parallel import SyncedBatchNorm
from course_utils.runs import read_checkpoint
from course_utils.training import Config, build_models

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# Trains several methods and writes what each process holds at the end.
PROGRAM = """
import sys, torch
from pathlib import Path
from course_utils import parallel
from course_utils.training import Config, Setting, train

parallel.join("cpu")
images = torch.load("images.pt", weights_only=True)
for name in sys.argv[1:]:
    config = Config(name, Setting(1e-3, 0.5, 0.9, 2), width=4, d_z=6, batch_size=8, steps=3)
    run = train(config, images)
    state = {**{"G " + k: v for k, v in run.generator.state_dict().items()},
             **{"D " + k: v for k, v in run.discriminator.state_dict().items()}, "curves": run.curves}
    torch.save(state, f"{name}-{parallel.world_size()}-{parallel.rank()}.pt")
parallel.leave()
"""
METHODS = ("spectral_norm", "orthonormal", "batch_norm", "weight_clipping", "wgan_gp")

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no distributed package"),
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo is tried on Linux and macOS"),
]


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.save(torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1, folder / "images.pt")
    (folder / "program.py").write_text(PROGRAM)
    run([sys.executable, "program.py", *METHODS], folder)
    run([*TORCHRUN, "program.py", *METHODS], folder)
    return {p.stem: torch.load(p, weights_only=True) for p in folder.glob("*-?-?.pt")}


@pytest.mark.parametrize("method", METHODS)
def test_all_processes_hold_the_same_numbers(method, states):
    first, second = states[f"{method}-2-0"], states[f"{method}-2-1"]
    assert first.keys() == second.keys()
    for name, value in first.items():  # weights, u and v (and with them sigma), running averages, curves
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("method", [m for m in METHODS if m != "wgan_gp"])  # the penalty draws points of its own
def test_two_halves_make_the_full_batch(method, states):
    one, two = states[f"{method}-1-0"], states[f"{method}-2-0"]
    idle = without_effect(Config(method, width=4, d_z=6))
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


def test_the_command_line_under_torchrun(tmp_path):
    options = ["-m", "course_utils.training", "--profile", "cpu", "--width", "4", "--batch-size", "8", "--steps", "4"]
    options += ["--data", "images.pt", "--output", "run", "--checkpoint-every", "2"]
    torch.save(torch.randint(0, 256, (32, 1, 16, 16), dtype=torch.uint8), tmp_path / "images.pt")
    out = run([*TORCHRUN, *options], tmp_path)
    assert out.count("spectral normalization; standard loss") == 1  # one of them speaks
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 4
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint.pt", "record.npz", "samples.png"]


def test_synced_batch_norm_of_a_single_process_is_batch_norm(monkeypatch):
    from course_utils import parallel

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
