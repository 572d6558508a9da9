"""What tests of several files share: where the course lies, its notebooks, and whether this machine can talk to itself."""

import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LECTURES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXERCISES = sorted((ROOT / "notebooks" / "exercises").glob("[0-9][0-9]_*.ipynb"))


def loopback_works() -> bool:
    """Whether this machine can talk to itself over TCP (not so under `unshare -n`)."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError:
        return False
    return True
