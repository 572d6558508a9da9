"""Settings for all tests: the unit tests, and through nbval every lecture."""

import os
import sys
import tempfile

import matplotlib
import pytest
import torch
from helpers import loopback_works
from jupyter_client.manager import KernelManager

SCRATCH = tempfile.TemporaryDirectory(prefix="course", ignore_cleanup_errors=True)

# A lecture's own solution that its check refuses is a failure. Tests use the laptop's numbers, on a GPU machine too.
os.environ["COURSE_STRICT"] = "1"
os.environ["COURSE_PROFILE"] = "cpu"
# One thread unless you ask for more: at these sizes a second one gains a quarter on an idle machine and loses on a busy one.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))  # here, and in what tests start
# Kernels see no personal start-up files or settings.
os.environ["IPYTHONDIR"] = os.environ["JUPYTER_CONFIG_DIR"] = SCRATCH.name
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
matplotlib.use("Agg")

# Files that take longer than half a minute, the longest first: a worker that began one of them last would end alone.
LONGEST = (
    "test_browser.py",
    "05_gan_training.ipynb",
    "test_site.py",
    "test_open_exercises.py",
    "test_slides.py",
    "test_nbgrader.py",
    "04_singular_value_spectra.ipynb",
    "07_beyond_2018.ipynb",
    "00_start_here.ipynb",
    "01_lipschitz_bound.ipynb",
    "03_power_iteration.ipynb",
    "06_recurrent_networks.ipynb",
)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """``pytest`` alone, that is all tests, runs them in two workers, a file in one; -n 0, -s and --pdb in this process.

    A third one gains nothing on two cores (tried): the kernels of two workers fill them.
    """
    option = config.option
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")
    alone = option.usepdb or option.trace or option.capture == "no"
    if everything and not alone and getattr(option, "numprocesses", 0) is None and option.dist == "no":
        option.numprocesses, option.dist, option.loadscopereorder = 2, "loadfile", False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take files in the order in which they were collected: long ones first."""
    if hasattr(config, "workerinput"):
        place = {name: i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_configure(config: pytest.Config) -> None:
    """Every lecture is a test: each cell is run in a fresh kernel and its text is compared with the stored one."""
    if config.pluginmanager.hasplugin("nbval") and not config.option.nbval_lax:
        config.option.nbval = config.option.nbval_current_env = True
        config.option.nbval_cell_timeout = 300


def _through_files(self: KernelManager, *args, _init=KernelManager.__init__, **kwargs) -> None:
    """Reach kernels through files, where 127.0.0.1 cannot be reached."""
    place = os.path.join(tempfile.mkdtemp(dir=SCRATCH.name), "ipc")
    _init(self, *args, **{"transport": "ipc", "ip": place, **kwargs})


if sys.platform != "win32" and not loopback_works():
    KernelManager.__init__ = _through_files
