"""models.py: shapes, and the paper's layer tables counted by hand."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from course_utils.methods import METHODS, normalize
from course_utils.models import (
    DownBlock,
    ResNetDiscriminator,
    SmallClassifier,
    UpBlock,
    bottom_size,
    cnn_discriminator,
    cnn_generator,
    count_parameters,
    mlp,
    resnet_generator,
    sample_noise,
)
from course_utils.normalization import spectral_norm
from course_utils.spectral import linear_layers

SIZES = {16: (4, 2), 28: (7, 2), 32: (4, 3), 48: (6, 3)}


def images(n, channels, size):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def conv_numbers(c_in, c_out, k):
    return c_in * c_out * k * k + c_out


@pytest.mark.parametrize("size, expected", [*SIZES.items(), (4, (4, 0)), (5, (5, 0)), (64, (4, 4)), (80, (5, 4))])
def test_bottom_size(size, expected):
    assert bottom_size(size) == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_at_every_size(size, channels):
    z, x = sample_noise(2, 5), images(2, channels, size)
    for generator in (cnn_generator(size, channels, 4, 5), resnet_generator(size, channels, 4, 5)):
        made = generator(z)
        assert made.shape == x.shape and made.abs().max() <= 1
    for discriminator in (cnn_discriminator(size, channels, 4), ResNetDiscriminator(channels, 4)):
        assert discriminator(x).shape == (2, 1)
    classifier = SmallClassifier(channels)
    assert classifier(x).shape == (2, 10) and classifier.features(x).shape == (2, 64)


# ---- Table 3 at its own scale: 32 pixels, 3 channels, width 64


def test_cnn_discriminator_is_table_3():
    net = cnn_discriminator(32, 3, 64)
    convolutions = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    table = [(64, 3, 1), (64, 4, 2), (128, 3, 1), (128, 4, 2), (256, 3, 1), (256, 4, 2), (512, 3, 1)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == table
    assert all(c.padding == (1, 1) for c in convolutions)
    assert [layer.negative_slope for layer in net if isinstance(layer, nn.LeakyReLU)] == [0.1] * 7
    assert net[-1].in_features == 4 * 4 * 512
    by_hand = (
        (3 * 64 * 9 + 64) + (64 * 64 * 16 + 64) + (64 * 128 * 9 + 128) + (128 * 128 * 16 + 128)
        + (128 * 256 * 9 + 256) + (256 * 256 * 16 + 256) + (256 * 512 * 9 + 512) + (8192 + 1)
    )  # fmt: skip
    assert count_parameters(net) == by_hand == 2_935_873
    x, maps = images(1, 3, 32), []
    for layer in net:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            maps.append(tuple(x.shape[1:]))
    assert maps == [(64, 32, 32), (64, 16, 16), (128, 16, 16), (128, 8, 8), (256, 8, 8), (256, 4, 4), (512, 4, 4)]


def test_cnn_generator_is_table_3():
    net = cnn_generator(32, 3, 64, 128)
    ups = [layer for layer in net if isinstance(layer, nn.ConvTranspose2d)]
    assert net[0].out_features == 4 * 4 * 512
    assert [(u.in_channels, u.out_channels) for u in ups] == [(512, 256), (256, 128), (128, 64)]
    assert all((u.kernel_size, u.stride, u.padding) == ((4, 4), (2, 2), (1, 1)) for u in ups)
    assert [type(layer) for layer in net][2:] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3 + [
        nn.Conv2d,
        nn.Tanh,
    ]
    by_hand = (128 * 8192 + 8192) + (512 * 256 * 16 + 256) + (256 * 128 * 16 + 128) + (128 * 64 * 16 + 64)
    by_hand += 2 * (256 + 128 + 64) + (64 * 3 * 9 + 3)
    assert count_parameters(net) == by_hand == 3_812_355


def test_resnet_generator_is_table_4():
    net = resnet_generator(32, 3, 256, 128)
    assert [type(layer) for layer in net][2:] == [UpBlock] * 3 + [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.Tanh]
    block = 2 * conv_numbers(256, 256, 3) + conv_numbers(256, 256, 1) + 2 * 2 * 256
    by_hand = (128 * 4096 + 4096) + 3 * block + 2 * 256 + conv_numbers(256, 3, 3)
    assert count_parameters(net) == by_hand


def test_resnet_discriminator_is_table_4():
    net = ResNetDiscriminator(3, 128)
    assert [(b.down, b.first) for b in net.blocks] == [(True, True), (True, False), (False, False), (False, False)]
    first = conv_numbers(3, 128, 3) + conv_numbers(128, 128, 3) + conv_numbers(3, 128, 1)
    second = 2 * conv_numbers(128, 128, 3) + conv_numbers(128, 128, 1)
    last = 2 * conv_numbers(128, 128, 3)  # the shortcut is the identity
    assert count_parameters(net) == first + second + 2 * last + (128 + 1)
    assert net.blocks(images(1, 3, 32)).shape == (1, 128, 8, 8)


@pytest.mark.parametrize("size, convolutions", [(16, 5), (28, 5), (32, 7), (48, 7)])
def test_number_of_convolutions(size, convolutions):
    assert sum(isinstance(layer, nn.Conv2d) for layer in cnn_discriminator(size, 1, 2)) == convolutions


# ---- residual blocks


def test_down_block_adds_its_shortcut():
    x = images(2, 3, 8)
    same = DownBlock(3, 3, down=False)
    for layer in (same.conv1, same.conv2):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    assert torch.equal(same(x), x)
    half = DownBlock(3, 5, down=True)
    for layer in (half.conv1, half.conv2):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    torch.testing.assert_close(half(x), F.avg_pool2d(half.shortcut(x), 2))


def test_first_block_pools_before_its_shortcut_and_gets_the_same_without_rectifying_images():
    x, block = images(2, 3, 8), DownBlock(3, 5, down=True, first=True)
    expected = F.avg_pool2d(block.conv2(F.relu(block.conv1(x))) + block.shortcut(x), 2)
    torch.testing.assert_close(block(x), expected)
    later = DownBlock(3, 5, down=True)
    expected = F.avg_pool2d(later.conv2(F.relu(later.conv1(F.relu(x)))) + later.shortcut(x), 2)
    torch.testing.assert_close(later(x), expected)


def test_up_block_doubles_the_side_and_adds_its_shortcut():
    x, block = images(2, 3, 4), UpBlock(3, 5)
    assert block(x).shape == (2, 5, 8, 8)
    for layer in (block.conv1, block.conv2):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    torch.testing.assert_close(block(x), block.shortcut(F.interpolate(x, scale_factor=2)))


def test_resnet_scores_sum_over_the_feature_map():
    net = ResNetDiscriminator(1, 4)
    x = images(2, 1, 16)
    h = F.relu(net.blocks(x))
    torch.testing.assert_close(net(x), F.linear(h.flatten(2).sum(2), net.dense.weight, net.dense.bias))


# ---- normalization layers without gain


@pytest.mark.parametrize("method, kind", [("batch_norm", nn.BatchNorm2d), ("layer_norm", nn.GroupNorm)])
@pytest.mark.parametrize("build", [lambda m: cnn_discriminator(16, 1, 4, m), lambda m: ResNetDiscriminator(1, 4, m)])
def test_feature_norms_train_their_bias_but_not_their_gain(method, kind, build):
    net = build(method)
    norms = [module for module in net.modules() if isinstance(module, kind)]
    assert len(norms) == (4 if isinstance(net, nn.Sequential) else 7)  # all convolutions but the first
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(images(4, 1, 16)).square().sum().backward()
    optimizer.step()
    for norm in norms:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight)) and not norm.weight.requires_grad
    assert any(norm.bias.abs().sum() > 0 for norm in norms)
    plain = build("none")
    assert count_parameters(net) - count_parameters(plain) == sum(len(norm.bias) for norm in norms)


def test_layer_norm_is_over_channels_and_places_of_one_image():
    norm = next(m for m in cnn_discriminator(16, 1, 4, "layer_norm") if isinstance(m, nn.GroupNorm))
    x = images(5, norm.num_channels, 6) * torch.arange(1.0, norm.num_channels + 1)[:, None, None] + 3
    torch.testing.assert_close(norm(x), F.layer_norm(x, x.shape[1:]))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("batch_norm", "layer_norm")])
def test_other_methods_leave_the_architecture_alone(method):
    assert str(cnn_discriminator(16, 1, 4, method)) == str(cnn_discriminator(16, 1, 4))
    assert str(ResNetDiscriminator(1, 4, method)) == str(ResNetDiscriminator(1, 4))


# ---- the small things


def test_mlp():
    net = mlp((3, 5, 4, 2), nn.Tanh)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh] * 2 + [nn.Linear]
    assert [tuple(layer.weight.shape) for layer in linear_layers(net)] == [(5, 3), (4, 5), (2, 4)]
    assert count_parameters(net) == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2
    net[0].weight.requires_grad_(False)
    assert count_parameters(net) == 5 + 5 * 4 + 4 + 4 * 2 + 2


def test_sample_noise_is_gaussian_and_repeatable():
    first, second = (sample_noise(2000, 3, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (2000, 3)
    assert abs(float(first.mean())) < 0.05 and abs(float(first.std()) - 1) < 0.05


# ---- bad input


@pytest.mark.parametrize("size", [0, -16, 1, 3, 17, 18, 36, "16", 16.0, None])
def test_bad_sizes_are_named(size):
    for build in (bottom_size, cnn_discriminator, cnn_generator, resnet_generator):
        with pytest.raises(ValueError, match=f"4 to 7 times a power of two .*got {size!r}"):
            build(size)


def test_unknown_methods_are_named():
    for build in (lambda m: cnn_discriminator(method=m), lambda m: ResNetDiscriminator(method=m)):
        with pytest.raises(ValueError, match="unknown method 'batchnorm'; choose one of: none"):
            build("batchnorm")


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0), (0, 2)])
def test_bad_mlp_sizes_are_named(sizes):
    with pytest.raises(ValueError, match="input and an output size, all positive"):
        mlp(sizes)


def test_no_noise_is_an_error():
    with pytest.raises(ValueError, match="n must be a whole number, 1 or more, got 0"):
        sample_noise(0, 3)


@pytest.mark.parametrize(
    "model, good, expected",
    [
        (cnn_discriminator(16, 1, 4), (2, 1, 16, 16), "1, 16, 16"),
        (cnn_generator(16, 1, 4, 5), (2, 5), "5"),
        (resnet_generator(16, 1, 4, 5), (2, 5), "5"),
        (ResNetDiscriminator(3, 4), (2, 3, 16, 16), "3, s, s"),
        (SmallClassifier(3), (2, 3, 16, 16), "3, s, s"),
    ],
)
def test_wrong_inputs_are_named(model, good, expected):
    model(torch.zeros(good))
    for bad in ((2, good[1] + 1, *good[2:]), good[1:], (0, *good[1:]), (*good, 1)):
        found = rf"input must be a batch \(batch, {expected}\).*got {re.escape(str(tuple(bad)))}"
        with pytest.raises(ValueError, match=found):
            model(torch.zeros(bad))
    for bad, got in (([0.0], "list"), (torch.zeros(good, dtype=torch.int64), "torch.int64")):
        with pytest.raises(TypeError, match="input must be a floating-point tensor, got " + got):
            model(bad)


def test_a_copy_still_checks_its_input_and_can_be_saved(tmp_path):
    torch.save(cnn_discriminator(16, 1, 4), tmp_path / "model.pt")
    copies = copy.deepcopy(cnn_discriminator(16, 1, 4)), torch.load(tmp_path / "model.pt", weights_only=False)
    for model in copies:
        with pytest.raises(ValueError, match=r"got \(2, 1, 28, 28\)"):
            model(images(2, 1, 28))


@pytest.mark.parametrize(
    "model, shape",
    [
        (cnn_generator(16, 1, 4, 5), (2, 5)),
        (resnet_generator(16, 1, 4, 5), (2, 5)),
        (cnn_discriminator(16, 1, 4), (2, 1, 16, 16)),
        (cnn_discriminator(16, 1, 4, "layer_norm"), (2, 1, 16, 16)),
        (ResNetDiscriminator(1, 4, "batch_norm"), (2, 1, 16, 16)),
        (SmallClassifier(1), (2, 1, 16, 16)),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_networks_can_be_scripted_and_traced(model, shape):
    model.eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.jit.script(model)(x), model(x))
    assert torch.equal(torch.jit.trace(model, x[:1])(x), model(x))


def test_a_normalized_discriminator_can_be_scripted_with_its_weights_as_they_are_used():
    model = normalize(cnn_discriminator(16, 1, 4), "spectral_norm").eval()
    x = images(2, 1, 16)
    expected = model(x)
    for layer in linear_layers(model):
        parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(torch.jit.script(model)(x), expected)


@pytest.mark.parametrize("build", [lambda: cnn_discriminator(16, 1, 4), lambda: ResNetDiscriminator(1, 4)])
@pytest.mark.parametrize(
    "apply", [spectral_norm, torch.nn.utils.parametrizations.spectral_norm], ids=["ours", "torchs"]
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_normalized_discriminator_can_be_traced_in_evaluation_mode_and_like_torchs_not_scripted(apply, build):
    model = build()
    for layer in linear_layers(model):
        apply(layer)
    model.eval()
    traced = torch.jit.trace(model, images(2, 1, 16))
    assert torch.equal(traced(images(5, 1, 16)), model(images(5, 1, 16)))
    with pytest.raises((RuntimeError, torch.jit.frontend.FrontendError)):
        torch.jit.script(model)


@pytest.mark.parametrize("build", [cnn_discriminator, ResNetDiscriminator])
def test_the_last_bias_can_be_left_out(build):
    without = build(width=4, last_bias=False)
    assert count_parameters(build(width=4)) - count_parameters(without) == 1
    assert list(linear_layers(without))[-1].bias is None and without(images(2, 3, 32)).shape == (2, 1)


def test_without_its_last_bias_the_resnet_discriminator_has_as_many_parameters_as_the_authors():
    assert count_parameters(ResNetDiscriminator(3, 128, last_bias=False)) == 1_053_824
    assert count_parameters(resnet_generator(32, 3, 256, 128)) == 4_276_739
