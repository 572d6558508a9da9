"""GAN training that reads like Algorithm 1 of Miyato et al. 2018: configuration, losses, and the two updates.

Long runs use this very loop: what they keep on disk, what makes them fast and what several processes do stands in
long_runs. From a terminal, without Jupyter: ``python -m course_utils train --help``.

AUTHORS holds what the authors' released code (sngan_projection, its configuration for CIFAR-10 without labels) does
otherwise than the defaults here. With these choices, Config(setting="resnet", architecture="resnet", loss="hinge", size=32,
channels=3, width=128, steps=50_000, decay=True, **AUTHORS) still differs from it in this:

    ==================  ==============================================  ====================================================
    what                the authors' code                               here
    ==================  ==============================================  ====================================================
    power iteration     a round in each pass of D: 11 a cycle           a round in each update: 6 a cycle (Algorithm 1)
    its round           v from u, then u from v; first u is random      u from v, then v from u, as torch's; 15 rounds first
    evaluation of D     with u and v a round on, then forgotten         with u and v as they are
    batch norm in G     epsilon 2e-5                                    1e-5
    Adam                epsilon added before the bias correction        after it
    batches             shuffled, each image once an epoch              drawn with replacement
    precision           float32                                         on the command line bfloat16 on a GPU
    ==================  ==============================================  ====================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .methods import METHODS, Penalty, normalize, require_method, slope_penalty
from .models import (
    INITIALIZATIONS,
    ResNetDiscriminator,
    bottom_size,
    cnn_discriminator,
    cnn_generator,
    initialize_,
    resnet_generator,
    sample_noise,
)
from .spectral import float32_by_default
from .validation import (
    require_bool,
    require_choice,
    require_positive,
    require_range,
    require_scores,
    require_tensor,
    require_whole,
)


@dataclass(frozen=True)
class Setting:
    """Hyper-parameters of Adam (alpha, beta1, beta2) and the discriminator updates per generator update (n_dis).

    alpha_g: the step size of G where it is another one than D's alpha.
    """

    alpha: float
    beta1: float
    beta2: float
    n_dis: int
    alpha_g: float | None = field(default=None, repr=False)


SETTINGS = {  # Table 1 of the paper
    "A": Setting(1e-4, 0.5, 0.9, 5),
    "B": Setting(1e-4, 0.5, 0.999, 1),
    "C": Setting(2e-4, 0.5, 0.999, 1),
    "D": Setting(1e-3, 0.5, 0.9, 5),
    "E": Setting(1e-3, 0.5, 0.999, 5),
    "F": Setting(1e-3, 0.9, 0.999, 5),
}
NAMED_SETTINGS = {**SETTINGS, "resnet": Setting(2e-4, 0.0, 0.9, 5)}  # the ResNet runs of Appendix B.2

# What the authors' code for these runs has besides, as entries of a Config.
AUTHORS = {"init": "glorot", "last_bias": False, "dequantize": True, "batch_size_g": 128, "generator_first": True}

ARCHITECTURES = ("cnn", "resnet")  # Tables 3 and 4


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, with the paper's names. Defaults: the laptop scale of this course.

    method: one of METHODS; setting: one of NAMED_SETTINGS, or a Setting of your own; loss: "standard", "hinge" or
    "wasserstein", None for the one the method was published with. width: channels of D's narrowest layer, and of G's;
    the ResNet's G has twice as many, in Table 4 256 for 128. steps: generator updates; decay: alpha falls linearly to 0
    over them. c: clipping bound; lambda_gp, lambda_ortho: weights of the penalties. penalty: add the gradient penalty to
    a method that has none, such as SN with both in the paper's Table 7. init: one of INITIALIZATIONS; adam_eps: epsilon
    of Adam. last_bias: whether D's dense layer has a bias. dequantize: give D's real images anew each time through
    `dequantized`. batch_size_g: images in the batch of an update of G, None for batch_size. generator_first: G is updated
    before the n_dis updates of D, not after them. AUTHORS has the authors' values of the last four and of init.
    """

    method: str = "spectral_norm"
    setting: str | Setting = "C"
    loss: str | None = None
    architecture: str = "cnn"
    size: int = 16
    channels: int = 1
    width: int = 16
    d_z: int = 128
    batch_size: int = 64
    steps: int = 600
    decay: bool = False
    seed: int = 0
    c: float = 0.01
    lambda_gp: float = 10.0
    lambda_ortho: float = 1e-2
    penalty: bool = False
    init: str = "torch"
    adam_eps: float = 1e-8
    last_bias: bool = True
    dequantize: bool = False
    batch_size_g: int | None = None
    generator_first: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown name or a number out of range."""
        require_method(self.method)
        require_choice(self.architecture, "architecture", ARCHITECTURES)
        require_choice(self.init, "init", INITIALIZATIONS)
        if self.loss is not None:
            require_choice(self.loss, "loss", LOSSES)
        if not isinstance(self.setting, Setting):
            require_choice(self.setting, "setting", NAMED_SETTINGS)
        for name in ("size", "channels", "width", "d_z", "batch_size", "batch_size_g", "steps"):
            if (value := getattr(self, name)) is not None or name != "batch_size_g":
                object.__setattr__(self, name, require_whole(value, name))  # numpy's become Python's: a record is JSON
        object.__setattr__(self, "seed", require_whole(self.seed, "seed", 0))
        if self.seed >= 2**63:
            raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {self.seed!r}")
        for name in ("decay", "penalty", "last_bias", "dequantize", "generator_first"):
            require_bool(getattr(self, name), name)
        bottom_size(self.size)
        for name in ("c", "adam_eps"):
            require_positive(getattr(self, name), name)
        require_whole(self.adam.n_dis, "n_dis")

    @classmethod
    def from_dict(cls, values: dict) -> Config:
        """The configuration whose `dataclasses.asdict` is `values`, as read from a file; ValueError for other names."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise ValueError(f"no configuration has the entries {', '.join(sorted(unknown))}")
        setting = values.get("setting", "C")
        return cls(**{**values, "setting": Setting(**setting) if isinstance(setting, dict) else setting})

    @property
    def adam(self) -> Setting:
        """The values of the setting, whether it was given by letter or in full."""
        return self.setting if isinstance(self.setting, Setting) else NAMED_SETTINGS[self.setting]

    @property
    def loss_name(self) -> str:
        """The loss in use: the one asked for, or the one that belongs to the method."""
        return self.loss or METHODS[self.method].loss

    @property
    def generator_batch(self) -> int:
        """The size of G's batch: the one asked for, or D's."""
        return self.batch_size_g or self.batch_size

    @property
    def penalties(self) -> list[Penalty]:
        """What D's loss is raised by: the method's penalty, and the gradient penalty where `penalty` asks for it."""
        asked_for = [slope_penalty] if self.penalty else []
        return [p for p in dict.fromkeys([*asked_for, METHODS[self.method].penalty]) if p]

    def describe(self) -> str:
        """One readable paragraph with every value, settings spelled out; the authors' choices only where they are made."""
        s = self.adam
        name = "of its own" if self.setting is s else self.setting
        usual = {f.name: f.default for f in fields(self) if f.name in (*AUTHORS, "penalty", "adam_eps", "init")}
        values = ", ".join(
            f"{k} {v}"
            for k, v in asdict(self).items()
            if k not in ("method", "setting", "loss") and not (k in usual and v == usual[k])
        )
        return (
            f"{METHODS[self.method].about}; {self.loss_name} loss; setting {name}: alpha {s.alpha:g}, "
            f"beta1 {s.beta1:g}, beta2 {s.beta2:g}, n_dis {s.n_dis}; {values}"
        )


