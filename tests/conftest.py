"""Fixtures and marker of the browser tests, and what tests have recorded, at the end of the output."""

import pytest
from browser import chromium  # noqa: F401


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a browser carries the marker, so that ``-m "not browser"`` leaves it out."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests record properties, and those come back from workers, too: a row per exercise, and lines of the browser."""
    reports = [item for some in terminalreporter.stats.values() for item in some if getattr(item, "when", "") == "call"]
    told = [(report.location[0], *told) for report in reports for told in report.user_properties]
    if rows := sorted({tuple(value) for _, key, value in told if key == "check"}):
        terminalreporter.section("exercise checks")
        for row in [("exercise", "accepted/offered", "rejected/offered"), *rows]:
            terminalreporter.write_line("{:<24}{:>18}{:>18}".format(*row))
    if lines := sorted(((file, value) for file, key, value in told if key == "browser"), key=lambda line: line[0]):
        terminalreporter.section("in the browser")
        for _, line in lines:
            terminalreporter.write_line(line)
