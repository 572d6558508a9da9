"""Runs on disk: checkpoints that resume bit by bit, files written whole or not at all, records that can be read again."""

import dataclasses
import functools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, assert_same, images

from course_utils import training
from course_utils.environment import PROFILES
from course_utils.long_runs import command_line, folder
from course_utils.long_runs.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from course_utils.long_runs.command_line import configuration, main, parser
from course_utils.long_runs.datasets import load_images
from course_utils.long_runs.fast import fast_updates
from course_utils.long_runs.files import reserved, written_whole
from course_utils.long_runs.folder import train_in_folder
from course_utils.long_runs.recording import make_record, measure
from course_utils.models import SmallClassifier
from course_utils.records import Judge, RunError, load_record
from course_utils.spectral import spectra
from course_utils.training import AUTHORS, Config, Run, Setting, Updates, train, update_generator

TINY = {**TINY, "steps": 6}


def judge():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = SmallClassifier().eval()
    return Judge(classifier, torch.randn(200, 64, generator=torch.Generator().manual_seed(1)), n_samples=100)


# ---- checkpoints


@pytest.mark.parametrize("method", ["spectral_norm", "wgan_gp", "batch_norm", "spectral_norm_gain"])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_ends_as_one_never_interrupted(method, stop, tmp_path):
    config = Config(method, Setting(1e-3, 0.5, 0.9, 2), decay=True, **TINY)
    whole = train(config, images())
    half = train(config, images(), lambda step, run: step == stop)
    assert half.step == stop
    half.seconds = 100.0
    save_checkpoint(half, tmp_path / "c.pt", {"note": "kept"})
    resumed, extra = load_checkpoint(tmp_path / "c.pt", config)
    assert extra == {"note": "kept"} and resumed.step == stop and resumed.seconds == half.seconds
    train(config, images(), run=resumed)
    assert 100 < resumed.seconds < 200
    save_checkpoint(whole, tmp_path / "whole.pt")
    save_checkpoint(resumed, tmp_path / "resumed.pt")
    assert_same(
        read_checkpoint(tmp_path / "whole.pt") | {"extra": 0}, read_checkpoint(tmp_path / "resumed.pt") | {"extra": 0}
    )


def test_a_checkpoint_carries_buffers_and_random_state(tmp_path):
    run = train(Config(**TINY), images())
    save_checkpoint(run, tmp_path / "c.pt")
    state = read_checkpoint(tmp_path / "c.pt")
    assert any(name.endswith("_u") for name in state["discriminator"])
    assert any(name.endswith("running_mean") for name in state["generator"])
    assert torch.equal(state["rng"], run.rng.get_state()) and state["curves"].shape == (4, 6)
    assert state["adam_d"]["state"] and state["config"] == dataclasses.asdict(run.config)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named(share, tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(Run.start(Config(**TINY)), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match=r"c\.pt is damaged \(truncated, or not a checkpoint\)"):
        load_checkpoint(path)


def test_a_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(Run.start(Config(**TINY)), path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda item: item.file_size)
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="checksum"):
        load_checkpoint(path)


def test_other_files_are_no_checkpoints(tmp_path):
    with pytest.raises(RunError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"step": 3}, tmp_path / "other.pt")
    with pytest.raises(RunError, match="no checkpoint of this course: it lacks adam_d, .*rng"):
        load_checkpoint(tmp_path / "other.pt")
    torch.save(SmallClassifier(), tmp_path / "code.pt")  # a pickled object: reading it would run code
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path / "code.pt")
    torch.save(3, tmp_path / "three.pt")
    with pytest.raises(RunError, match="no checkpoint of this course: it lacks .*extra.*seconds"):
        load_checkpoint(tmp_path / "three.pt")
    save_checkpoint(Run.start(Config(**TINY)), tmp_path / "c.pt")
    state = read_checkpoint(tmp_path / "c.pt")
    for changed, message in [
        ({"config": {"depth": 3}}, "configuration that this version does not know: .*depth"),
        ({"config": {**state["config"], "width": 5}}, "does not fit the networks"),
        ({"rng": torch.zeros(3)}, "does not fit"),
    ]:
        torch.save(state | changed, tmp_path / "changed.pt")
        with pytest.raises(RunError, match=message):
            load_checkpoint(tmp_path / "changed.pt")


