"""The authors' released networks (sngan_projection, for 32 pixels) with the same weights: the same numbers as ours.

What theirs compute is kept in authors_resnet.json; record_authors.py made it. Weights, u, z and images come from `fill`.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from record_authors import INPUTS, fill, some
from torch import Tensor, nn
from torch.nn.utils import parametrize

from course_utils.spectral import named_layers, power_iteration_step, unit, weight_matrix
from course_utils.training import AUTHORS, Config, Run, update_discriminator, update_generator

FOUND = json.loads(Path(__file__).with_name("authors_resnet.json").read_text("utf-8"))
CONFIG = Config(
    setting="resnet", architecture="resnet", loss="hinge", size=32, channels=3, width=8, d_z=6, batch_size=4,
    **AUTHORS | {"batch_size_g": 4},
)  # fmt: skip
PARTS = {"conv1": "c1", "conv2": "c2", "shortcut": "c_sc", "norm1": "b1", "norm2": "b2"}
OF_G = {
    "0": "/l1",
    "5": "/b5",
    "7": "/c5",
    **{f"{i}.{p}": f"/block{i}/{q}" for i in (2, 3, 4) for p, q in PARTS.items()},
}
OF_D = {"dense": "/l5", **{f"blocks.{i}.{p}": f"/block{i + 1}/{q}" for i in range(4) for p, q in PARTS.items()}}
z, REAL = (torch.from_numpy(fill(name, shape)) for name, shape in INPUTS.items())


def by_their_names(net: nn.Module, names: dict[str, str]) -> dict[str, nn.Parameter]:
    """Our parameters by the authors' names."""
    found = {}
    for ours, theirs in names.items():
        layer = net.get_submodule(ours)
        if isinstance(layer, nn.BatchNorm2d):
            found |= {f"{theirs}/gamma": layer.weight, f"{theirs}/beta": layer.bias}
        elif not isinstance(layer, nn.Identity):
            normalized = parametrize.is_parametrized(layer)
            found[f"{theirs}/W"] = layer.parametrizations.weight.original if normalized else layer.weight
            if layer.bias is not None:
                found[f"{theirs}/b"] = layer.bias
    return found


def memories(D: nn.Module) -> dict[str, tuple[nn.Module, Tensor]]:
    """Each layer's SpectralNorm and its matrix W, by the authors' names."""
    weights = {OF_D[name]: layer.parametrizations.weight for name, layer in named_layers(D).items()}
    return {name: (weight[0], weight_matrix(weight.original.detach())) for name, weight in weights.items()}


@pytest.fixture
def run() -> Run:
    """The start of a run with the authors' choices, their epsilon in batch norm, and the weights and u of the file."""
    run = Run.start(CONFIG)
    for norm in run.generator.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 2e-5
    for net, names in ((run.generator, OF_G), (run.discriminator, OF_D)):
        parameters = by_their_names(net, names)
        assert len(parameters) == len(list(net.parameters()))
        for name, p in parameters.items():
            p.detach().copy_(torch.from_numpy(fill(name, tuple(p.shape))))
    for name, (memory, _) in memories(run.discriminator).items():
        memory._u.copy_(torch.from_numpy(fill(f"{name}/u", (1, len(memory._u))))[0])
    return run


def after_their_round(D: nn.Module) -> nn.Module:
    """D in evaluation mode, its u and v a round of power iteration further: theirs is the paper's, v from u, then u from v."""
    for memory, matrix in memories(D).values():
        u, v = power_iteration_step(matrix, memory._u)
        memory._u.copy_(u)
        memory._v.copy_(v)
    return D.eval()


def close(ours: Tensor, theirs: list[float], tolerance: float, n: int = 6) -> None:
    """What `some` takes of `ours` differs from the recorded numbers by at most `tolerance` times the largest of them."""
    torch.testing.assert_close(
        torch.tensor(some(ours.detach().numpy(), n)),
        torch.tensor(theirs),
        rtol=0,
        atol=tolerance * max(map(abs, theirs)),
    )


def batch_norms(G: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {OF_G[name]: layer for name, layer in G.named_modules() if isinstance(layer, nn.BatchNorm2d)}


def test_images_and_running_averages(run: Run) -> None:
    G = run.generator.train()
    close(G(z), FOUND["images"]["training"], 5e-6, 30)
    assert batch_norms(G).keys() == FOUND["averages"].keys()
    for name, norm in batch_norms(G).items():
        mean, variance = FOUND["averages"][name]
        close(norm.running_mean, mean, 5e-6)
        close(norm.running_var, variance, 5e-7)
    close(G.eval()(z), FOUND["images"]["evaluation"], 2e-6, 30)


def test_our_epsilon_in_batch_norm_moves_the_images_by_less_than_a_grey_level(run: Run) -> None:
    G, theirs = run.generator.train(), torch.tensor(FOUND["images"]["training"])
    for norm in batch_norms(G).values():
        norm.eps = 1e-5
    difference = (torch.tensor(some(G(z).detach().numpy(), 30)) - theirs).abs().max()
    assert 1e-5 < difference < 1e-3


def test_scores_gradients_and_steps_of_adam(run: Run) -> None:
    G, D = run.generator.train(), run.discriminator
    G(z)

    def compare(net: nn.Module, names: dict[str, str], before: nn.Module, theirs: dict) -> int:
        parameters, old = by_their_names(net, names), by_their_names(before, names)
        assert parameters.keys() == theirs["gradients"].keys()
        zero = [name for name, gradient in theirs["gradients"].items() if max(map(abs, gradient)) < 1e-5]
        for name, p in parameters.items():
            if name in zero:  # what is left is rounding, which Adam makes steps of
                assert p.grad.abs().max() < 1e-5
            else:
                close(p.grad, theirs["gradients"][name], 2e-5)
                close(p - old[name], theirs["moved by"][name], 1e-4)
        return len(zero)

    for theirs in FOUND["updates of D"]:
        before = copy.deepcopy(after_their_round(D))
        with torch.no_grad():
            close(D(torch.cat([REAL, copy.deepcopy(G)(z)])), theirs["scores"], 5e-6, 8)
        for name, (memory, _) in memories(D).items():
            close(memory._u, theirs["u"][name], 1e-6)
        update_discriminator(CONFIG, G, D, run.adam_d, REAL, z, run.rng)
        assert compare(D, OF_D, before, theirs) == 0
    close(
        after_their_round(D)(REAL), FOUND["scores, evaluation"], 2e-6
    )  # in evaluation mode theirs goes a round on, too
    before = copy.deepcopy(G)
    update_generator(CONFIG, G, D, run.adam_g, z)
    assert compare(G, OF_G, before, FOUND["update of G"]) == 9  # biases in front of a batch norm: three in each block


def test_our_own_round_gives_their_u_and_a_sigma_half_a_round_ahead(run: Run) -> None:
    D = run.discriminator
    for memory, matrix in memories(D).values():
        memory._v.copy_(unit(matrix.mT @ memory._u))
    theirs = after_their_round(copy.deepcopy(D))
    D.train()(REAL)
    for name, (memory, matrix) in memories(D).items():
        close(memory._u, FOUND["updates of D"][0]["u"][name], 1e-6)
        other, _ = memories(theirs)[name]
        assert memory._u @ matrix @ memory._v >= (1 - 1e-6) * (other._u @ matrix @ other._v)