# Each loss is what the discriminator *minimises*: the paper's value V_D with the sign turned. The mean over a batch stands
# for the expectation E; an empty batch has none, and is refused.
def standard_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-V of (15): -E[log D(x)] - E[log(1 - D(G(z)))] with D = sigmoid(f); real, fake: scores f (batch, 1)."""
    require_scores(real, fake)
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-V_D of (16): E[max(0, 1 - f(x))] + E[max(0, 1 + f(G(z)))]; scores (batch, 1)."""
    require_scores(real, fake)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-(E[f(x)] - E[f(G(z))]) (Arjovsky et al. 2017); scores (batch, 1)."""
    require_scores(real, fake)
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor, loss: str) -> Tensor:
    """What G minimises: -E[log D(G(z))] (non-saturating) for "standard", -E[f(G(z))] of (17) for the other losses."""
    require_choice(loss, "loss", LOSSES)
    require_scores(fake)
    return F.softplus(-fake).mean() if loss == "standard" else -fake.mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "standard": standard_loss,
    "hinge": hinge_loss,
    "wasserstein": wasserstein_loss,
}


@float32_by_default()
def build_models(config: Config) -> tuple[nn.Module, nn.Module]:
    """Generator and (normalized) discriminator of a configuration, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.architecture == "cnn":
            generator = cnn_generator(config.size, config.channels, config.width, config.d_z)
            discriminator = cnn_discriminator(
                config.size, config.channels, config.width, config.method, config.last_bias
            )
        else:
            generator = resnet_generator(config.size, config.channels, 2 * config.width, config.d_z)
            discriminator = ResNetDiscriminator(config.channels, config.width, config.method, config.last_bias)
        for network in (generator, discriminator) if config.init != "orthogonal" else (discriminator,):
            initialize_(network, config.init)
        return generator, normalize(discriminator, config.method)


