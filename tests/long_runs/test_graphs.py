"""graphs.py: an update that is recorded and replayed does what it did before, with new batches and a new alpha each time.

There is no CUDA graph on a CPU. `Tape` stands for it, and is as strict: it notes the operations of one update with their
tensors, replays these and calls no Python, so that whatever Python handed over as a number stays what it was; and it refuses
operations for which a GPU would have to be waited for. What it cannot show is the GPU itself: the last tests need one.
"""

import copy
import functools
import json
from dataclasses import replace

import pytest
import torch
from helpers import TINY, assert_same, images
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_utils.long_runs import benchmark, graphs, parallel
from course_utils.long_runs.checkpoint import load_checkpoint, save_checkpoint
from course_utils.long_runs.command_line import main
from course_utils.long_runs.fast import fast_updates
from course_utils.long_runs.folder import train_in_folder
from course_utils.long_runs.graphs import WARM_UP, CudaGraph, OneGraph, alpha_from, graphed
from course_utils.methods import METHODS
from course_utils.normalization import fuse, spectral_norm
from course_utils.records import RunError
from course_utils.training import PLAIN, SETTINGS, Config, Run, Updates, train

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU; there is none here")


class Tape(TorchDispatchMode):
    """What CudaGraph is on a GPU, but for the recording, which carries the update out: the first replay has nothing to do."""

    made = 0

    def __init__(self, function, rng, stream):
        super().__init__()
        assert stream is None
        Tape.made, self.rng, self.steps, self.done = Tape.made + 1, rng, [], True
        with self:
            self.result = function()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        by_truth = any(torch.is_tensor(part) and part.dtype == torch.bool for part in tree_leaves(args))
        whole = (
            operation is torch.ops.aten.index.Tensor and not by_truth
        )  # indexing by numbers, whose result has their shape
        if WAITING & set(operation.tags) and not whole or operation is torch.ops.aten.lift_fresh.default:
            raise RuntimeError(f"{operation.name()} would wait for the GPU")
        if generator := (kwargs or {}).get("generator"):
            assert torch.equal(generator.get_state(), self.rng.get_state())
        results = operation(*args, **(kwargs or {}))
        self.steps.append((operation, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self):
        if not self.done:
            for operation, args, kwargs, results in self.steps:
                for new, place in zip(tree_leaves(operation(*args, **kwargs)), tree_leaves(results)):
                    if (
                        isinstance(place, torch.Tensor) and place.data_ptr() != new.data_ptr()
                    ):  # neither view nor in place
                        place.copy_(new)
        self.done = False
        return self.result


# Operations whose result Python must see, or whose shape hangs on numbers; lift_fresh brings numbers from Python.
WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def taped(updates):
    return Updates(OneGraph(updates.discriminator, Tape), OneGraph(updates.generator, Tape), "taped")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Adam's step is one operation, and equation (12) does not look at numbers."""
    Tape.made = 0
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.optim, "Adam", functools.partial(torch.optim.Adam, fused=True))
        monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: False))


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
@pytest.mark.parametrize("method", METHODS)
def test_replayed_updates_are_those_of_the_fast_loop(method, architecture):
    """With decay, alpha is another one each time; eighths of 2**-10 are exact in float32, as the tensor holds them."""
    setting = replace(SETTINGS["C"], alpha=2.0**-10)
    config = Config(method, setting, architecture=architecture, **{**TINY, "steps": 8, "decay": True})
    fast = train(config, images(), updates=fast_updates(config, "float32"))
    replayed = train(config, images(), updates=taped(fast_updates(config, "float32")))
    assert Tape.made == 2
    assert torch.equal(replayed.curves, fast.curves)
    assert torch.equal(replayed.sample(8), fast.sample(8))
    assert torch.equal(replayed.rng.get_state(), fast.rng.get_state())


