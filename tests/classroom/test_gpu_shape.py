"""Lecture 05 as a machine with a GPU would run it, as far as a CPU can show: its image size, its branches, few updates."""

import nbformat
import pytest
from helpers import ROOT
from nbclient import NotebookClient

# The gpu profile with 32 pixels and its name, which cells ask for; on the CPU, with small networks and 20 updates.
AS_ON_A_GPU = """
import course_utils.environment
course_utils.environment.PROFILES["cpu"] = course_utils.environment.Profile(
    "gpu", "cpu", size=32, width=8, batch_size=16, steps=20, seeds=(0, 1)
)
"""


@pytest.mark.slow
def test_every_cell_takes_its_sizes_from_the_profile(monkeypatch):
    """The toy is left out: it has no images, and takes the longest."""
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    lecture = nbformat.read(ROOT / "notebooks" / "05_gan_training.ipynb", 4)
    lecture.cells = [cell for cell in lecture.cells if cell.cell_type == "code" and not cell.id.startswith("toy")]
    lecture.cells[0].source += AS_ON_A_GPU
    NotebookClient(lecture, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    printed = "".join(output.get("text", "") for cell in lecture.cells for output in cell.outputs)
    assert "real images: (60000, 1, 32, 32)" in printed
    assert f"{20 // 4} updates of G" in printed
