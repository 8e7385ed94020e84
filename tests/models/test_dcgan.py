import pytest
import torch
from torch import nn

from wgan_fast.models import IMAGE_SIZES, DCGANCritic, DCGANGenerator


def test_offers_the_four_sizes():
    assert set(IMAGE_SIZES) == {16, 28, 32, 64}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("image_size", [16, 28, 32, 64])
def test_shapes_and_ranges(image_size, image_channels, dtype):
    generator = DCGANGenerator(
        image_size, latent_dim=7, channels=4, image_channels=image_channels
    ).to(dtype)
    critic = DCGANCritic(image_size, channels=4, image_channels=image_channels).to(dtype)
    images = generator(3 * torch.randn(5, 7, dtype=dtype))
    assert images.shape == (5, image_channels, image_size, image_size)
    assert images.dtype == dtype
    assert images.abs().max() <= 1
    scores = critic(images)
    assert scores.shape == (5,)
    assert scores.dtype == dtype


@pytest.mark.parametrize(
    ("image_size", "critic_widths", "smallest"),
    [(16, [1, 8, 16, 1], 4), (28, [1, 8, 16, 1], 7), (64, [1, 8, 16, 32, 64, 1], 4)],
)
def test_maps_double_where_resolution_halves(image_size, critic_widths, smallest):
    critic = DCGANCritic(image_size, channels=8, image_channels=1)
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [convolutions[0].in_channels] + [c.out_channels for c in convolutions] == critic_widths
    assert convolutions[-1].kernel_size == (smallest, smallest)

    generator = DCGANGenerator(image_size, latent_dim=9, channels=8, image_channels=1)
    transposed = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [c.in_channels for c in transposed] == [9, *critic_widths[-2:0:-1]]
    assert transposed[0].kernel_size == (smallest, smallest)


@pytest.mark.parametrize("normalisation", ["none", "layer", "instance", "batch"])
@pytest.mark.parametrize("image_size", [16, 64])
def test_every_parameter_of_both_sides_gets_a_gradient(image_size, normalisation):
    generator = DCGANGenerator(image_size, latent_dim=7, channels=4, image_channels=1)
    critic = DCGANCritic(image_size, channels=4, image_channels=1, normalisation=normalisation)
    critic(generator(torch.randn(6, 7))).square().sum().backward()
    for name, parameter in [*generator.named_parameters(), *critic.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("normalisation", "mixes_samples"),
    [("none", False), ("layer", False), ("instance", False), ("batch", True)],
)
def test_only_batch_normalisation_mixes_samples(normalisation, mixes_samples):
    critic = DCGANCritic(16, channels=4, image_channels=1, normalisation=normalisation).double()
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    others = torch.cat([images[:1], torch.randn(3, 1, 16, 16, dtype=torch.float64)])
    moved = not torch.allclose(critic(images)[0], critic(others)[0], rtol=1e-12, atol=0)
    assert moved == mixes_samples


def test_layer_normalisation_is_over_channels_and_both_axes():
    critic = DCGANCritic(16, channels=4, image_channels=1, normalisation="layer").double()
    before, normalisation = critic.layers[2], critic.layers[3]
    assert isinstance(before, nn.Conv2d)
    features = 3 + 2 * torch.randn(5, 8, 4, 4, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(features, features.shape[1:])
    torch.testing.assert_close(normalisation(features), expected)


@pytest.mark.parametrize("normalisation", ["layer", "instance", "batch"])
def test_the_first_and_the_last_layer_are_never_normalised(normalisation):
    layers = DCGANCritic(32, channels=4, normalisation=normalisation).layers
    normalised = nn.GroupNorm | nn.InstanceNorm2d | nn.BatchNorm2d
    places = [place for place, layer in enumerate(layers) if isinstance(layer, normalised)]
    convolutions = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    assert places == [place + 1 for place in convolutions[1:-1]]


def test_weights_are_drawn_from_the_papers_normal():
    for network in (
        DCGANGenerator(64, channels=16),
        DCGANCritic(64, channels=16, normalisation="batch"),
    ):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                n = module.weight.numel()
                # Five standard errors of a mean and of a standard deviation.
                assert abs(module.weight.mean()) < 5 * 0.02 / n**0.5
                assert abs(module.weight.std() - 0.02) < 5 * 0.02 / (2 * n) ** 0.5
                assert module.bias is None or not module.bias.any()
            elif isinstance(module, nn.BatchNorm2d):
                n = module.weight.numel()
                assert abs(module.weight.mean() - 1) < 5 * 0.02 / n**0.5
                assert not module.bias.any()


@pytest.mark.parametrize("network", [DCGANGenerator, DCGANCritic])
@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"image_size": 20}, ValueError, r"image_size: expected one of 16, 28, 32, 64, got 20"),
        ({"image_size": 16, "channels": 0}, ValueError, r"channels: .*got 0"),
        ({"image_size": 16, "channels": 8.0}, TypeError, r"channels: expected an int, got 8.0"),
        ({"image_size": 16, "image_channels": True}, TypeError, r"image_channels: .*True"),
    ],
)
def test_bad_sizes_name_the_argument(network, arguments, kind, words):
    with pytest.raises(kind, match=words):
        network(**arguments)


def test_bad_normalisation_names_the_argument():
    with pytest.raises(ValueError, match=r"normalisation: expected one of 'none'.*got 'group'"):
        DCGANCritic(16, normalisation="group")


def test_bad_inputs_name_the_shape():
    with pytest.raises(ValueError, match=r"z: expected shape \(B, 5\), got \(2, 6\)"):
        DCGANGenerator(16, latent_dim=5)(torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"images: expected shape \(B, 3, 16, 16\), got \(2, 1"):
        DCGANCritic(16)(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"images: .*got \(3, 16, 16\)"):
        DCGANCritic(16)(torch.zeros(3, 16, 16))