def test_the_optimizers_and_so_checkpoints_are_what_they_were(tmp_path):
    config = Config("wgan_gp", "A", **{**TINY, "steps": 2, "decay": True})
    fast = train(config, images(), updates=fast_updates(config, "float32"))
    replayed = train(config, images(), updates=taped(fast_updates(config, "float32")))
    for optimizer in ("adam_d", "adam_g"):
        groups = [getattr(run, optimizer).state_dict()["param_groups"] for run in (fast, replayed)]
        assert_same(*groups)
        assert all(type(group["lr"]) is float and group["capturable"] is False for group in groups[1])
    save_checkpoint(replayed, tmp_path / "c.pt")
    found, _ = load_checkpoint(tmp_path / "c.pt", config)
    assert_same(found.adam_d.state_dict(), replayed.adam_d.state_dict())


def toy():
    """An update that shows what it was given, and Adam for one number."""

    def update(config, optimizer, batch):
        return batch.sum() * optimizer.param_groups[0]["lr"], batch.mean()

    return update, torch.optim.Adam([torch.nn.Parameter(torch.zeros(()))], 1.0)


def test_batches_and_alpha_are_copied_to_where_the_graph_reads_them_and_results_from_where_it_writes():
    update, adam = toy()
    one, results = OneGraph(update, Tape), []
    for step in range(WARM_UP + 4):
        adam.param_groups[0]["lr"] = 10.0**step
        results.append(one(None, adam, torch.full((2,), float(step))))
    assert [float(total) for total, _ in results] == [2 * step * 10.0**step for step in range(WARM_UP + 4)]
    assert [float(mean) for _, mean in results] == list(range(WARM_UP + 4))
    assert type(adam.param_groups[0]["lr"]) is float and Tape.made == 1


def test_a_single_result_is_copied_too_and_gradients_are_made_anew_by_the_recording():
    w = torch.nn.Parameter(torch.zeros(()))
    adam, there = torch.optim.Adam([w]), []

    def update(optimizer, z):
        there.append(w.grad is not None)
        return z.sum()

    one, results = OneGraph(update, Tape), []
    for step in range(WARM_UP + 3):
        w.grad = torch.zeros(())
        results.append(one(adam, torch.full((2,), float(step))))
    assert [float(result) for result in results] == [2 * step for step in range(WARM_UP + 3)]
    assert there == [True] * WARM_UP + [False]  # in memory that the graph keeps for itself


def test_another_run_and_another_shape_are_recorded_anew():
    update, adam = toy()
    one = OneGraph(update, Tape)
    for n, optimizer in enumerate([adam, torch.optim.Adam([torch.nn.Parameter(torch.zeros(()))])], 1):
        for _ in range(WARM_UP + 2):
            one(None, optimizer, torch.ones(2))
        assert Tape.made == n
    for _ in range(WARM_UP + 2):
        assert float(one(None, adam, torch.ones(1))[1]) == 1  # a batch of one would fill a place for two
    assert Tape.made == 3
    config = Config(**{**TINY, "steps": 5})
    updates = taped(fast_updates(config, "float32"))
    first, second = (train(config, images(), updates=updates) for _ in range(2))
    assert Tape.made == 7 and torch.equal(first.curves, second.curves)


def test_a_resumed_run_warms_up_again_and_ends_as_the_whole_one(tmp_path):
    config = Config("spectral_norm", "C", **{**TINY, "steps": 10})
    whole = train(config, images(), updates=taped(fast_updates(config, "float32")))
    half = train(config, images(), lambda step, run: step == 5, updates=taped(fast_updates(config, "float32")))
    save_checkpoint(half, tmp_path / "c.pt")
    resumed, _ = load_checkpoint(tmp_path / "c.pt", config)
    train(config, images(), run=resumed, updates=taped(fast_updates(config, "float32")))
    torch.testing.assert_close(resumed.curves, whole.curves, rtol=1e-4, atol=1e-5)