def test_a_checkpoint_of_another_configuration_names_what_differs(tmp_path):
    save_checkpoint(Run.start(Config(**TINY)), tmp_path / "c.pt")
    with pytest.raises(RunError, match=r"it has method 'spectral_norm' \(asked for: 'none'\), seed 0 \(asked for: 3\)"):
        load_checkpoint(tmp_path / "c.pt", Config("none", seed=3, **TINY))


def elsewhere(path):
    """Make the checkpoint at `path` one of a GPU: its generator's state has 16 bytes, its Adam is fused."""
    state = torch.load(path, weights_only=True)
    state["rng"] = torch.zeros(16, dtype=torch.uint8)
    for part in ("adam_g", "adam_d"):
        for group in state[part]["param_groups"]:
            group["fused"] = True
    torch.save(state, path)


def test_a_run_of_a_gpu_can_be_looked_at_on_a_cpu_but_not_resumed(tmp_path):
    config = Config("spectral_norm", **TINY)
    run = train_in_folder(config, images(), tmp_path, progress=0)
    path = tmp_path / "checkpoint.pt"
    elsewhere(path)
    before = path.read_bytes()
    loaded, _ = load_checkpoint(path, config)
    assert loaded.step == 6 and loaded.begun_on == "a GPU" and loaded.curve("d_loss") == run.curve("d_loss")
    assert torch.equal(loaded.sample(3), run.sample(3))
    for name, values in spectra(run.discriminator).items():
        assert torch.equal(spectra(loaded.discriminator)[name], values)
    assert measure(loaded, judge())["distance"] == measure(run, judge())["distance"]
    reason = "begun on a GPU, and here is a CPU, whose random numbers are others: to go on would be another run"
    with pytest.raises(ValueError, match=reason):
        train(config, images(), run=loaded)
    with pytest.raises(ValueError, match=reason):
        save_checkpoint(loaded, path)
    longer = dataclasses.replace(config, steps=9)
    for asked in (config, longer):
        with pytest.raises(RunError, match=reason):
            train_in_folder(asked, images(), tmp_path, resume=True, progress=0)
    assert path.read_bytes() == before


def test_a_random_state_of_no_device_is_damage(tmp_path):
    save_checkpoint(Run.start(Config(**TINY)), tmp_path / "c.pt")
    state = read_checkpoint(tmp_path / "c.pt")
    for rng in (torch.zeros(3, dtype=torch.uint8), torch.zeros(16)):
        torch.save(state | {"rng": rng}, tmp_path / "c.pt")
        with pytest.raises(RunError, match="does not fit"):
            load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("first", [6, 4])
def test_a_run_is_made_longer(first, tmp_path):
    """As if it had been asked for all updates from the start, whether it was finished or stopped before."""
    config, longer = Config(**TINY), Config(**{**TINY, "steps": 10})
    whole = train(longer, images())
    train(config, images(), lambda step, run: step == first and bool(save_checkpoint(run, tmp_path / "c.pt")))
    if first == 6:
        train_in_folder(config, images(), tmp_path / "run", n_measurements=3, progress=0)
        run = train_in_folder(longer, images(), tmp_path / "run", resume=True, n_measurements=3, progress=0)
        record = load_record(tmp_path / "run" / "record.npz")
        assert record["step"].tolist() == [0, 3, 6, 10] and record.config == longer
        assert record.about["steps_done"] == 10
    else:
        run = train(longer, images(), run=load_checkpoint(tmp_path / "c.pt", longer)[0])
    assert torch.equal(run.curves, whole.curves) and torch.equal(run.sample(3), whole.sample(3))


