"""The fast tests need neither a browser's driver nor nbval: without both every unit test is still found."""

import os
import subprocess
import sys

from helpers import ROOT

WITHOUT = """
import sys
sys.modules["playwright"] = sys.modules["nbval"] = None  # an import of them fails as if they were not installed
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests"]))
"""


def test_unit_tests_are_collected_without_playwright_and_nbval() -> None:
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # nbval's plugin would be loaded by its entry point
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for file in ROOT.glob("tests/*/test_*.py"):
        found = f"{file.relative_to(ROOT).as_posix()}::" in done.stdout
        assert found == (not file.stem.startswith("test_browser")), f"{file.name}: {found}"