def test_the_generator_of_a_gradient_penalty_is_registered():
    config = Config("wgan_gp", "C", **{**TINY, "steps": 5})
    updates = taped(fast_updates(config, "float32"))
    run = train(config, images(), updates=updates)
    ((of_d, *_),), ((of_g, *_),) = (update.recorded.values() for update in updates[:2])
    assert of_d.rng is run.rng and of_g.rng is None  # D's update draws random points, G's draws nothing


def test_when_an_update_fails_alpha_is_put_back():
    _, adam = toy()
    with pytest.raises(RuntimeError, match="as planned"), alpha_from([torch.tensor(3.0)], adam):
        assert torch.is_tensor(adam.param_groups[0]["lr"]) and adam.param_groups[0]["capturable"] is False
        raise RuntimeError("as planned")
    assert adam.param_groups[0]["lr"] == 1.0 and type(adam.param_groups[0]["lr"]) is float


def test_layers_that_wait_for_the_gpu_are_refused():
    """Two rounds, and SN fused outside the fast loop: their layers look at sigma. The fast loop's own do not."""
    two = torch.nn.Sequential(torch.nn.Linear(3, 3), spectral_norm(torch.nn.Linear(3, 3), n_power_iterations=2))
    message = "layer 1 is normalized by itself .n_power_iterations 2, eps 1e-12. and waits for the GPU"
    with pytest.raises(ValueError, match=message):
        graphs.require_no_waiting([torch.nn.Linear(3, 3), fuse(copy.deepcopy(two))])
    graphs.require_no_waiting([two])  # the plain layer waits for nothing
    config = Config("spectral_norm", "C", **{**TINY, "steps": WARM_UP + 1})
    run = Run.start(config)
    fuse(run.discriminator)
    with pytest.raises(ValueError, match="layer 0 is normalized by itself"):
        train(config, images(), run=run, updates=taped(PLAIN))
    assert run.step == WARM_UP and Tape.made == 0  # nothing was recorded