CURVES = ("d_loss", "g_loss", "real_score", "fake_score")  # one entry of each per generator update


@dataclass
class Run:
    """A training run as it stands after `step` generator updates: networks, optimizers, random state, curves.

    curves: (4, config.steps), one row for each of CURVES, on the device, filled up to `step`. seconds: time in `train`.
    All randomness of the training comes from `rng`: its state is also the position in the data. begun_on: "", or the kind
    of device that a run loaded from a file was made on, if its random state does not fit the present one: such a run is
    for looking at, and cannot go on.
    """

    config: Config
    generator: nn.Module
    discriminator: nn.Module
    adam_g: torch.optim.Adam
    adam_d: torch.optim.Adam
    rng: torch.Generator
    curves: Tensor
    step: int = 0
    seconds: float = 0.0
    begun_on: str = ""

    @classmethod
    def start(cls, config: Config, device: torch.device | str = "cpu") -> Run:
        """A run before its first update, initialised from the seed of `config`, on `device`."""
        generator, discriminator = (model.to(device) for model in build_models(config))
        s = config.adam

        def adam(model: nn.Module, alpha: float) -> torch.optim.Adam:
            trained = [p for p in model.parameters() if p.requires_grad]
            fused = {"fused": True} if torch.device(device).type == "cuda" else {}
            return torch.optim.Adam(trained, alpha, (s.beta1, s.beta2), config.adam_eps, **fused)

        rng = torch.Generator(device).manual_seed(config.seed)
        curves = torch.zeros(len(CURVES), config.steps, dtype=torch.float32, device=device)
        adam_g, adam_d = adam(generator, s.alpha_g or s.alpha), adam(discriminator, s.alpha)
        return cls(config, generator, discriminator, adam_g, adam_d, rng, curves)

    def note(self, values: Tensor) -> None:
        """Append one value for each of CURVES, and count the update.

        Raises FloatingPointError if a loss is NaN or infinite; on a GPU, where to look is to wait, every 100 updates.
        """
        self.curves[:, self.step] = values
        self.step += 1
        every = 1 if self.curves.device.type == "cpu" else 100
        if self.step % every == 0 or self.step == self.config.steps:
            self.require_finite(max(0, self.step - every))

    def curve(self, name: str) -> list[float]:
        """One of CURVES so far, a number for each generator update."""
        return self.curves[CURVES.index(name), : self.step].tolist()

    @property
    def elsewhere(self) -> str:
        """Why the run cannot go on here, if it was loaded on another kind of device than it was begun on; else ""."""
        here = "a CPU" if self.rng.device.type == "cpu" else "a GPU"
        return self.begun_on and (
            f"the run was begun on {self.begun_on}, and here is {here}, whose random numbers are others: to go on would "
            "be another run. It can be looked at here, and resumed there"
        )

    def require_begun_here(self) -> None:
        """Raise ValueError if the run was loaded on another kind of device than the one it was begun on."""
        if self.elsewhere:
            raise ValueError(self.elsewhere)

    def require_finite(self, since: int = 0) -> None:
        """Raise FloatingPointError, naming the first update after `since` whose loss is NaN or infinite."""
        losses = self.curves[:2, since : self.step]
        bad = (~torch.isfinite(losses)).any(0).nonzero()
        if len(bad):
            first = int(bad[0])
            raise FloatingPointError(
                f"{self.config.method} diverged at step {since + first + 1}: D's loss {float(losses[0, first])}, "
                f"G's loss {float(losses[1, first])}"
            )

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n images (n, channels, size, size) from the generator in evaluation mode; the same seed, the same z."""
        device = next(self.generator.parameters()).device
        noise = sample_noise(n, self.config.d_z, torch.Generator().manual_seed(seed)).to(device)
        mode = self.generator.training
        images = torch.cat([self.generator.eval()(z) for z in noise.split(500)])
        self.generator.train(mode)
        return images


def batches(images: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless random batches (batch_size, ...) drawn with replacement from `images` (N, ...)."""
    while True:
        yield images[torch.randint(len(images), (batch_size,), generator=generator, device=images.device)]


def dequantized(images: Tensor, generator: torch.Generator) -> Tensor:
    """Grey level k of 0 to 255, stored as k/127.5 - 1, as the authors' code hands it to D: k/128 - 1 + U(0, 1/128).

    The noise fills the gap between one level and the next: D cannot tell real images by their 256 values.
    """
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return (images + 1) * (255 / 256) - 1 + noise / 128


