"""average_records.py: averages are what the formula says, leave the run alone, and the record holds what lecture 05 reads."""

import copy
import json
import re

import pytest
import torch
from helpers import TINY, images

from course_utils.data import DATA_DIR
from course_utils.long_runs import average_records
from course_utils.long_runs.average_records import PARTS, average_of, averaged_run, distance_of
from course_utils.models import SmallClassifier
from course_utils.records import Judge
from course_utils.training import Config, Setting, train

NETWORKS = {"G", "0.9", "0.99", "0.999", "buffers averaged", "recomputed", "initial"}
RECORD = json.loads((DATA_DIR / "recorded_runs" / "average.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge(SmallClassifier().eval(), torch.randn(200, 64), n_samples=80)


def test_an_average_is_that_of_the_formula_from_the_first_update_on_and_its_buffers_are_the_last():
    config, states = Config(**{**TINY, "steps": 5}), []
    average = None

    def beside(step, run):
        nonlocal average
        average = average or average_of(run.generator, 0.75)
        if step:
            average.update_parameters(run.generator)
            states.append(copy.deepcopy(run.generator.state_dict()))

    run = train(config, images(), beside)
    for name, _ in run.generator.named_parameters():
        expected = states[0][name]
        for state in states[1:]:
            expected = 0.75 * expected + 0.25 * state[name]
        torch.testing.assert_close(average.module.get_parameter(name), expected)
    for name, buffer in average.module.named_buffers():
        assert torch.equal(buffer, states[-1][name])


def test_a_run_is_the_same_with_averages_beside_it_and_each_look_has_all_distances(judge):
    config = Config(setting=Setting(0.05, 0.5, 0.9, 1), **{**TINY, "steps": 6})  # steps so large that averages differ
    alone = train(config, images())
    found = averaged_run(config, images(), judge, looks=2)
    assert set(found) == NETWORKS
    assert all(len(values) == 2 for values in found.values())
    assert found["G"][-1] == pytest.approx(distance_of(alone.generator.eval(), config.d_z, judge), abs=6e-4)
    assert len({values[-1] for values in found.values()}) == len(found)  # seven different networks


@pytest.mark.parametrize("name", PARTS)
def test_the_record_is_complete_and_free_of_traces(name):
    (steps, methods, seeds), part = PARTS[name], RECORD[name]
    assert set(part["runs"]) == {f"{method}-{seed}" for method in methods for seed in seeds}
    assert part["step"] == [steps * k // 10 for k in range(1, 11)] and part["decays"] == list(average_records.DECAYS)
    assert part["config"]["setting"] == "D" and part["config"]["steps"] == steps and part["config"]["width"] == 8
    for run in part["runs"].values():
        assert set(run) == NETWORKS and all(len(values) == 10 and min(values) > 0 for values in run.values())
    assert re.fullmatch("[0-9a-f]{40}", part["commit"]) and part["cpu_seconds"] > 0
    assert part["command"].startswith("python -m course_utils average")
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr)\b", json.dumps(part))


def test_a_part_that_is_there_is_not_made_again(tmp_path, monkeypatch, judge):
    made = []
    monkeypatch.setattr(average_records, "the_judge", lambda data, path: judge)
    monkeypatch.setattr(average_records, "make_part", lambda name, images, judge: made.append(name) or {"step": []})
    (tmp_path / "a.json").write_text('{"short": {"step": [1]}}')
    for _ in range(2):
        average_records.main([str(tmp_path / "a.json")])
    assert made == ["long"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"short": {"step": [1]}, "long": {"step": []}}
