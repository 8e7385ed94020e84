"""Convolutions whose kernel sees the whole image, as products: the same numbers, fewer calls."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_fast
from tests.double_backward.oracle import loss_error, penalty_error
from wgan_fast.double_backward import whole_image
from wgan_fast.double_backward.memory_format import InChannelsLast

aten = torch.ops.aten
IMAGES = {1: (4, 3, 5), 2: (4, 3, 5, 6), 3: (4, 3, 2, 3, 2)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
# Kinds of layers by what they take: (layer, shape of its input)
LAYERS = {
    "kernel as large as the image": lambda rank, **k: (
        CONV[rank](3, 7, IMAGES[rank][2:], **k),
        IMAGES[rank],
    ),
    "strides": lambda rank, **k: (
        CONV[rank](3, 7, IMAGES[rank][2:], stride=2, **k),
        IMAGES[rank],
    ),
    "one pixel": lambda rank, **k: (
        CONV[rank](3, 7, 1, dilation=2, **k),
        (4, 3, *(1,) * rank),
    ),
    "transposed, of one pixel": lambda rank, **k: (
        TRANSPOSED[rank](3, 7, IMAGES[rank][2:], **k),
        (4, 3, *(1,) * rank),
    ),
    "transposed, with strides": lambda rank, **k: (
        TRANSPOSED[rank](3, 7, IMAGES[rank][2:], stride=2, **k),
        (4, 3, *(1,) * rank),
    ),
}
FORMATS = [torch.contiguous_format, torch.channels_last]


class Convolutions(TorchDispatchMode):
    """How many calls of the library's convolutions."""

    calls = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.calls += op in (aten.convolution.default, aten.convolution_backward.default)
        return op(*args, **(kwargs or {}))


def rest_of(layer):
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    rank = layer.weight.dim() - 2
    output_padding = layer.output_padding if transposed else (0,) * rank
    padding, dilation = layer.padding, layer.dilation
    return layer.stride, padding, dilation, transposed, output_padding, layer.groups


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_same_numbers_as_the_library(name, rank, bias):
    layer, shape = LAYERS[name](rank, bias=bias)
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    rest = rest_of(layer)
    assert whole_image.suits(x.shape, layer.weight, rest)
    expected = layer(x)
    with torch.no_grad():
        mine = whole_image.convolve(x, layer.weight, layer.bias, rest)
    torch.testing.assert_close(mine, expected)

    delta = torch.randn_like(expected)
    wanted = [x, layer.weight] + ([layer.bias] if bias else [])
    theirs = torch.autograd.grad(expected, wanted, delta)
    flags = [True, True, bias]
    with torch.no_grad():
        found = whole_image.gradients(delta, x, layer.weight, x.shape, rest, flags)
    for one, other in zip(found, theirs, strict=False):
        torch.testing.assert_close(one, other)
    for position, ask in enumerate(([True, False, False], [False, True, False])):
        with torch.no_grad():
            alone = whole_image.gradients(delta, x, layer.weight, x.shape, rest, ask)
        assert [part is not None for part in alone] == ask
        torch.testing.assert_close(alone[position], theirs[position])


