"""All tests run in two workers, some of them do not, and what they have recorded is told once at the end."""

import os
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT

SOURCE = pytest.Config.ArgsSource


def plugin(request: pytest.FixtureRequest, name: str) -> object:
    return request.config.pluginmanager.get_plugin(str(ROOT / name))


CALLS = {
    "pytest": ({}, 2),
    "pytest tests/core": ({"args_source": SOURCE.ARGS}, None),
    "in a folder": ({"args_source": SOURCE.INVOCATION_DIR}, None),
    "pytest -s": ({"capture": "no"}, None),
    "pytest --pdb": ({"usepdb": True}, None),
    "pytest --trace": ({"trace": True}, None),
    "pytest -n 0": ({"numprocesses": 0}, 0),
    "pytest -n 4": ({"numprocesses": 4}, 4),
    "in a worker": ({"workerinput": {}}, None),
}


@pytest.mark.parametrize("call", CALLS)
def test_all_tests_run_in_two_workers(call: str, request: pytest.FixtureRequest) -> None:
    change, workers = CALLS[call]
    option = {"usepdb": False, "trace": False, "capture": "fd", "numprocesses": None, "dist": "no", **change}
    places = {"args_source": change.get("args_source", SOURCE.TESTPATHS)} | {
        k: {} for k in change if k == "workerinput"
    }
    config = SimpleNamespace(option=SimpleNamespace(**option), **places)
    plugin(request, "conftest.py").pytest_cmdline_main(config)
    assert config.option.numprocesses == workers
    assert config.option.dist == ("loadfile" if call == "pytest" else "no")


def test_without_the_plugin_all_tests_run_in_this_process(request: pytest.FixtureRequest) -> None:
    config = SimpleNamespace(
        option=SimpleNamespace(usepdb=False, trace=False, capture="fd"), args_source=SOURCE.TESTPATHS
    )
    plugin(request, "conftest.py").pytest_cmdline_main(config)
    assert not hasattr(config.option, "numprocesses")


def test_workers_begin_with_the_longest_files(request: pytest.FixtureRequest) -> None:
    root = plugin(request, "conftest.py")
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("notebooks/0*.ipynb")]
    assert set(root.LONGEST) <= {path.name for path in files}, "a file that is not there"
    items = [SimpleNamespace(path=path, number=i) for path in sorted(files) for i in range(2)]
    before = list(items)
    root.pytest_collection_modifyitems(SimpleNamespace(), items)
    assert items == before
    root.pytest_collection_modifyitems(SimpleNamespace(workerinput={}), items)
    assert [item.path.name for item in items[: 2 * len(root.LONGEST) : 2]] == list(root.LONGEST)
    assert sorted(items, key=lambda item: (str(item.path), item.number)) == before
    assert all(a.path == b.path and b.number == 1 for a, b in zip(items[::2], items[1::2]))


def test_one_thread_unless_you_ask_for_more() -> None:
    """torch is there before the settings: a second thread would only wait, busily, where another program computes."""
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_what_was_recorded_is_told_once(request: pytest.FixtureRequest) -> None:
    def report(when: str, file: str, *properties: tuple) -> SimpleNamespace:
        return SimpleNamespace(when=when, location=(file, 1, ""), user_properties=list(properties))

    lines = []
    one, other = ("check", ["1.1", "2/2", "4/4"]), ("check", ("1.2", "3/3", "5/5"))
    reports = [
        report("call", "b.py", ("browser", "second")),
        report("call", "a.py", one),
        report("call", "a.py", other),
    ]
    reports += [report("teardown", "a.py", one), report("call", "a.py", ("browser", "first"))]
    terminal = SimpleNamespace(
        stats={
            "passed": reports,
            "failed": [report("call", "b.py", ("browser", "third"))],
            "deselected": [request.node],
        },
        section=lines.append,
        write_line=lines.append,
    )
    plugin(request, "tests/conftest.py").pytest_terminal_summary(terminal)
    table, browser = lines[: lines.index("in the browser")], lines[lines.index("in the browser") :]
    assert table[0] == "exercise checks" and [row.split()[0] for row in table[2:]] == ["1.1", "1.2"]
    assert browser[1:] == ["first", "second", "third"]
