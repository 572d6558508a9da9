"""Generators, discriminators and the small classifier: the paper's families at any width, for 16 to 48 pixel images.

The layer tables are Tables 3 (CNN) and 4 (ResNet, 32 pixels) of Miyato et al. 2018. At other sizes the networks of Table 4
keep their shape: D its four blocks, G its one width and as many blocks as there are halvings; the wider ones for 48 and
128 pixels in Tables 5 and 6 are not here. Discriminators return scores f(x) before any sigmoid, shape (batch, 1);
generators return images (batch, channels, size, size) in [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .methods import METHODS, require_method
from .spectral import float32_by_default, named_layers
from .validation import require_input, require_whole


def bottom_size(size: int) -> tuple[int, int]:
    """Side of the smallest feature map (4 to 7) and the number of halvings that lead from `size` to it."""
    halvings, bottom = 0, size if isinstance(size, int) else 0
    while bottom % 2 == 0 and bottom >= 8:
        halvings, bottom = halvings + 1, bottom // 2
    if not 4 <= bottom <= 7:
        raise ValueError(f"size must be 4 to 7 times a power of two (such as 16, 28, 32, 48), got {size!r}")
    return bottom, halvings


def _taking(model: nn.Sequential, *expected: int) -> nn.Sequential:
    """`model`, which checks its input's shape from now on, before a layer deep inside complains about another one."""
    model.expected = expected
    model.register_forward_pre_hook(_require_input_first)
    return model


def _require_input_first(self: nn.Module, inputs: tuple[Tensor]) -> None:
    if not torch.jit.is_scripting():  # torch.jit.script reads this as well, and knows no require_input
        require_input(inputs[0], *self.expected)


INITIALIZATIONS = {
    "torch": "torch's own, uniform in +-1/sqrt(fan-in)",
    "normal": "N(0, 0.02^2), biases zero: the authors' CNN",
    "glorot": "Glorot and Bengio's uniform one, times sqrt(2) in residual blocks, biases zero: the authors' ResNet",
    "orthogonal": "a random orthonormal matrix for each weight (section 4.1 of the paper, for D)",
}


@torch.no_grad()
def initialize_(model: nn.Module, init: str) -> None:
    """Draw the weights of every linear and convolutional layer anew, in place, as INITIALIZATIONS says."""
    for name, layer in named_layers(model).items():
        if init == "normal":
            nn.init.normal_(layer.weight, std=0.02)
        elif init == "glorot":
            nn.init.xavier_uniform_(layer.weight, gain=2**0.5 if name.endswith(("conv1", "conv2")) else 1.0)
        elif init == "orthogonal":
            nn.init.orthogonal_(layer.weight)
        if init in ("normal", "glorot") and layer.bias is not None:
            nn.init.zeros_(layer.bias)


@float32_by_default()
def cnn_discriminator(
    size: int = 32, channels: int = 3, width: int = 64, method: str = "none", last_bias: bool = True
) -> nn.Sequential:
    """Table 3: 3x3 and 4x4/2 convolutions in turn, channels doubling, leaky ReLU 0.1, a 3x3 convolution, a dense layer.

    At size 32 and width 64 this is the paper's seven-convolution network; at 16 it has five convolutions.
    method: "batch_norm" or "layer_norm" put that layer behind every convolution but the first; others change nothing.
    last_bias: whether the dense layer has a bias.
    """
    require_method(method)
    norm, c_in, (bottom, halvings) = METHODS[method].features, channels, bottom_size(size)
    plan = [(width * 2**i, kernel) for i in range(halvings) for kernel in (3, 4)] + [(width * 2**halvings, 3)]
    layers: list[nn.Module] = []
    for index, (c_out, kernel) in enumerate(plan):
        layers.append(nn.Conv2d(c_in, c_out, kernel, stride=1 if kernel == 3 else 2, padding=1))
        if norm and index > 0:
            layers.append(norm(c_out))
        layers.append(nn.LeakyReLU(0.1))
        c_in = c_out
    dense = nn.Linear(c_in * bottom**2, 1, bias=last_bias)
    return _taking(nn.Sequential(*layers, nn.Flatten(), dense), channels, size, size)


