"""The recorded runs: complete, small, what they say they are, and free of traces of the machine that made them."""

import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from course_utils import sweep, training
from course_utils.data import DATA_DIR, load_fashion_mnist
from course_utils.metrics import features_of, frechet_distance
from course_utils.models import SmallClassifier, sample_noise
from course_utils.normalization import METHODS
from course_utils.runs import load_record, make_judge
from course_utils.sweep import plan
from course_utils.training import CURVES, Config, build_models

FOLDER = DATA_DIR / "recorded_runs"
PLAN = plan()


def test_the_folder_holds_the_whole_plan_and_stays_small():
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(PLAN)
    others = {path.name for path in FOLDER.iterdir() if path.suffix != ".npz"}
    assert others == {"judge.pt", "best_generator.pt", "benchmark_cpu.json", "recurrent.json"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10e6


@pytest.mark.parametrize("name", PLAN)
def test_each_record_is_what_its_name_says(name):
    record = load_record(FOLDER / f"{name}.npz")
    about = record.about
    assert record.config == PLAN[name]
    assert about["command"].startswith("python -m course_utils.sweep data/recorded_runs") and about["seconds"] > 0
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


def test_the_sweep_is_methods_times_settings_times_seeds():
    assert {f"{m}-{s}-{seed}" for m in METHODS for s in "ABCDEF" for seed in (0, 1)} <= set(PLAN)
    for name, config in PLAN.items():
        if name != "best" and "ndis" not in name:
            assert config.steps * config.adam.n_dis == 1250 and (config.size, config.width, config.batch_size) == (
                16,
                8,
                32,
            )


def test_the_kept_generator_is_the_recorded_one():
    record = load_record(FOLDER / "best.npz")
    generator = build_models(record.config)[0].eval()
    generator.load_state_dict(torch.load(FOLDER / "best_generator.pt", weights_only=True))
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


def test_the_data_page_names_every_kind_of_file():
    text = (Path(DATA_DIR) / "README.md").read_text()
    for name in ("best.npz", "best_generator.pt", "judge.pt", "benchmark_cpu.json", "METHOD-SETTING-SEED.npz"):
        assert name in text


def test_a_sweep_that_is_stopped_goes_on_with_the_run_it_was_in(tmp_path, monkeypatch, capsys):
    config = Config(width=4, d_z=6, batch_size=4, steps=3)
    data = load_fashion_mnist(16, limit=64)
    monkeypatch.setattr(sweep, "plan", lambda: {"best": config, "none-A-0": config})
    monkeypatch.setattr(sweep, "load_fashion_mnist", lambda size: data)
    folder, work = tmp_path / "records", tmp_path / "work"
    command = ["sweep", str(folder), "--work", str(work)]
    monkeypatch.setattr(sys, "argv", [*command, "--only", "bets"])
    with pytest.raises(SystemExit):
        sweep.main()
    assert "the plan has no bets" in capsys.readouterr().err
    update = training.update_generator

    def stopped(*args):
        signal.raise_signal(signal.SIGINT)
        return update(*args)

    monkeypatch.setattr(sys, "argv", [*command, "--only", "best"])
    monkeypatch.setattr(training, "update_generator", stopped)
    with pytest.raises(SystemExit) as stop:
        sweep.main()
    assert stop.value.code == 130 and (work / "best" / "checkpoint.pt").exists()
    assert [path.name for path in folder.iterdir()] == ["judge.pt"]
    monkeypatch.setattr(training, "update_generator", update)
    sweep.main()
    assert sorted(path.name for path in folder.iterdir()) == ["best.npz", "best_generator.pt", "judge.pt"]
    assert load_record(folder / "best.npz").about["steps_done"] == 3 and not list(work.iterdir())
