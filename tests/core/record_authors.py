"""Writes authors_resnet.json, what the authors' own networks compute, for test_authors.py to compare with; no test itself.

python record_authors.py CLONE of github.com/pfnet-research/sngan_projection, with the versions that the file names, in an
environment apart: Chainer is no longer developed, and does not run with a NumPy of today.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

INPUTS = {"z": (4, 6), "real": (4, 3, 32, 32)}


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that need not be kept: scale * sin(i^2 + phase) at flat index i, the phase from the name; gains around 1."""
    wave = np.sin(np.arange(np.prod(shape), dtype=np.float64) ** 2 + zlib.crc32(name.encode()) % 1009).reshape(shape)
    scale = {"W": 0.1, "b": 0.01, "beta": 0.1, "gamma": 0.3, "z": 1.0}.get(name.split("/")[-1], 0.25)
    return (name.endswith("gamma") + scale * wave).astype(np.float32)


def some(array: np.ndarray, n: int = 6) -> list[float]:
    """At most n of the numbers, from the first on, in equal steps."""
    return [float(f"{x:.8g}") for x in np.ravel(array)[:: -(-array.size // n)]]


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import chainer
    from dis_models.snresnet_32 import SNResNetProjectionDiscriminator
    from gen_models.resnet_32 import ResNetGenerator
    from source.functions import max_sv
    from updater import loss_hinge_dis, loss_hinge_gen

    max_sv._l2normalize = lambda v, eps=1e-12: v / (np.sqrt((v * v).sum()) + eps)  # theirs is written for a GPU
    G, D = ResNetGenerator(ch=16, dim_z=6), SNResNetProjectionDiscriminator(ch=8)
    layers = {name: layer for name, layer in D.namedlinks() if hasattr(layer, "u")}
    norms = {name: norm for name, norm in G.namedlinks() if hasattr(norm, "avg_var")}
    parameters = [(name, p.data) for net in (G, D) for name, p in net.namedparams()]
    for name, values in parameters + [(name + "/u", layer.u) for name, layer in layers.items()]:
        values[...] = fill(name, values.shape)
    z, real = (fill(name, shape) for name, shape in INPUTS.items())
    versions = f"Chainer {chainer.__version__}, NumPy {np.__version__}"
    found = {"made": f"by record_authors.py with pfnet-research/sngan_projection at commit e84b1a5; {versions}"}
    found["images"] = {"training": some(G(4, z=z).data, 30)}
    found["averages"] = {name: [some(norm.avg_mean), some(norm.avg_var)] for name, norm in norms.items()}
    with chainer.using_config("train", False):
        found["images"]["evaluation"] = some(G(4, z=z).data, 30)

    def update(net: chainer.Chain, adam: chainer.optimizers.Adam, loss: chainer.Variable) -> dict:
        before = {name: p.data.copy() for name, p in net.namedparams()}
        net.cleargrads()
        loss.backward()
        adam.update()
        moved = {name: some(p.data - before[name]) for name, p in net.namedparams()}
        return {"gradients": {name: some(p.grad) for name, p in net.namedparams()}, "moved by": moved}

    adam_g, adam_d = (chainer.optimizers.Adam(alpha=2e-4, beta1=0.0, beta2=0.9).setup(net) for net in (G, D))
    found["updates of D"] = []
    for _ in range(2):
        scores = D(np.concatenate([real, G(4, z=z).data]))  # both in one pass: one round of power iteration
        done = update(D, adam_d, loss_hinge_dis(dis_real=scores[:4], dis_fake=scores[4:]))
        u = {name: some(layer.u) for name, layer in layers.items()}
        found["updates of D"].append({"scores": some(scores.data, 8), "u": u, **done})
    with chainer.using_config("train", False):
        found["scores, evaluation"] = some(D(real).data)
    found["update of G"] = update(G, adam_g, loss_hinge_gen(dis_fake=D(G(4, z=z))))
    Path(__file__).with_name("authors_resnet.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
