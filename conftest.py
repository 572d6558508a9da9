"""Settings for all tests: this folder's unit tests and, through nbval, every lecture."""

import os
import sys
import tempfile

import matplotlib
from browser import loopback_works
from jupyter_client.manager import KernelManager

# A check that a lecture's own solution does not pass must fail; tests use the laptop's numbers, on a GPU machine too.
os.environ["COURSE_STRICT"] = "1"
os.environ["COURSE_PROFILE"] = "cpu"
# Kernels started by tests see no personal start-up files, settings or pop-up of matplotlib.
os.environ["IPYTHONDIR"] = tempfile.mkdtemp(prefix="ipython")
os.environ["JUPYTER_CONFIG_DIR"] = os.environ["IPYTHONDIR"]
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
matplotlib.use("Agg")


def _through_files(self: KernelManager, *args, _init=KernelManager.__init__, **kwargs) -> None:
    """Reach kernels through files, where 127.0.0.1 cannot be reached."""
    _init(self, *args, **{"transport": "ipc", "ip": tempfile.mkdtemp(prefix="kernel") + "/ipc", **kwargs})


if sys.platform != "win32" and not loopback_works():
    KernelManager.__init__ = _through_files
