"""Parametrizes ``test_exercise`` by the CASES of each file."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = metafunc.module.CASES
        metafunc.parametrize("case", cases, ids=[case.id for case in cases])
