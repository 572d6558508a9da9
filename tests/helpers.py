"""What tests of several files share: where the course lies, its notebooks, and whether this machine can talk to itself."""

import os
import socket
from pathlib import Path

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
LECTURES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
TEMPLATE = ROOT / "notebooks" / "_template.ipynb"  # what a new lecture begins as: held to the same rules
EXERCISES = sorted((ROOT / "notebooks" / "exercises").glob("[0-9][0-9]_*.ipynb"))

AT_ONCE = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2  # notebooks side by side: a worker leaves a core to the other

# Shorter computations behind interactive figures, by lecture: what is written instead of what.
SHORTER = {
    "00": [("(0, 1, 2), 240", "(0, 1, 2), 20")],
    "01": [
        ("steps=300, lr=0.3", "steps=3, lr=0.3"),
        ("rounded_lower_bound(f, start)", "rounded_lower_bound(f, start, 3)"),
    ],
    "04": [("seed in range(3)", "seed in range(1)"), ('setting="D", width=16', 'setting="C", width=4')],
    "07": [("tau, steps=300", "tau, steps=20"), ("rounds=15", "rounds=1")],
}

TINY = {"width": 4, "d_z": 6, "batch_size": 4, "steps": 3}  # a configuration that trains in a moment


def images(n=32, size=16, seed=0):
    """Smooth random images in [-1, 1]."""
    coarse = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bilinear").tanh()


def loopback_works() -> bool:
    """Whether this machine can talk to itself over TCP (not so under `unshare -n`)."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError:
        return False
    return True


def flat(state, prefix=""):
    """Every tensor and number of a nested state, by its path."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in flat(value, f"{prefix}/{i}").items()}
    return {prefix: state}


def assert_same(a, b):
    """Two checkpoints hold the same, but for the seconds they took."""
    a, b = ({k: v for k, v in flat(state).items() if k != "/seconds"} for state in (a, b))
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key], key
