"""Fixtures of the browser tests, and their measurements at the end of the output."""

import pytest
from browser import REPORT, chromium  # noqa: F401


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REPORT:
        terminalreporter.section("in the browser")
        for line in REPORT:
            terminalreporter.write_line(line)
