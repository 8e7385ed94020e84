"""Which convolutions the engine and the loop's generators give to Winograd's algorithm."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_fast
from tests.double_backward.oracle import loss_error, penalty_error
from tests.double_backward.test_whole_image import rest_of
from wgan_fast.double_backward import winograd
from wgan_fast.double_backward.memory_format import InChannelsLast
from wgan_fast.ops.registration import EXTENSION_MISSING

pytestmark = pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")


class Calls(TorchDispatchMode):
    """How often which operator was called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.names.append(op._opname)
        return op(*args, **(kwargs or {}))

    def of(self, *names):
        return [self.names.count(name) for name in names]


def channels_last(module):
    return module.to(memory_format=torch.channels_last)


def conv(channels, maps, **options):
    return channels_last(nn.Conv2d(channels, maps, 4, stride=2, **options))


def transposed(channels, maps, **options):
    return channels_last(nn.ConvTranspose2d(channels, maps, 4, stride=2, **options))


TAKEN = [
    conv(16, 16), conv(16, 48, padding=1, bias=False), conv(17, 16, padding=(0, 2)),
    transposed(16, 16), transposed(32, 16, padding=1), transposed(16, 19, padding=(0, 2)),
]  # fmt: skip


@pytest.mark.parametrize("layer", TAKEN, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_numbers_as_the_library(layer, dtype):
    layer = layer.to(dtype)
    x = torch.randn(8, layer.in_channels, 9, 10, dtype=dtype, requires_grad=True)
    rest = rest_of(layer)
    assert winograd.suits(x.shape, layer.weight, rest)
    expected = layer(x)
    delta = torch.randn_like(expected)
    wanted = [x, layer.weight] + ([] if layer.bias is None else [layer.bias])
    theirs = torch.autograd.grad(expected, wanted, delta)
    rounding = 1e-11 if dtype == torch.float64 else 5e-4
    close = {"rtol": rounding, "atol": rounding}
    with torch.no_grad():
        mine = winograd.convolve(x, layer.weight, layer.bias, rest)
        torch.testing.assert_close(mine, expected, **close)
        everything = [True, True, layer.bias is not None]
        for flags in (everything, [True, False, False], [False, True, False]):
            found = winograd.gradients(delta, x, layer.weight, x.shape, rest, flags)
            assert [one is not None for one in found] == flags
            for one, other in zip(found, theirs, strict=False):
                if one is not None:
                    torch.testing.assert_close(one, other, **close)


OTHERS = {
    "few channels": (conv(15, 16), (8, 15, 8, 8)),
    "few maps": (conv(16, 15), (8, 16, 8, 8)),
    "another kernel": (channels_last(nn.Conv2d(16, 16, 3, 2)), (8, 16, 8, 8)),
    "another stride": (channels_last(nn.Conv2d(16, 16, 4)), (8, 16, 8, 8)),
    "dilated": (conv(16, 16, dilation=2), (8, 16, 8, 8)),
    "groups": (conv(32, 32, groups=2), (8, 32, 8, 8)),
    "not channels_last": (nn.Conv2d(16, 16, 4, 2), (8, 16, 8, 8)),
    "narrow numbers": (conv(16, 16, dtype=torch.bfloat16), (8, 16, 8, 8)),
    "few pixels": (conv(16, 16), (7, 16, 8, 8)),
    "few pixels of a transposed one": (transposed(16, 16), (7, 16, 4, 4)),
    "filled": (transposed(16, 16, output_padding=1), (8, 16, 8, 8)),
    "other channels than the kernel's": (conv(16, 16), (8, 17, 8, 8)),
    "too few pixels for a kernel": (conv(16, 16), (900, 16, 3, 8)),
    "more padding than maps": (transposed(16, 16, padding=3), (900, 16, 2, 2)),
    "volumes": (nn.Conv3d(16, 16, 4, 2), (8, 16, 8, 8, 8)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_to_the_library(name):
    layer, shape = OTHERS[name]
    assert not winograd.suits(shape, layer.weight, rest_of(layer))


def critic_of(activation):
    return channels_last(
        nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), activation, nn.Conv2d(16, 24, 4, 2, 1), activation,
            nn.Conv2d(24, 1, 4), nn.Flatten(0),
        )
    )  # fmt: skip


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.Tanh()], ids=str)
def test_critics(activation):
    """Curved ones too, whose second derivatives of such layers count."""
    critic = critic_of(activation).double()
    assert penalty_error(critic, (8, 3, 16, 16)) < 1e-10
    assert loss_error(critic, (8, 3, 16, 16), "explicit") < 1e-10


def test_the_engine_takes_it_in_every_pass():
    """Of a contiguous critic as well, whose weights it rearranges."""
    critic = critic_of(nn.LeakyReLU(0.2)).to(memory_format=torch.contiguous_format)
    real, fake = torch.randn(2, 8, 3, 16, 16)
    with Calls() as calls:
        wgan_fast.critic_loss(critic, real, fake, backend="explicit").backward()
    gathered, spread, weights = calls.of("winograd_gather", "winograd_spread", "winograd_weight")
    assert (gathered, spread) == (2, 1)  # the batch and the tangent; the batch's gradient
    assert weights > 0


def test_generators():
    """In graphs, autograd's own calls of them, forwards and backwards."""
    generator = nn.Sequential(
        nn.ConvTranspose2d(20, 32, 4), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
        nn.ReLU(), nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.Flatten(),
    )  # fmt: skip
    z = torch.randn(8, 20, 1, 1, requires_grad=True)
    wanted = [z, *generator.parameters()]
    expected = generator(z)
    delta = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, wanted, delta)
    with Calls() as calls, InChannelsLast():
        found = torch.autograd.grad(generator(z), wanted, delta)
    assert calls.of("winograd_spread", "winograd_gather", "winograd_weight") == [2, 2, 2]
    for one, other in zip(found, theirs, strict=True):
        assert float((one - other).norm()) < 1e-5 * float(other.norm())
