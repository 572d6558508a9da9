"""Parametrizes ``test_exercise`` by the CASES of each file and prints one table at the end of the run."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = metafunc.module.CASES
        metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def pytest_terminal_summary(terminalreporter):
    reports = [
        report for some in terminalreporter.stats.values() for report in some if hasattr(report, "user_properties")
    ]
    rows = sorted({tuple(value) for report in reports for key, value in report.user_properties if key == "check"})
    if rows:
        terminalreporter.section("exercise checks")
        for row in [("exercise", "accepted/offered", "rejected/offered"), *rows]:
            terminalreporter.write_line("{:<24}{:>18}{:>18}".format(*row))
