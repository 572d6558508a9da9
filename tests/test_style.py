"""Code in modules, tests and notebooks keeps to the settings in pyproject.toml; README's commands are where CI looks."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from helpers import LECTURES, ROOT

from course_utils import __main__ as door


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
    assert " --ServerApp.root_dir=. " in opening  # JupyterLab shows the whole course, not only notebooks/
    assert opening.endswith("notebooks/00_start_here.ipynb") and testing.endswith("-m pytest")


def test_arrows_point_inward() -> None:
    """The rings of pyproject.toml, kept by import-linter: a file of the core imports nothing from long runs or the classroom."""
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(lint, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0 and "Contracts: 1 kept, 0 broken." in done.stdout, done.stdout + done.stderr


def test_the_core_can_be_read_in_an_evening() -> None:
    """What lies in the folder itself is what lectures teach from; long runs and the classroom have folders of their own."""
    lines = {path.stem: len(path.read_text("utf-8").splitlines()) for path in (ROOT / "course_utils").glob("*.py")}
    assert sum(lines.values()) <= 3060
    assert lines["interactive"] < 130


def test_every_public_function_is_used() -> None:
    """In a lecture, or elsewhere in the code: a name that only its own definition and tests know is to go."""
    code = [path.read_text("utf-8") for path in (ROOT / "course_utils").rglob("*.py")]
    pages = [json.loads(path.read_text("utf-8"))["cells"] for path in LECTURES]
    text = [*code, *("".join(cell["source"]) for cells in pages for cell in cells)]
    text += [(ROOT / name).read_text("utf-8") for name in ("nbgrader_config.py", "README.md")]
    times = Counter(re.findall(r"\w+", "\n".join(text)))
    public = [name for source in code for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", source, re.M)]
    exercises = re.findall(r"^@exercise.*\ndef (\w+)", "\n".join(code), re.M)
    alone = [name for name in public if times[name] == 1 and name not in exercises]
    assert not alone, alone


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), ([], 0), (["trian"], 2), (["--chek"], 2)])
def test_one_door_for_commands(arguments: list[str], status: int, capsys: pytest.CaptureFixture) -> None:
    assert door.main(arguments) == status
    shown = capsys.readouterr()
    assert all(command in shown.out + shown.err for command in door.COMMANDS)
    assert status == 0 or f"unknown command '{arguments[0]}'" in shown.err


@pytest.mark.parametrize("command", door.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "notebooks").rglob("*.ipynb")}
    with pytest.raises(SystemExit) as stop:
        door.main([command, "--help"])
    assert stop.value.code == 0 and f"python -m course_utils {command}" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (ROOT / "notebooks").rglob("*.ipynb")}
