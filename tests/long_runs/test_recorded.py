"""The recorded runs: complete, small, what they say they are, and free of traces of the machine that made them."""

import collections
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from course_utils import training
from course_utils.data import DATA_DIR, load_fashion_mnist
from course_utils.long_runs import record_plan
from course_utils.long_runs.benchmark import NETWORKS, VERSIONS
from course_utils.methods import METHODS
from course_utils.metrics import features_of, frechet_distance
from course_utils.models import SmallClassifier, sample_noise
from course_utils.records import load_record, make_judge
from course_utils.training import CURVES, SETTINGS, Config, build_models

FOLDER = DATA_DIR / "recorded_runs"
PLAN = record_plan.table()
LONG_PLAN = {name: config for name, config in record_plan.plan().items() if name not in PLAN}
LONG = sorted(FOLDER.glob("*/*.npz"))  # as many as there are until now


def test_the_folder_holds_the_whole_plan_and_stays_small():
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(PLAN)
    others = {path.name for path in FOLDER.iterdir() if path.suffix != ".npz" and path.is_file()}
    assert others == {
        "judge.pt",
        "benchmark_cpu.json",
        "benchmark_layers.json",
        "PLAN.md",
        "COMMIT",
        "recurrent.json",
        "average.json",
    }
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 12e6


@pytest.mark.parametrize("record", LONG, ids=lambda path: path.stem)
def test_each_long_run_is_what_the_plan_says(record):
    name = record.relative_to(FOLDER).with_suffix("").as_posix()
    made = load_record(record)
    about, frozen = made.about, (FOLDER / "COMMIT").read_text().strip()
    assert made.config == LONG_PLAN[name] and about["commit"] == frozen and about["loop"] == "plain float32 loop"
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr)\b", json.dumps(about)) and about["seconds"] > 0
    if "diverged" not in about:
        steps = made.config.steps
        assert about["steps_done"] == steps and made["step"].tolist() == [round(steps * k / 10) for k in range(11)]
        assert np.isfinite(made["distance"]).all() and (made["distance"] > 0).all()
        assert (made["classes"].sum(1) == 2000).all() and made["images"].shape[1:] == (16, 1, 16, 16)
        for share in ("precision", "recall"):
            assert (made[share] >= 0).all() and (made[share] <= 1).all()


def test_long_runs_leave_nothing_behind_but_what_the_plan_names():
    generators = {f"{name}_generator" for name in LONG_PLAN if name.startswith("pictures/") and name.endswith("-0")}
    for path in FOLDER.glob("*/*"):
        assert path.relative_to(FOLDER).with_suffix("").as_posix() in LONG_PLAN.keys() | generators


def test_the_long_plan_is_the_one_that_its_page_describes():
    found = collections.Counter(name.split("/")[0] for name in LONG_PLAN)
    rows = re.findall(r"^\| `(\w+)/` \|.*\| (\d+) \|$", (FOLDER / "PLAN.md").read_text(), re.MULTILINE)
    assert found == {name: int(count) for name, count in rows}
    for name, config in LONG_PLAN.items():
        folder, label = name.split("/")
        assert label.startswith(f"{config.method}-") and label.endswith(f"-{config.seed}"), name
        if config.method == "weight_clipping" and "_c0.01" not in name:
            assert config.c * config.width == pytest.approx(0.64)  # 0.01 at the paper's width of 64
        if folder == "length":
            assert config.steps == 5000 and config.setting in SETTINGS


def test_a_long_run_that_was_stopped_goes_on_and_keeps_what_belongs(tmp_path, monkeypatch, capsys):
    config = Config("weight_norm", width=4, d_z=6, batch_size=4, steps=20)
    data = load_fashion_mnist(16, limit=300)
    names = ("pictures/weight_norm-0", "step/weight_norm-0", "weight_norm-0")
    monkeypatch.setattr(record_plan, "plan", lambda: dict.fromkeys(names, config))
    monkeypatch.setattr(record_plan, "load_fashion_mnist", lambda size: data)
    folder, work = tmp_path / "records", tmp_path / "work"
    monkeypatch.setattr(sys, "argv", ["record_plan", str(folder), "--work", str(work)])
    iteration, calls = training.iteration, []

    def stopped(*args):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return iteration(*args)

    monkeypatch.setattr(training, "iteration", stopped)
    with pytest.raises(SystemExit):
        record_plan.main([str(folder), "--only", "step/", "spectral"])
    assert "no run's name begins with spectral; --list" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        record_plan.main()
    assert stop.value.code == 130 and (work / "pictures-weight_norm-0" / "checkpoint.pt").exists()
    record_plan.main()
    pictures, step, table = (load_record(folder / f"{name}.npz") for name in names)
    assert len(pictures["images"]) == 11 and len(step["images"]) == 1  # the others keep their last look only
    assert len(table["images"]) == len(table["step"]) == 6  # a name without a folder: a run of the table
    for name in ("distance", "d_loss", "recall"):
        np.testing.assert_array_equal(pictures[name], step[name])  # stopped and resumed against never stopped
    assert (folder / "pictures" / "weight_norm-0_generator.pt").exists() and not list(work.iterdir())


