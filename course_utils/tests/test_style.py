"""Code in modules, tests and notebooks keeps to the settings in pyproject.toml; README's commands are where CI looks."""

import subprocess
import sys

import pytest
from browser import ROOT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command: list[str]) -> None:
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", "."]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\nto mend: python -m ruff check --fix . && python -m ruff format ."
    )


def test_readme_has_two_commands() -> None:
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```bash\n")[1:]
    commands = [line for block in blocks for line in block.split("```")[0].strip().splitlines()]
    opening, testing = commands[:2]
    for command in (opening, testing):
        assert command.startswith("python3 -m venv .venv && .venv/bin/python -m pip install -r requirements")
    assert opening.endswith("notebooks/00_start_here.ipynb") and testing.endswith("-m pytest")


def test_the_module_can_be_read_in_an_evening() -> None:
    """The files that the lectures teach from. What builds pages, and what long runs need, stands beside them."""
    pages = {"exercises.py", "setup_cell.py", "slides.py", "stored.py"}
    long_runs = {"runs.py", "parallel.py", "fast.py", "command_line.py", "benchmark.py", "sweep.py", "inception.py",
        "record_plan.py", "recurrent_records.py"}  # fmt: skip
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "course_utils").glob("*.py")
    }
    assert pages | long_runs < set(lines)
    assert sum(count for name, count in lines.items() if name not in pages | long_runs) <= 2780
    assert sum(lines[name] for name in long_runs) <= 1700
    assert lines["interactive.py"] < 130
