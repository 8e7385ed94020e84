"""Networks with labels, of packs, with maps of scores and with two resolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wgan_fast.models import (
    DCGANCritic,
    DCGANGenerator,
    InpaintingCritic,
    InpaintingGenerator,
    LabelledCritic,
    LabelledGenerator,
    MLPCritic,
    MultiScaleCritic,
    PackedCritic,
    PairCritic,
    PairGenerator,
    PatchCritic,
    with_hole,
)


def images(size=16, channels=1, batch=4):
    return torch.randn(batch, channels, size, size, dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "maps"), [(16, (4, 2)), (28, (7, 3)), (32, (8, 4)), (64, (16, 8))]
)
def test_maps_of_scores(size, maps):
    x = images(size)
    patch = PatchCritic(channels=4, image_channels=1).double()
    assert patch(x).shape == (4, 1, maps[0], maps[0])
    scales = MultiScaleCritic(channels=4, image_channels=1).double()
    fine, coarse = scales(x)
    assert [fine.shape[-1], coarse.shape[-1]] == list(maps)
    torch.testing.assert_close(fine, scales.scales[0](x))
    torch.testing.assert_close(coarse, scales.scales[1](F.avg_pool2d(x, 2)))


def test_a_score_sees_eighteen_pixels():
    x = images(64, batch=1).requires_grad_()
    scores = PatchCritic(channels=4, image_channels=1).double()(x)
    (gradient,) = torch.autograd.grad(scores[0, 0, 8, 8], x)
    rows, columns = gradient[0, 0].nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 18


@pytest.mark.parametrize("normalisation", ["none", "layer", "instance", "batch"])
@pytest.mark.parametrize("kind", [PatchCritic, MultiScaleCritic])
def test_normalisations_and_spectral_norm(kind, normalisation):
    critic = kind(channels=4, image_channels=1, normalisation=normalisation, lipschitz="spectral")
    scores = critic.double()(images())
    sum(s.square().sum() for s in (scores if isinstance(scores, list) else [scores])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in critic.parameters())
    names = [type(module).__name__ for module in critic.modules()]
    assert any("ParametrizedConv2d" in name for name in names)


def test_packs_are_laid_side_by_side():
    inner = nn.Conv2d(6, 1, 3).double()
    x = images(5, channels=3)
    packed = PackedCritic(inner, 2)(x)
    torch.testing.assert_close(
        packed, inner(torch.stack([x[:2].flatten(0, 1), x[2:].flatten(0, 1)]))
    )
    points = torch.randn(6, 2, dtype=torch.float64)
    inner = MLPCritic(6, 8).double()
    torch.testing.assert_close(PackedCritic(inner, 3)(points), inner(points.reshape(2, 6)))


def test_labels_change_what_comes_and_their_tables_learn():
    generator = DCGANGenerator(16, latent_dim=3 + 5, channels=2, image_channels=1)
    generator = LabelledGenerator(generator, 4, 5).double().eval()
    critic = LabelledCritic(DCGANCritic(16, channels=2, image_channels=2), 4, 16).double()
    z = torch.randn(1, 3, dtype=torch.float64).expand(4, 3)
    x = generator(z, torch.arange(4))
    assert len({tuple(image.flatten().tolist()) for image in x}) == 4
    scores = critic(x[:1].expand(4, -1, -1, -1), torch.arange(4))
    assert scores.shape == (4,)
    assert len(set(scores.tolist())) == 4
    critic(x, torch.tensor([0, 1, 1, 3])).sum().backward()
    for table, used in ((generator.table, [0, 1, 2, 3]), (critic.table, [0, 1, 3])):
        assert table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == used


def test_a_hole_alone_is_filled_by_what_is_around_it_and_by_z():
    generator = InpaintingGenerator(16, latent_dim=3, channels=2, image_channels=2).double().eval()
    critic = InpaintingCritic(DCGANCritic(16, channels=2, image_channels=5)).double()
    x, hole = images(channels=2), torch.zeros(4, 1, 16, 16, dtype=torch.float64)
    hole[:, :, 3:9, 5:11] = 1
    holed = with_hole(x, hole)
    assert torch.equal(holed[:, 2:], hole)
    assert (holed[:, :2, 3:9, 5:11] == 0).all()
    filled = generator(torch.randn(4, 3, dtype=torch.float64), holed)
    assert ((filled != x) == hole.bool().expand_as(x)).all()
    z = torch.randn(1, 3, dtype=torch.float64).expand(4, 3)
    around = generator(z, holed)[:, :, 3:9, 5:11]
    assert len({tuple(one.flatten().tolist()) for one in around}) == 4
    same = generator(torch.randn(4, 3, dtype=torch.float64), holed[:1].expand(4, -1, -1, -1))
    assert len({tuple(one.flatten().tolist()) for one in same}) == 4
    critic(filled, holed).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in generator.encoder.parameters())
    assert critic(x, holed).shape == (4,)


@pytest.mark.parametrize("lipschitz", ["none", "spectral"])
def test_pairs(lipschitz):
    generator = DCGANGenerator(16, latent_dim=3 + 5, channels=2, image_channels=1)
    generator = PairGenerator(generator, 3, 5).double()
    inner = DCGANCritic(16, channels=2, image_channels=2)
    critic = PairCritic(inner, 5, 16, lipschitz).double()
    made, rows = generator(torch.randn(4, 3, dtype=torch.float64))
    assert (made.shape, rows.shape) == ((4, 1, 16, 16), (4, 5))
    torch.testing.assert_close(rows.sum(1), torch.ones(4, dtype=torch.float64))
    scores = critic((made, rows))
    assert scores.shape == (4,)
    other = critic((made, rows.flip(1)))
    assert (scores != other).all()
    scores.sum().backward()
    assert all(
        p.grad.abs().max() > 0 for p in (*generator.label.parameters(), *critic.parameters())
    )
    for _ in range(2000):  # each look at it is a power iteration, slow where two values are close
        critic.channel.weight  # noqa: B018
    norm = torch.linalg.matrix_norm(critic.channel.weight, 2).item()
    assert (abs(norm - 1) < 1e-3) == (lipschitz == "spectral")


def test_bad_arguments_name_themselves():
    with pytest.raises(ValueError, match=r"images: expected shape \(B, 3, H, W\) with sides of at"):
        PatchCritic()(images())
    with pytest.raises(ValueError, match=r"images: .* at least 4, got \(4, 1, 3, 3\)"):
        PatchCritic(image_channels=1)(images(3))
    with pytest.raises(ValueError, match=r"normalisation: expected one of"):
        PatchCritic(normalisation="group")
    with pytest.raises(ValueError, match=r"samples: expected a multiple of pac=3, got 4"):
        PackedCritic(nn.Identity(), 3)(images())
    with pytest.raises(ValueError, match="pac: "):
        PackedCritic(nn.Identity(), 0)
    with pytest.raises(ValueError, match="classes: "):
        LabelledGenerator(nn.Identity(), 0, 3)
    with pytest.raises(ValueError, match="context_dim: "):
        InpaintingGenerator(16, context_dim=0)
    with pytest.raises(ValueError, match="latent_dim: "):
        PairGenerator(nn.Identity(), 0, 3)
    with pytest.raises(ValueError, match="lipschitz: "):
        PairCritic(nn.Identity(), 3, 4, "clip")
    with pytest.raises(TypeError, match="image_size: "):
        LabelledCritic(nn.Identity(), 3, 4.0)