def test_what_cannot_be_graphed_is_refused(monkeypatch):
    fast, compiled = fast_updates(Config(), "bfloat16"), fast_updates(Config(), "bfloat16", compiled=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert graphed(fast, "cuda").name == "fast bfloat16 loop as CUDA graphs"
    assert [type(update) for update in graphed(fast, torch.device("cuda", 0))[:2]] == [OneGraph, OneGraph]
    with pytest.raises(ValueError, match="not compiled, got the fast compiled bfloat16 loop"):
        graphed(compiled, "cuda")
    with pytest.raises(ValueError, match="need a GPU: the device is cpu, and torch sees"):
        graphed(fast, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="need a GPU: the device is cuda, and torch sees"):
        graphed(fast, "cuda")
    monkeypatch.setattr(graphs, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="for a single process, and here are 2: start without torchrun"):
        graphed(fast, "cuda")
    assert parallel.world_size() == 1


def test_an_update_on_a_cpu_is_refused_where_there_is_a_gpu_too():
    """A recording of it would be empty, and replays would train nothing."""
    update, adam = toy()
    one = OneGraph(update)
    for _ in range(WARM_UP):
        one(None, adam, torch.ones(2))
    with pytest.raises(ValueError, match="records what a GPU does, and this update is made on a CPU"):
        one(None, adam, torch.ones(2))


def test_the_command_line_refuses_graphs_without_a_gpu_and_with_compilation(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    torch.save((127.5 * (images() + 1)).to(torch.uint8), tmp_path / "images.pt")
    tiny = ["--data", tmp_path / "images.pt", "--size", 16, "--width", 4, "--batch-size", 4, "--steps", 2]
    for options, message in [([], "error: CUDA graphs need a GPU: the device is cpu"), (["--compile"], "not compiled")]:
        with pytest.raises(SystemExit) as stop:
            main([str(part) for part in [*tiny, "--output", tmp_path / "run", "--graphs", *options]])
        assert stop.value.code == 1 and message in capsys.readouterr().err
        assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_run_goes_on_with_graphs_only_if_it_began_with_them(tmp_path):
    config = Config(**{**TINY, "steps": 2})
    train_in_folder(config, images(), tmp_path, progress=0, updates=fast_updates(config, "float32"))
    with pytest.raises(RunError, match="made by the fast float32 loop; to go on with the taped would be another run"):
        updates = taped(fast_updates(config, "float32"))
        train_in_folder(config, images(), tmp_path, resume=True, progress=0, updates=updates)


def test_the_benchmark_times_graphs_without_counting_their_operations(tmp_path, monkeypatch, capsys):
    plain = benchmark.candidates

    def with_graphs(config, real):
        made = plain(config, real)
        for name, method in zip(benchmark.GRAPHS, ("none", "spectral_norm")):
            one = Config(method=method, **config)
            made[name] = benchmark.Candidate(one, real, taped(fast_updates(one, "float32")))
        made[benchmark.COMPILED] = benchmark.Candidate(one, real, Updates(broken, broken, "broken"))
        return made

    def broken(*arguments):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(benchmark, "candidates", with_graphs)
    tiny = ["--profile", "cpu", "--size", "16", "--width", "2", "--batch-size", "2", "--rounds", "1", "--repeats", "1"]
    benchmark.main([*tiny, "--output", str(tmp_path / "b.json")])
    shown, result = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert Tape.made == 4 and set(benchmark.GRAPHS) <= set(result["images_per_second"])
    assert not set(benchmark.FOR_GPUS) & set(result["operations"])
    assert all(f"\n{name} " in shown for name in benchmark.GRAPHS)
    assert f"left out: {benchmark.COMPILED}, which cannot be made here (no compiler)" in shown
    speeds = {"none": 9, "none, bfloat16, graphs": 20, "spectral_norm": 2, "spectral_norm, bfloat16, graphs": 3}
    assert benchmark.fastest(speeds) == "spectral_norm, bfloat16, graphs"


@needs_a_gpu
@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
@pytest.mark.parametrize("method", ["spectral_norm", "wgan_gp", "weight_clipping", "orthonormal", "weight_norm"])
def test_on_a_gpu_graphs_train_as_the_fast_loop_does(method, architecture):
    config = Config(method, "C", architecture=architecture, **{**TINY, "steps": 12, "decay": True})
    real = images().cuda()
    fast = train(config, real, updates=fast_updates(config, "float32"))
    updates = graphed(fast_updates(config, "float32"), "cuda")
    replayed = train(config, real, updates=updates)
    for update in updates[:2]:
        ((graph, *_),) = update.recorded.values()
        assert isinstance(graph, CudaGraph)
    torch.testing.assert_close(replayed.curves, fast.curves, rtol=1e-2, atol=1e-3)
    assert torch.equal(replayed.rng.get_state(), fast.rng.get_state())
    apart, moved = ((run.sample(8) - fast.sample(8)).abs().mean() for run in (replayed, Run.start(config, "cuda")))
    assert apart < 0.05 * moved
    steps = [float(state["step"]) for state in replayed.adam_d.state.values()]
    assert steps == [config.steps] * len(steps)
    assert all(type(group["lr"]) is float and not group["capturable"] for group in replayed.adam_d.param_groups)


@needs_a_gpu
def test_on_a_gpu_a_run_with_graphs_can_be_resumed(tmp_path):
    config = Config("spectral_norm", "C", **{**TINY, "steps": 12})
    real = images().cuda()
    updates = lambda: graphed(fast_updates(config, "bfloat16"), "cuda")
    half = train(config, real, lambda step, run: step == 6, updates=updates())
    save_checkpoint(half, tmp_path / "c.pt")
    resumed, _ = load_checkpoint(tmp_path / "c.pt", config, "cuda")
    train(config, real, run=resumed, updates=updates())
    whole = train(config, real, updates=updates())
    torch.testing.assert_close(resumed.curves, whole.curves, rtol=0.1, atol=0.1)