def test_what_forbids_a_longer_run_is_named(tmp_path):
    path, decaying = tmp_path / "c.pt", Config(decay=True, **TINY)
    save_checkpoint(Run.start(decaying), path)
    with pytest.raises(
        RunError, match=r"it has steps 6 \(asked for: 9\); with decay the step size hangs on the number"
    ):
        load_checkpoint(path, dataclasses.replace(decaying, steps=9))
    save_checkpoint(Run.start(Config(**TINY)), path)
    for other, message in [({"steps": 3}, r"steps 6 \(asked for: 3\)$"), ({"steps": 9, "seed": 1}, "seed 0")]:
        with pytest.raises(RunError, match=message):
            load_checkpoint(path, Config(**{**TINY, **other}))


def test_nan_never_replaces_a_good_checkpoint(tmp_path):
    run = train(Config(**TINY), images())
    save_checkpoint(run, tmp_path / "c.pt")
    good = (tmp_path / "c.pt").read_bytes()
    run.curves[0, 2] = math.nan
    with pytest.raises(FloatingPointError, match="diverged at step 3: D's loss nan"):
        save_checkpoint(run, tmp_path / "c.pt")
    assert (tmp_path / "c.pt").read_bytes() == good and len(list(tmp_path.iterdir())) == 1


def test_what_fails_halfway_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    for error, expected in (
        (OSError(28, "No space left on device"), RunError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with pytest.raises(expected):
            with written_whole(path) as file:
                file.write(b"half of the n")
                raise error
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are a matter of Unix")
def test_a_full_disk_is_named_and_the_last_checkpoint_kept(tmp_path):
    """A real write that breaks off: the operating system allows files of 20 kB only."""
    import resource

    path, run = tmp_path / "c.pt", Run.start(Config(width=4, d_z=6))
    save_checkpoint(run, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match=r"c\.pt could not be written .*the previous one is kept"):
            save_checkpoint(run, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path)[0].step == 0 and list(tmp_path.iterdir()) == [path]


def test_a_weight_that_is_not_finite_never_replaces_a_good_checkpoint(tmp_path):
    """G's last step may spoil its weights though both losses were finite."""
    run = train(Config(**TINY), images())
    with torch.no_grad():
        run.generator[0].weight[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match=r"diverged at step 6: 0\.weight of the generator is no longer finite"):
        save_checkpoint(run, tmp_path / "c.pt")
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"cannot be the folder of a run"):
            train_in_folder(Config(**TINY), images(), place, progress=0)
        with pytest.raises(RunError, match="could not be written .*there is no previous one"):
            save_checkpoint(Run.start(Config(**TINY)), place / "c.pt")


# ---- measurements and records


def test_measure_tells_of_samples_and_of_the_weights_in_use():
    run = train(Config("spectral_norm", **TINY), images())
    state = [value.clone() for value in run.discriminator.state_dict().values()]
    row = measure(run, judge(), n_images=5)
    assert all(torch.equal(a, b) for a, b in zip(state, run.discriminator.state_dict().values()))
    assert row["images"].shape == (5, 1, 16, 16) and row["images"].dtype == torch.uint8 and row["distance"] > 0
    back = row["images"].float() / 127.5 - 1
    assert (back - run.sample(100, seed=1)[:5]).abs().max() < 1 / 127
    for k, expected in enumerate(spectra(run.discriminator).values()):
        found = row[f"singular_values_{k}"]
        torch.testing.assert_close((found / found[0]).square(), expected, rtol=1e-4, atol=1e-6)
        assert found[0] == pytest.approx(1, abs=0.2)
    without = measure(run, None)
    assert "distance" not in without
    with torch.no_grad():
        run.generator[-2].bias.fill_(math.nan)
    spoilt = measure(run, judge(), n_images=5)
    assert spoilt["distance"].isnan() and spoilt["score"].isnan()
    early = {name: value for name, value in row.items() if name in without}  # from the time before there was a judge
    record = make_record(run, [early, row, spoilt], judge(), "test", "plain float32 loop")
    assert record["distance"][1] == row["distance"] and np.isnan(record["distance"][[0, 2]]).all()


def test_a_run_in_a_folder_leaves_checkpoint_record_and_samples(tmp_path, capsys):
    config = Config("weight_norm", "D", **TINY)
    run = train_in_folder(config, images(), tmp_path, judge(), n_measurements=4, checkpoint_every=4, progress=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint.pt", "record.npz", "samples.png"]
    record = load_record(tmp_path / "record.npz")
    assert record.config == config and record.about["steps_done"] == 6 and "diverged" not in record.about
    assert record["step"].tolist() == [0, 2, 4, 6] and record["distance"].shape == record["score"].shape == (4,)
    np.testing.assert_allclose(record["d_loss"], run.curve("d_loss"), rtol=1e-6)
    assert record["curve_step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(record.spectra()) == record.about["layers"] == 6
    np.testing.assert_allclose(record.spectra()[2], list(spectra(run.discriminator).values())[2], rtol=1e-4, atol=1e-6)
    for key in ("command", "environment", "description", "seconds", "finished", "judge"):
        assert record.about[key]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[0].startswith("update 1 of 6") and "per second" in lines[0]
    assert "0:00 left; losses D" in lines[-1]
    with pytest.raises(KeyError, match="the record has no 'fid'; it has curve_step, d_loss"):
        record["fid"]


def test_long_curves_are_averaged_over_stretches():
    run = Run.start(Config(**{**TINY, "steps": 10}))
    run.curves[0], run.step = torch.arange(10.0), 9
    record = make_record(run, [], None, "test", "plain float32 loop", n_points=3)
    assert record["d_loss"].tolist() == [1, 4, 7] and record["curve_step"].tolist() == [3, 6, 9]
    assert record.about["curve_mean_over"] == 3


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    train_in_folder(Config(**TINY), images(), tmp_path, progress=0)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(RunError, match="holds a run already: resume it, or choose another folder"):
        train_in_folder(Config(**TINY), images(), tmp_path, progress=0)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    with pytest.raises(RunError, match="belongs to a run on other images"):
        train_in_folder(Config(**TINY), images().flip(0), tmp_path, resume=True, progress=0)
    with pytest.raises(RunError, match=r"other images \(of 32, here 31\)"):
        train_in_folder(Config(**TINY), images()[:31], tmp_path, resume=True, progress=0)
    with pytest.raises(RunError, match="there is no checkpoint"):
        train_in_folder(Config(**TINY), images(), tmp_path / "new", resume=True)


def test_two_processes_do_not_share_a_folder(tmp_path):
    with reserved(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(RunError, match="another process is training in .*run; wait for it, or choose another"):
                train_in_folder(Config(**TINY), images(), tmp_path / "run", resume=resume, progress=0)
        train_in_folder(Config(**TINY), images(), tmp_path / "other", progress=0)
    train_in_folder(Config(**TINY), images(), tmp_path / "run", progress=0)  # free again


def test_numbers_out_of_range_are_named_before_anything_is_written(tmp_path):
    for options, message in [
        ({"n_measurements": 1}, "n_measurements must be a whole number, 2 or more, got 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number, 1 or more, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            train_in_folder(Config(**TINY), images(), tmp_path / "x", progress=0, **options)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_is_written_first_and_the_record_can_be_made_from_it(tmp_path, monkeypatch, capsys):
    config, save = Config(**TINY), folder.save_record

    def fail_at_the_end(record, path):
        if record.about["steps_done"] == 6:
            raise RunError("no room for the record")
        save(record, path)

    monkeypatch.setattr(folder, "save_record", fail_at_the_end)
    with pytest.raises(RunError, match="no room"):
        train_in_folder(config, images(), tmp_path, judge(), progress=0)
    monkeypatch.undo()
    before = read_checkpoint(tmp_path / "checkpoint.pt")
    assert before["step"] == 6 and load_record(tmp_path / "record.npz").about["steps_done"] == 5
    for name in ("record.npz", "samples.png"):
        (tmp_path / name).unlink()
    for name in ("checkpoint.pt", "record.npz", "samples.png"):
        (tmp_path / f".{name}-123").write_text("half")  # of a process that was killed
    capsys.readouterr()
    run = train_in_folder(config, images(), tmp_path, judge(), resume=True, progress=0)
    assert "holds all 6 updates; nothing is left to do" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint.pt", "record.npz", "samples.png"]
    assert load_record(tmp_path / "record.npz")["d_loss"].tolist() == run.curve("d_loss")
    assert_same(before, read_checkpoint(tmp_path / "checkpoint.pt"))


def test_a_run_resumed_with_other_measurements_in_a_folder_that_was_deleted(tmp_path):
    folder, config = tmp_path / "run", Config(**TINY)

    def interrupted(*args):
        signal.raise_signal(signal.SIGTERM)
        return training.update_generator(*args)

    train_in_folder(config, images(), folder, progress=0, updates=Updates(training.update_discriminator, interrupted))

    def deleted(*args):
        for file in folder.iterdir() if folder.exists() else ():
            file.unlink()
        if folder.exists():
            folder.rmdir()
        return training.update_generator(*args)

    updates = Updates(training.update_discriminator, deleted)
    train_in_folder(config, images(), folder, resume=True, n_measurements=3, progress=0, updates=updates)
    record = load_record(folder / "record.npz")
    assert record["step"].tolist() == [0, 1, 3, 6] and len(record["images"]) == 4 and record.about["steps_done"] == 6


def test_a_run_goes_on_only_with_the_loop_that_it_began_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    torch.save(pixels(), tmp_path / "images.pt")
    train_in_folder(Config(**TINY), images(), tmp_path / "plain", progress=0)
    assert load_record(tmp_path / "plain" / "record.npz").about["loop"] == "plain float32 loop"
    with pytest.raises(
        RunError, match="made by the plain float32 loop; to go on with the fast bfloat16 loop would be another run"
    ):
        updates = fast_updates(Config(**TINY), "bfloat16")
        train_in_folder(Config(**TINY), images(), tmp_path / "plain", resume=True, progress=0, updates=updates)
    main(arguments(tmp_path, "fast", "--steps", 2, "--precision", "bfloat16"))
    assert load_record(tmp_path / "fast" / "record.npz").about["loop"] == "fast bfloat16 loop"
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, "fast", "--steps", 2, "--resume"))
    assert "was made by the fast bfloat16 loop; to go on with the plain float32 loop" in capsys.readouterr().err


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch, capsys):
    def broken(graph, inputs):
        raise OSError("no compiler\nand a long report")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    torch.save(pixels(), tmp_path / "images.pt")
    with pytest.raises(SystemExit) as stop:
        main(arguments(tmp_path, "run", "--steps", 2, "--compile"))
    shown = capsys.readouterr().err
    assert stop.value.code == 1 and "error: torch.compile failed (" in shown and "no compiler" in shown
    assert "long report" not in shown and "Traceback" not in shown


def test_a_run_that_diverges_keeps_the_last_good_checkpoint_and_says_so(tmp_path, monkeypatch):
    calls = []

    def sometimes(fake, loss):
        calls.append(1)
        return fake.mean() * (math.nan if len(calls) == 5 else 1)

    monkeypatch.setattr(training, "generator_loss", sometimes)
    with pytest.raises(FloatingPointError, match="diverged at step 5"):
        train_in_folder(Config(**TINY), images(), tmp_path, checkpoint_every=2, progress=0)
    assert load_checkpoint(tmp_path / "checkpoint.pt")[0].step == 4
    assert "diverged at step 5" in load_record(tmp_path / "record.npz").about["diverged"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text"])
def test_a_damaged_record_is_named(content, tmp_path):
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"r\.npz is not a record that can be read"):
        load_record(tmp_path / "r.npz")


def test_records_hold_no_code(tmp_path):
    np.savez(tmp_path / "r.npz", about=np.array(json.dumps({})), bad=np.array([{}], dtype=object))
    with pytest.raises(RunError, match="allow_pickle"):
        load_record(tmp_path / "r.npz")


def test_the_stop_button_ends_after_the_update_and_keeps_everything(tmp_path, capsys):
    def with_interrupt(*args):
        signal.raise_signal(signal.SIGINT)
        return update_generator(*args)

    config = Config(**TINY)
    handler, terminate = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopping = Updates(generator=with_interrupt)
    run = train_in_folder(config, images(), tmp_path, judge(), n_measurements=2, progress=0, updates=stopping)
    assert run.step == 1 and "stopped after update 1 of 6" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler and signal.getsignal(signal.SIGTERM) is terminate
    assert load_record(tmp_path / "record.npz").about["steps_done"] == 1
    resumed = train_in_folder(config, images(), tmp_path, judge(), resume=True, n_measurements=2, progress=0)
    whole = train_in_folder(config, images(), tmp_path / "whole", judge(), n_measurements=2, progress=0)
    assert resumed.curve("d_loss") == whole.curve("d_loss")
    assert_same(read_checkpoint(tmp_path / "checkpoint.pt"), read_checkpoint(tmp_path / "whole" / "checkpoint.pt"))


def test_a_second_ctrl_c_breaks_off_at_once_and_keeps_the_last_checkpoint(tmp_path, monkeypatch, capsys):
    calls = []

    def impatient(*args):
        calls.append(1)
        for _ in range(2 if len(calls) == 4 else 0):
            signal.raise_signal(signal.SIGINT)
        return update_generator(*args)

    monkeypatch.setattr(command_line, "PLAIN", Updates(generator=impatient))
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    torch.save(pixels(), tmp_path / "images.pt")
    with pytest.raises(SystemExit) as stop:
        main(arguments(tmp_path, "run", "--steps", 6, "--measurements", 2, "--checkpoint-every", 2))
    assert stop.value.code == 130 and "broken off" in capsys.readouterr().err and len(calls) == 4
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")[0].step == 2


# ---- the command line, killed and resumed


def pixels():
    return images().add(1).mul(127.5).to(torch.uint8)


def arguments(folder, name, *more):
    tiny = ["--width", "4", "--batch-size", "8", "--profile", "cpu"]
    return [*tiny, "--data", str(folder / "images.pt"), "--output", str(folder / name), *map(str, more)]


def start(folder, *more):
    """The command line in a process of its own, in a folder that hides Jupyter and matplotlib from it."""
    for name in ("IPython", "ipywidgets", "jupyterlab", "nbformat", "matplotlib"):
        (folder / f"{name}.py").write_text("raise ImportError('not needed for training')")
    return subprocess.Popen(
        [sys.executable, "-m", "course_utils", "train", *arguments(folder, *more)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def kill_and_resume(folder, kills, steps, seed=0):
    """Kill a run `kills` times at random moments, resume it each time, and compare it with one that was left alone.

    Before the last resumption it is stopped with Ctrl-C.
    """
    torch.save(pixels(), folder / "images.pt")
    options = ["--setting", "D", "--steps", steps, "--checkpoint-every", 1]
    main(arguments(folder, "whole", *options))
    checkpoint, moments = folder / "killed" / "checkpoint.pt", random.Random(seed)
    for _ in range(kills):
        process = start(folder, "killed", *options, *(["--resume"] if checkpoint.exists() else []))
        process.stdout.readline()  # the line that says what is trained: from now on files are written
        time.sleep(moments.uniform(0, 1.2))
        process.kill()
        finish(process)
    process = start(folder, "killed", *options, *(["--resume"] if checkpoint.exists() else []))
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, out, error = finish(process)
    assert code == 0 and not error, error
    stopped = load_checkpoint(checkpoint)[0].step
    assert f"stopped after update {stopped} of {steps}" in out or stopped == steps
    main(arguments(folder, "killed", *options, "--resume"))
    assert_same(read_checkpoint(folder / "whole" / "checkpoint.pt"), read_checkpoint(checkpoint))
    whole, killed = (load_record(folder / name / "record.npz").arrays for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and all(np.array_equal(whole[name], killed[name]) for name in whole)
    assert sorted(p.name for p in (folder / "killed").iterdir()) == [
        ".lock",
        "checkpoint.pt",
        "record.npz",
        "samples.png",
    ]
    return stopped


def test_killed_at_random_moments_nothing_is_lost_and_ctrl_c_in_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert kill_and_resume(tmp_path, kills=2, steps=60) > 0


def test_labelled_images_of_ones_own_are_judged_the_others_not(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    torch.save(pixels(), tmp_path / "images.pt")
    main(arguments(tmp_path, "unlabelled", "--steps", 2))
    sorted_by_label = {"images": pixels(), "labels": torch.arange(32) // 4}
    torch.save(sorted_by_label, tmp_path / "images.pt")
    main(arguments(tmp_path, "labelled", "--steps", 2))
    assert "distance" not in load_record(tmp_path / "unlabelled" / "record.npz").arrays
    assert np.isfinite(load_record(tmp_path / "labelled" / "record.npz")["distance"]).all()
    images, labels = load_images(str(tmp_path / "images.pt"), 16)
    assert set(labels[:10].tolist()) != {0, 1, 2}, "the judge learns from the first third"
    first = int(labels.argmin())  # each image keeps its label
    assert any(torch.equal(images[first], image.float().div(127.5).sub(1)) for image in pixels()[:4])


def configured(*options):
    given = parser().parse_args(["--output", "x", *options])
    return configuration(given, PROFILES["cpu"])


def test_values_of_the_command_line_take_the_place_of_the_settings():
    assert configured("--setting", "D").setting == "D"
    assert configured("--setting", "D", "--alpha", "3e-4").adam == Setting(3e-4, 0.5, 0.9, 5)
    assert configured("--setting", "D", "--n-dis", "2").adam == Setting(1e-3, 0.5, 0.9, 2)
    assert configured("--alpha", "1", "--n-dis", "3").adam == Setting(1.0, 0.5, 0.999, 3)
    assert configured("--method", "weight_clipping", "--c", "0.1") == replace(
        configured("--method", "weight_clipping"), c=0.1
    )
    assert configured("--method", "orthonormal", "--lambda-ortho", "0.5").lambda_ortho == 0.5
    assert configured("--init", "orthogonal") == replace(configured(), init="orthogonal")
    assert configured().init == "torch" and configured("--setting", "resnet").init == "glorot"


def test_the_setting_resnet_is_the_authors():
    found = configured("--setting", "resnet", "--architecture", "resnet", "--batch-size", "64")
    assert {name: getattr(found, name) for name in AUTHORS} == AUTHORS
    assert configured("--setting", "resnet", "--init", "torch").init == "torch"
    assert configured("--setting", "resnet", "--alpha", "1e-3").adam == Setting(1e-3, 0.0, 0.9, 5)
    assert {name: getattr(configured(), name) for name in AUTHORS} == {
        name: getattr(Config(), name) for name in AUTHORS
    }


def test_the_authors_choices_are_trained_kept_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    torch.save(pixels(), tmp_path / "images.pt")
    options = ["--setting", "resnet", "--architecture", "resnet", "--checkpoint-every", 1]
    main(arguments(tmp_path, "whole", *options, "--steps", 3))
    main(arguments(tmp_path, "longer", *options, "--steps", 2))
    main(arguments(tmp_path, "longer", *options, "--steps", 3, "--resume"))
    whole, longer = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "longer"))
    assert_same(*({part: state[part] for part in ("generator", "discriminator", "rng")} for state in (whole, longer)))
    config = load_record(tmp_path / "longer" / "record.npz").config
    assert config.batch_size_g == 16 and config.generator_first and "dense.bias" not in whole["discriminator"]


def test_messages_of_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    for name, content in {
        "good": pixels(), "floats": images(), "empty": pixels()[:0], "flat": pixels()[:, 0], "dict": {"images": 1},
        "two": torch.cat([pixels()] * 2, 1), "oblong": pixels()[..., 1:], "code": SmallClassifier(),
    }.items():  # fmt: skip
        torch.save(content, f"{name}.pt")
    labels = torch.arange(len(pixels()))
    for name, given in {"none": None, "halves": labels / 2, "few": labels[1:], "negative": labels - 1}.items():
        torch.save({"images": pixels(), "labels": given}, f"labels_{name}.pt")
    Path("text.pt").write_text("hello")
    Path("a_file").write_text("")
    tensor = "must hold a non-empty uint8 tensor (N, 1 or 3, size, size)"
    for given, status, message in [
        (["--method", "sn"], 2, "invalid choice: 'sn'"),
        (["--data", "mnist"], 2, "unknown data 'mnist'; choose one of: fashion_mnist, cifar10, stl10"),
        (["--size", "17"], 2, "fashion_mnist comes with 16 or 28 or 32 pixels, got --size 17"),
        (["--data", "good.pt", "--size", "32"], 2, "good.pt comes with 16 pixels, got --size 32"),
        (["--data", "no.pt"], 2, "No such file"),
        (["--data", "good.pt", "--resume"], 1, "there is no checkpoint at x"),
        (["--seed", str(2**63)], 2, "seed must be a whole number from 0 to"),
        (["--profile", "gpu"], 2, "torch sees no CUDA device"),
        (
            ["--data", "good.pt", "--measurements", "1"],
            1,
            "error: n_measurements must be a whole number, 2 or more, got 1",
        ),
        (["--data", "good.pt", "--output", "a_file"], 1, "error: a_file cannot be the folder of a run"),
        *((["--steps", n], 2, f"--steps: must be a whole number, 1 or more, got '{n}'") for n in ("-1", "0", "2.5")),
        *(
            (["--alpha", x], 2, f"--alpha: must be a positive number, got '{x}'")
            for x in ("0", "-1", "nan", "inf", "x")
        ),
        (["--n-dis", "1.5"], 2, "--n-dis: must be a whole number, 1 or more, got '1.5'"),
        (["--c", "0"], 2, "--c: must be a positive number, got '0'"),
        (["--c", "0.1"], 2, "--c is for --method weight_clipping, got spectral_norm"),
        (["--lambda-ortho", "0.1", "--method", "none"], 2, "--lambda-ortho is for --method orthonormal, got none"),
        (["--init", "xavier"], 2, "invalid choice: 'xavier'"),
        (["--checkpoint-every", "0"], 2, "--checkpoint-every: must be a whole number, 1 or more, got '0'"),
        (["--data", "floats.pt"], 2, f"floats.pt {tensor}, as torch.save writes it, got torch.float32 (32, 1, 16, 16)"),
        (["--data", "dict.pt"], 2, f"{tensor}, as torch.save writes it, alone or as `images` of a dictionary, got int"),
        (
            ["--data", "labels_none.pt"],
            2,
            "labels_none.pt must be an int64 tensor (32,), one for each image, got NoneType",
        ),
        (["--data", "labels_halves.pt"], 2, "an int64 tensor (32,), one for each image, got torch.float32 (32,)"),
        (["--data", "labels_few.pt"], 2, "an int64 tensor (32,), one for each image, got torch.int64 (31,)"),
        (["--data", "labels_negative.pt"], 2, "the labels of labels_negative.pt must count from 0, got -1"),
        *((["--data", f"{name}.pt"], 2, tensor) for name in ("empty", "flat", "two", "oblong", "code", "text")),
    ]:
        if "gpu" in given and torch.cuda.is_available():
            continue
        monkeypatch.setenv("COURSE_PROFILE", "cpu")
        with pytest.raises(SystemExit) as stop:
            main(["--output", "x", *given])
        shown = capsys.readouterr().err
        assert stop.value.code == status and message in shown and "Traceback" not in shown, (given, shown)
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "torchrun" in capsys.readouterr().out


if (
    __name__ == "__main__"
):  # the long trial: python tests/long_runs/test_runs.py 50, with the course and tests on PYTHONPATH
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        kill_and_resume(Path(scratch), kills=int(sys.argv[1]), steps=25 * int(sys.argv[1]))
        print(f"{sys.argv[1]} kills, nothing lost, {time.monotonic() - began:.0f} s")