@float32_by_default()
def cnn_generator(size: int = 32, channels: int = 3, width: int = 64, d_z: int = 128) -> nn.Sequential:
    """Table 3: dense, then transposed 4x4/2 convolutions with batch norm and ReLU, a 3x3 convolution, tanh.

    Takes z of shape (batch, d_z). At size 32 and width 64 the feature maps have 512, 256, 128, 64 channels.
    """
    bottom, halvings = bottom_size(size)
    c_in = width * 2**halvings
    layers: list[nn.Module] = [nn.Linear(d_z, c_in * bottom**2), nn.Unflatten(1, (c_in, bottom, bottom))]
    for _ in range(halvings):
        layers += [nn.ConvTranspose2d(c_in, c_in // 2, 4, 2, 1), nn.BatchNorm2d(c_in // 2), nn.ReLU()]
        c_in //= 2
    return _taking(nn.Sequential(*layers, nn.Conv2d(c_in, channels, 3, padding=1), nn.Tanh()), d_z)


class UpBlock(nn.Module):
    """Residual block of the ResNet generator: batch norm, ReLU, up-sampling by 2, two 3x3 convolutions."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)
        self.conv1, self.conv2 = nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, c_in, s, s) -> (batch, c_out, 2s, 2s)."""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2.0))
        # up-sampling last is cheaper and the same: repeating pixels and a 1x1 convolution commute
        return self.conv2(F.relu(self.norm2(h))) + F.interpolate(self.shortcut(x), scale_factor=2.0)


class DownBlock(nn.Module):
    """Residual block of the ResNet discriminator: ReLU, 3x3 convolution twice, average pooling by 2 where asked."""

    def __init__(self, c_in: int, c_out: int, down: bool, first: bool = False, method: str = "none") -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1, self.conv2 = nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if down or c_in != c_out else nn.Identity()
        norm = METHODS[method].features or (lambda channels: nn.Identity())
        self.norm1, self.norm2 = nn.Identity() if first else norm(c_in), norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, c_in, s, s) -> (batch, c_out, s/2, s/2), or (batch, c_out, s, s) without `down`."""
        h = self.conv1(self.norm1(x) if self.first else F.relu(self.norm1(x)))  # images are not rectified
        h = self.conv2(F.relu(self.norm2(h)))
        if not self.down:
            return h + self.shortcut(x)
        if self.first:  # pooling first is cheaper and the same: averaging and a 1x1 convolution commute
            return F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return F.avg_pool2d(h + self.shortcut(x), 2)


class ResNetDiscriminator(nn.Module):
    """Table 4: two down-sampling blocks, two more blocks, ReLU, sum over the feature map, a dense layer. Width 128.

    last_bias: whether the dense layer has a bias; in the authors' code it has none.
    """

    @float32_by_default()
    def __init__(self, channels: int = 3, width: int = 128, method: str = "none", last_bias: bool = True) -> None:
        super().__init__()
        require_method(method)
        self.channels = channels
        self.blocks = nn.Sequential(
            DownBlock(channels, width, down=True, first=True, method=method),
            DownBlock(width, width, down=True, method=method),
            DownBlock(width, width, down=False, method=method),
            DownBlock(width, width, down=False, method=method),
        )
        self.dense = nn.Linear(width, 1, bias=last_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, s, s) -> scores (batch, 1)."""
        if not torch.jit.is_scripting():
            require_input(x, self.channels, "s", "s")
        return self.dense(F.relu(self.blocks(x)).sum(dim=(2, 3)))


@float32_by_default()
def resnet_generator(size: int = 32, channels: int = 3, width: int = 256, d_z: int = 128) -> nn.Sequential:
    """Table 4: dense, up-sampling residual blocks of constant width, batch norm, ReLU, 3x3 convolution, tanh."""
    bottom, halvings = bottom_size(size)
    layers = nn.Sequential(
        nn.Linear(d_z, width * bottom**2),
        nn.Unflatten(1, (width, bottom, bottom)),
        *[UpBlock(width, width) for _ in range(halvings)],
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Tanh(),
    )
    return _taking(layers, d_z)


class SmallClassifier(nn.Module):
    """A small convolutional classifier whose `features` (batch, 64) serve as this course's stand-in for Inception."""

    @float32_by_default()
    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
        )
        self.head = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (batch, channels, s, s) -> features (batch, 64)."""
        if not torch.jit.is_scripting():
            require_input(x, self.body[0].in_channels, "s", "s")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, s, s) -> logits (batch, classes)."""
        return self.head(F.relu(self.features(x)))


def mlp(sizes: tuple[int, ...], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Fully connected network with layers of the given sizes, input first, and `activation` between them."""
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must hold at least an input and an output size, all positive, got {sizes}")
    layers: list[nn.Module] = []
    for d_in, d_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(d_in, d_out), activation()]
    return nn.Sequential(*layers[:-1])


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers in `model`."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def sample_noise(n: int, d_z: int, generator: torch.Generator | None = None) -> Tensor:
    """n latent vectors z ~ N(0, I), shape (n, d_z), float32, on the device of the random `generator`."""
    require_whole(n, "n")
    device = generator.device if generator else None
    return torch.randn(n, d_z, generator=generator, device=device, dtype=torch.float32)