@pytest.mark.parametrize("of_weight", FORMATS)
@pytest.mark.parametrize("of_image", FORMATS)
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts(transposed, of_image, of_weight):
    """Whatever lies how in memory; images come in the layout of what they are made of."""
    images = torch.randn(4, 3, 5, 6).to(memory_format=of_image)
    weight = torch.randn(7, 3, 5, 6).to(memory_format=of_weight)
    vectors = torch.randn(4, 7, 1, 1)
    rest = (1, 1), (0, 0), (1, 1), transposed, (0, 0), 1
    both = [True, True, False]
    if transposed:
        made = whole_image.convolve(vectors, weight, None, rest)
        torch.testing.assert_close(made, nn.functional.conv_transpose2d(vectors, weight))
        assert made.is_contiguous(memory_format=of_weight)
        gradients = whole_image.gradients(images, vectors, weight, vectors.shape, rest, both)
        torch.testing.assert_close(gradients[0], nn.functional.conv2d(images, weight))
    else:
        made = whole_image.convolve(images, weight, None, rest)
        torch.testing.assert_close(made, nn.functional.conv2d(images, weight))
        gradients = whole_image.gradients(vectors, images, weight, images.shape, rest, both)
        expected = nn.functional.conv_transpose2d(vectors, weight)
        torch.testing.assert_close(gradients[0], expected)
        assert gradients[0].is_contiguous(memory_format=of_weight)
    expected = torch.einsum("nm,nchw->mchw", vectors.flatten(1), images)
    torch.testing.assert_close(gradients[1], expected)
    assert gradients[1].is_contiguous(memory_format=of_image)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 5, padding=1),
        nn.Conv2d(4, 6, 5, groups=2),
        nn.Conv2d(4, 6, 4),
        nn.Conv2d(4, 6, 3, dilation=2),
        nn.Conv2d(4, 6, 5, dtype=torch.bfloat16),
        nn.ConvTranspose2d(4, 6, 5),
    ],
    ids=str,
)
def test_others_are_left_to_the_library(layer):
    assert not whole_image.suits((4, 4, 5, 5), layer.weight, rest_of(layer))


def test_numbers_that_count_for_all_axes():
    critic = nn.Sequential(nn.Conv2d(3, 1, (4, 5)), nn.Flatten(0)).double()
    weight, bias = critic[0].weight, critic[0].bias

    def forward(x):
        return torch.convolution(x, weight, bias, [1], [0], [1], False, [0], 1).flatten(0)

    x = torch.randn(6, 3, 4, 5, dtype=torch.float64)
    alpha = torch.rand(3, dtype=torch.float64)
    mine, expected = (
        wgan_fast.gradient_penalty(c, x[:3], x[3:], alpha=alpha) for c in (forward, critic)
    )
    torch.testing.assert_close(mine, expected)
    with InChannelsLast():
        torch.testing.assert_close(forward(x), critic(x))
    assert not whole_image.suits((1, 3, 1, 5), weight[:, :, :1], ([1], [0], [2], False, [0], 1))


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "output_padding": 1}], ids=str)
def test_transposed_ones_that_are_cut_or_filled(options):
    layer = nn.ConvTranspose2d(4, 6, 5, **options)
    assert not whole_image.suits((4, 4, 1, 1), layer.weight, rest_of(layer))


def critic_of_one_layer_more():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 6), nn.Tanh(),
        nn.Conv2d(5, 1, 1), nn.Flatten(0),
    ).double()  # fmt: skip


def test_critics():
    """Curved ones too, whose second derivatives of such layers count."""
    critic = critic_of_one_layer_more()
    assert penalty_error(critic, (5, 3, 6, 6)) < 1e-10
    assert loss_error(critic, (5, 3, 6, 6), "explicit") < 1e-10


def test_the_engine_calls_the_library_for_the_other_layers_alone():
    critic = critic_of_one_layer_more()
    x = torch.randn(10, 3, 6, 6, dtype=torch.float64)
    with Convolutions() as seen:
        loss = wgan_fast.gradient_penalty(critic, x[:5], x[5:], backend="explicit")
    with Convolutions() as alone:
        first = nn.Sequential(critic[0], nn.Tanh(), nn.Flatten(1), nn.Linear(144, 1).double())
        wgan_fast.gradient_penalty(first, x[:5], x[5:], backend="explicit")
    loss.backward()
    assert 0 < seen.calls == alone.calls


def test_generators():
    """In graphs, autograd's own calls of them, forwards and backwards."""
    generator = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 5), nn.Tanh(), nn.Conv2d(6, 2, 5, bias=False), nn.Flatten()
    ).double()
    z = torch.randn(3, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    wanted = [z, *generator.parameters()]
    delta = torch.randn(3, 2, dtype=torch.float64)
    expected = torch.autograd.grad(generator(z), wanted, delta)
    with Convolutions() as seen, InChannelsLast():
        found = torch.autograd.grad(generator(z), wanted, delta)
    assert seen.calls == 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
