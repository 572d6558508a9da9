"""The methods of the comparison, one row each: where it acts, its loss, its name and look in figures.

To add one, write its row; nothing else has to change. Equation numbers are those of Miyato et al. 2018.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .normalization import (
    bias_only,
    clip_weights_,
    gradient_penalty,
    orthonormal_penalty,
    spectral_norm,
    spectral_norm_gain,
    weight_norm,
)
from .spectral import linear_layers, named_layers, output_dim
from .validation import require_choice, require_weight

if TYPE_CHECKING:
    from .training import Config

Penalty = Callable[["Config", nn.Module, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Method:
    """What holds the discriminator D back. Of the four places where a method can act, a row names the one of its own.

    about: in words; label, color, marker, linestyle: in figures. loss: the one it was published with.
    weight(layer): replaces the layer's weight by a function of it. features(channels): a layer behind each convolution but
    the first. penalty(config, D, real, fake, rng): a scalar that D's loss is raised by. project(config, D): changes D after
    each of its updates. on_weights: whether it is meant for every weight of D, so that `normalize` names those it misses.
    """

    about: str
    label: str
    color: str
    marker: str
    linestyle: object
    loss: str = "standard"
    weight: Callable[[nn.Module], nn.Module] | None = None
    features: Callable[[int], nn.Module] | None = None
    penalty: Penalty | None = None
    project: Callable[[Config, nn.Module], None] | None = None
    on_weights: bool = False

    @property
    def style(self) -> dict:
        """The look of the method everywhere in the course: ``ax.plot(x, y, **METHODS["spectral_norm"].style)``."""
        return {name: getattr(self, name) for name in ("color", "marker", "linestyle", "label")}

    @property
    def acts(self) -> str:
        """Where it acts, in words."""
        places = {"weight": "in the weight", "features": "in the feature maps", "penalty": "in the loss",
            "project": "after the update"}  # fmt: skip
        return next((words for place, words in places.items() if getattr(self, place)), "nowhere")


def slope_penalty(config: Config, D: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """lambda_gp times the gradient penalty, equations (29)-(31)."""
    return config.lambda_gp * gradient_penalty(D, real, fake, rng)


# Marker and line tell the methods apart when a page is printed in grey; the colours are Okabe and Ito's and three of their kind.
METHODS: dict[str, Method] = {
    "none": Method("no normalization", "no normalization", "#000000", "x", ":"),
    "weight_clipping": Method(
        "weights clipped to [-c, c] after each update (Arjovsky et al. 2017)", "clipping", "#E69F00", "^", "-.",
        project=lambda config, D: clip_weights_(D, config.c), on_weights=True,
    ),
    "gan_gp": Method(
        "standard loss and gradient penalty (Gulrajani et al. 2017)", "GAN-GP", "#7A3E62", "*", (0, (1, 1)),
        penalty=slope_penalty,
    ),
    "wgan_gp": Method(
        "Wasserstein loss and gradient penalty (Gulrajani et al. 2017)", "WGAN-GP", "#CC79A7", "P", (0, (3, 1, 1, 1)),
        penalty=slope_penalty, loss="wasserstein",
    ),
    "batch_norm": Method(
        "batch normalization, gain left out (Ioffe & Szegedy 2015)", "BN", "#767676", "h", (0, (5, 3)),
        features=lambda channels: bias_only(nn.BatchNorm2d(channels)),
    ),
    "layer_norm": Method(
        "layer normalization, gain left out (Ba et al. 2016)", "LN", "#857A00", "d", (0, (5, 1, 1, 1, 1, 1)),
        features=lambda channels: bias_only(nn.GroupNorm(1, channels)),  # one group: over all of (C, H, W)
    ),
    "weight_norm": Method(
        "weight normalization, gain left out (Salimans & Kingma 2016)", "WN", "#D55E00", "s", "--",
        weight=weight_norm, on_weights=True,
    ),
    "orthonormal": Method(
        "orthonormal regularization (Brock et al. 2017)", "orthonormal", "#009E73", "v", (0, (7, 2)),
        penalty=lambda config, D, real, fake, rng: config.lambda_ortho * orthonormal_penalty(D), on_weights=True,
    ),
    "spectral_norm": Method(
        "spectral normalization", "SN", "#0072B2", "o", "-", weight=spectral_norm, on_weights=True
    ),
    "spectral_norm_gain": Method(
        "spectral normalization with a trainable gain, equation (32)", "SN with gain", "#56B4E9", "D", (0, (4, 1)),
        weight=spectral_norm_gain, on_weights=True,
    ),
}  # fmt: skip


def require_method(method: str) -> None:
    """Raise ValueError unless `method` is one of METHODS."""
    require_choice(method, "method", METHODS)


def other_weights(model: nn.Module) -> list[str]:
    """Names of the weights with two axes or more that lie in no linear or convolutional layer, and are left plain.

    Such as attention's packed weight, an embedding, a bilinear or a recurrent layer; gains of a layer norm do not count.
    """
    layers = set(linear_layers(model))
    found = []
    for prefix, module in model.named_modules():
        if module in layers or isinstance(module, (nn.LayerNorm, nn.RMSNorm, parametrize.ParametrizationList)):
            continue
        for name, weight in module.named_parameters(recurse=False):
            if not nn.parameter.is_lazy(weight) and weight.ndim >= 2:
                found.append(f"{prefix}.{name}" if prefix else name)
    return found


def normalize(model: nn.Module, method: str) -> nn.Module:
    """Apply a reparametrization (SN, SN with gain, WN) to every linear and convolutional layer; return the model.

    The other METHODS act in the loss, after the update or in the architecture; for them the model is returned as it is.
    Weights outside these layers (`other_weights`) are not touched, and a UserWarning names them. Raises ValueError,
    before anything is changed, if one of the layers is already normalized.
    """
    require_method(method)
    layers, reparametrize = named_layers(model), METHODS[method].weight
    if METHODS[method].on_weights and (others := other_weights(model)):
        by_hand = f", or normalize them by hand: {method}(module, name)" if reparametrize else ""
        warnings.warn(
            f"{method} acts on linear and convolutional layers; these weights stay as they are: {', '.join(others)}. "
            f"Leave them out of what you call Lipschitz{by_hand}",
            stacklevel=2,
        )
    if reparametrize:
        for layer in layers.values():
            require_weight(layer, "weight", output_dim(layer))
        for layer in layers.values():
            reparametrize(layer)
    return model