@pytest.mark.parametrize("name", PLAN)
def test_each_record_is_what_its_name_says(name):
    record = load_record(FOLDER / f"{name}.npz")
    about = record.about
    assert record.config == PLAN[name]
    assert (
        re.match(r"python -m course_utils(\.sweep| sweep| record) data/recorded_runs", about["command"])
        and about["seconds"] > 0
    )
    assert {"torch", "Python"} <= set(about["environment"]) and "threads" in about["environment"]["device"]
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr)\b", json.dumps(about))
    if "diverged" not in about:
        assert about["steps_done"] == record.config.steps == record["step"][-1] and len(record["step"]) == 6
        for curve in CURVES:
            assert len(record[curve]) == len(record["curve_step"]) and np.isfinite(record[curve]).all()
        assert np.isfinite(record["distance"]).all() and (record["score"] >= 1).all() and (record["score"] <= 10).all()
        assert record["images"].shape == (6, 16, 1, 16, 16)
    if record.config.method == "spectral_norm":
        sigma = np.array([record[f"singular_values_{k}"][:, 0] for k in range(about["layers"])])
        assert (sigma > 1 - 1e-4).all() and (sigma < 1.6).all()
    if record.config.method == "weight_norm":
        for k in range(about["layers"]):  # equation (13): the squares add up to the number of rows
            squares = (record[f"singular_values_{k}"] ** 2).sum(1)
            np.testing.assert_allclose(squares, squares.round(), rtol=1e-4)


def test_the_table_is_methods_times_settings_times_seeds():
    assert list(record_plan.plan())[: len(PLAN)] == list(PLAN)  # made first
    assert {f"{m}-{s}-{seed}" for m in METHODS for s in "ABCDEF" for seed in (0, 1)} <= set(PLAN)
    for name, config in PLAN.items():
        if "ndis" not in name:
            assert config.steps * config.adam.n_dis == 1250 and (config.size, config.width, config.batch_size) == (
                16,
                8,
                32,
            )


@pytest.mark.parametrize("method", ["none", "spectral_norm", "weight_norm", "wgan_gp"])
def test_a_kept_generator_is_the_recorded_one(method):
    record = load_record(FOLDER / f"pictures/{method}-0.npz")
    generator = build_models(record.config)[0].eval()
    generator.load_state_dict(torch.load(FOLDER / f"pictures/{method}-0_generator.pt", weights_only=True))
    classifier = SmallClassifier().eval()
    classifier.load_state_dict(torch.load(FOLDER / "judge.pt", weights_only=True))
    judge = make_judge(load_fashion_mnist(16), classifier)
    with torch.no_grad():
        samples = generator(sample_noise(judge.n_samples, 128, torch.Generator().manual_seed(1)))
    assert (samples[:16].add(1).mul(127.5) - torch.from_numpy(record["images"][-1])).abs().max() < 1.5
    found = frechet_distance(judge.real_features, features_of(classifier, samples))
    assert found == pytest.approx(float(record["distance"][-1]), rel=0.01)


def test_the_recorded_benchmark_compares_every_method():
    result = json.loads((FOLDER / "benchmark_cpu.json").read_text())
    assert set(METHODS) <= set(result["images_per_second"]) and result["time_over_none"]["none"] == 1
    assert result["rounds"] >= 9 and {"torch", "device"} <= set(result["environment"])


def test_the_recorded_versions_of_sn():
    """What the fused layer was made for; counts are checked against a run of today in test_fast.py."""
    result = json.loads((FOLDER / "benchmark_layers.json").read_text())
    assert list(result["steps"]) == list(NETWORKS) and result["rounds"] >= 30
    for name, most in (("dense 4608 -> 512", 0.5), ("MLP 1024-1024-1", 0.65)):
        assert result["steps"][name]["overhead_over_torchs"]["fused"] <= most
    for step in result["steps"].values():
        assert set(step["time_over_none"]) == set(VERSIONS)
        assert step["operations"]["fused"] < step["operations"]["torch's"] < step["operations"]["from scratch"]
    for count in result["iterations"].values():
        assert count["spectral_norm, bfloat16"] <= 1.5 * count["none, bfloat16"]
        assert count["spectral_norm, one pass"] <= 1.5 * count["none"]


def test_the_data_page_names_every_kind_of_file():
    text = (Path(DATA_DIR) / "README.md").read_text()
    for name in (
        "judge.pt",
        "benchmark_cpu.json",
        "benchmark_layers.json",
        "METHOD-SETTING-SEED.npz",
    ):
        assert name in text