def two_passes(discriminator: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of real and generated images, from a forward pass each."""
    return discriminator(real), discriminator(fake)


def update_discriminator(
    config: Config, generator: nn.Module, discriminator: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor,
    z: Tensor, rng: torch.Generator, score: Callable = two_passes,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One ascent step of D on V (a descent step on its loss); returns (loss, mean real score, mean fake score)."""
    with torch.no_grad():
        fake = generator(z)
    with parametrize.cached():  # D(real) and D(fake) see the same weight
        real_scores, fake_scores = score(discriminator, real, fake)
        loss = LOSSES[config.loss_name](real_scores, fake_scores)
        for penalty in config.penalties:
            loss = loss + penalty(config, discriminator, real, fake, rng)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if project := METHODS[config.method].project:
        project(config, discriminator)
    return loss.detach(), real_scores.detach().mean(), fake_scores.detach().mean()


def update_generator(
    config: Config, generator: nn.Module, discriminator: nn.Module, optimizer: torch.optim.Optimizer, z: Tensor
) -> Tensor:
    """One descent step of G on its loss, D held fixed; returns the loss."""
    loss = generator_loss(discriminator(generator(z)), config.loss_name)
    optimizer.zero_grad()
    loss.backward(inputs=list(generator.parameters()))  # D's weights get no gradient: they are not updated here
    optimizer.step()
    return loss.detach()


class Updates(NamedTuple):
    """Two functions with the signatures of `update_discriminator` and `update_generator`, and what to call the loop."""

    discriminator: Callable = update_discriminator
    generator: Callable = update_generator
    name: str = "plain float32 loop"


PLAIN = Updates()


def iteration(run: Run, images: Iterator[Tensor], updates: Updates = PLAIN) -> Tensor:
    """One iteration of Algorithm 1: n_dis updates of D, each on fresh images and noise, and one of G; a value for each of CURVES."""
    config, rng, G, D = run.config, run.rng, run.generator, run.discriminator

    def update_g() -> Tensor:
        return updates.generator(config, G, D, run.adam_g, sample_noise(config.generator_batch, config.d_z, rng))

    if config.generator_first:
        g_loss = update_g()
    for _ in range(config.adam.n_dis):
        real, z = next(images), sample_noise(config.batch_size, config.d_z, rng)
        d_loss, real_score, fake_score = updates.discriminator(config, G, D, run.adam_d, real, z, rng)
    if not config.generator_first:
        g_loss = update_g()
    return torch.stack([d_loss, g_loss, real_score, fake_score])


def train(
    config: Config, images: Tensor, callback: Callable[[int, Run], object] | None = None, run: Run | None = None,
    updates: Updates = PLAIN,
) -> Run:  # fmt: skip
    """Train a GAN on images (N, channels, size, size) in [-1, 1], on the device they lie on, and return the run.

    callback(step, run) is called before the first update (step 0) and after each iteration; if it returns True the training
    ends there. run: one that was interrupted, to be continued. updates: what to call in the place of `update_discriminator`
    and `update_generator`, such as what `fast_updates` of long_runs/fast.py returns.
    Raises TypeError or ValueError for images of another kind, shape or range and for a run begun on another kind of device,
    FloatingPointError when a loss is NaN or infinite (the message names the step). On a CPU deterministic in `config.seed`,
    on one machine with one number of threads.
    """
    require_images_of(config, images)
    run = run or Run.start(config, images.device)
    run.require_begun_here()
    real_batches, begun = batches(images, config.batch_size, run.rng), time.perf_counter() - run.seconds
    if config.dequantize:
        real_batches = (dequantized(real, run.rng) for real in real_batches)
    stop = run.step == 0 and callback is not None and callback(0, run) is True
    while run.step < config.steps and not stop:
        set_alpha(run)
        run.note(iteration(run, real_batches, updates))
        run.seconds = time.perf_counter() - begun
        stop = callback is not None and callback(run.step, run) is True
    return run


def require_images_of(config: Config, images: Tensor) -> None:
    """Raise TypeError or ValueError unless `images` are what `config` was made for.

    That is float32, finite and in [-1, 1], of shape (N, channels, size, size).
    """
    expected = (config.channels, config.size, config.size)
    if not isinstance(images, Tensor):
        require_tensor(images, "images", f"a batch (N, *{expected})", 4, 4)
    if images.ndim != 4 or len(images) == 0 or tuple(images.shape[1:]) != expected:
        raise ValueError(f"images must be a non-empty batch of shape (N, *{expected}), got {tuple(images.shape)}")
    if images.dtype != torch.float32:
        raise ValueError(f"images must be finite float32 numbers in [-1, 1], got {images.dtype}")
    require_range(images)


def set_alpha(run: Run) -> None:
    """Give both Adams the step size of the next update: alpha, or what a linear decay to 0 leaves of it."""
    s, left = run.config.adam, 1 - run.step / run.config.steps if run.config.decay else 1
    for optimizer, alpha in ((run.adam_g, s.alpha_g or s.alpha), (run.adam_d, s.alpha)):
        for group in optimizer.param_groups:
            group["lr"] = alpha * left
