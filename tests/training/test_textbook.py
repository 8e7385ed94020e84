"""The trainer against a textbook loop that shares nothing with it but the first parameters."""

import copy

import pytest
import torch
import torch.nn.functional as F

from wgan_fast.training import load_checkpoint
from wgan_fast.training.data import load_data
from wgan_fast.training.networks import build_networks

DEVICE, DTYPE = torch.device("cpu"), torch.float64


def textbook(config):
    """What a tutorial prints: graphs everywhere, three critic calls, one clamp per parameter."""
    generator, critic = build_networks(config, DEVICE, DTYPE)
    data = load_data(config, DEVICE, DTYPE)
    rng = torch.Generator().manual_seed(config.seed + 2**32)

    def z(*steps):
        shape = *steps, config.batch_size, config.latent_dim
        return torch.randn(shape, generator=rng, dtype=DTYPE)

    if config.objective == "wgan":
        optimizers = [torch.optim.RMSprop(m.parameters(), lr=5e-5) for m in (critic, generator)]
    else:
        settings = {
            ("dcgan", False): {"lr": 2e-4, "betas": (0.5, 0.999)},
            ("dcgan", True): {"lr": 2e-4, "betas": (0.5, 0.999)},
            ("wgan-gp", False): {"lr": 1e-4, "betas": (0.0, 0.9)},
            ("wgan-gp", True): {"lr": 1e-4, "betas": (0.5, 0.9)},
        }[config.objective, config.data != "digits"]
        optimizers = [torch.optim.Adam(m.parameters(), **settings) for m in (critic, generator)]
    critic_optimizer, generator_optimizer = optimizers
    ones = torch.ones(config.batch_size, dtype=DTYPE)

    for _ in range(config.steps):
        reals = [data(config.batch_size, rng) for _ in range(config.n_critic)]
        latents = z(config.n_critic)
        epsilons = torch.rand(config.n_critic, config.batch_size, generator=rng, dtype=DTYPE)
        for real, latent, epsilon in zip(reals, latents, epsilons, strict=True):
            fake = generator(latent)
            critic_optimizer.zero_grad()
            if config.objective == "dcgan":
                loss = F.binary_cross_entropy_with_logits(
                    critic(real), ones
                ) + F.binary_cross_entropy_with_logits(critic(fake.detach()), 0 * ones)
            else:
                loss = critic(fake.detach()).mean() - critic(real).mean()
            if config.objective == "wgan-gp":
                epsilon = epsilon.reshape(-1, *[1] * (real.ndim - 1))
                mixed = epsilon * real + (1 - epsilon) * fake.detach()
                mixed.requires_grad_()
                scores = critic(mixed)
                (gradient,) = torch.autograd.grad(
                    scores, mixed, torch.ones_like(scores), create_graph=True, retain_graph=True
                )
                norms = gradient.reshape(config.batch_size, -1).norm(2, dim=1)
                loss = loss + (10 if config.data == "digits" else 0.1) * ((norms - 1) ** 2).mean()
            loss.backward()
            critic_optimizer.step()
            if config.objective == "wgan":
                for parameter in critic.parameters():
                    parameter.data.clamp_(-0.01, 0.01)
        generator_optimizer.zero_grad()
        scores = critic(generator(z()))
        if config.objective == "dcgan":
            F.binary_cross_entropy_with_logits(scores, ones).backward()
        else:
            (-scores.mean()).backward()
        generator_optimizer.step()
    return generator, critic


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("data", ["digits", "gaussians-25"])
@pytest.mark.parametrize("loop", ["eager", "captured"])
@pytest.mark.parametrize(
    ("objective", "backend"),
    [
        ("dcgan", "auto"),
        ("wgan", "auto"),
        ("wgan-gp", "auto"),
        ("wgan-gp", "explicit"),
        ("wgan-gp", "autograd"),
    ],
)
def test_same_parameters_as_the_textbook(
    objective, backend, loop, data, tiny_config, train_quietly
):
    config = tiny_config(
        objective=objective, backend=backend, loop=loop, data=data, dtype="float64", seed=5, steps=4
    )
    initial = copy.deepcopy(build_networks(config, DEVICE, DTYPE))
    expected = textbook(config)
    trained = load_checkpoint(train_quietly(config))
    for start, wanted, got in zip(
        initial, expected, (trained.generator, trained.critic), strict=True
    ):
        was, wanted, got = start.state_dict(), wanted.state_dict(), got.state_dict()
        assert set(got) == set(wanted)
        for name in wanted:
            # Adam divides by the gradient's size, so rounding is seen where that is tiny.
            torch.testing.assert_close(got[name], wanted[name], rtol=1e-9, atol=1e-10)
        moved = [name for name in wanted if not torch.allclose(was[name], wanted[name], atol=1e-7)]
        assert len(moved) > len(wanted) / 2


FIFTY = {"dtype": "float64", "seed": 5, "steps": 50, "n_critic": 5, "log_every": 50}


def assert_same_networks(one, other):
    for name in ("generator", "critic"):
        wanted = getattr(other, name).state_dict()
        for key, got in getattr(one, name).state_dict().items():
            off = (got - wanted[key]).double().norm()  # BatchNorm counts its batches in integers
            assert off <= 1e-8 * wanted[key].double().norm(), key


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("data", ["digits", "gaussians-25"])
def test_fifty_steps_by_either_backend(data, tiny_config, train_quietly, tmp_path):
    explicit, autograd = (
        load_checkpoint(
            train_quietly(
                tiny_config(
                    **FIFTY, backend=backend, loop="eager", data=data, run_folder=tmp_path / backend
                )
            )
        )
        for backend in ("explicit", "autograd")
    )
    assert_same_networks(explicit, autograd)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("objective", ["dcgan", "wgan", "wgan-gp"])
@pytest.mark.parametrize("data", ["digits", "gaussians-25"])
def test_fifty_steps_by_every_loop(objective, data, tiny_config, train_quietly, tmp_path):
    modes = ["eager", "captured", "auto"]
    if data == "gaussians-25" or objective == "wgan-gp":  # the other two would tell nothing new
        modes.append("compiled")
    eager, *others = (
        load_checkpoint(
            train_quietly(
                tiny_config(
                    **FIFTY, objective=objective, data=data, loop=loop, run_folder=tmp_path / loop
                )
            )
        )
        for loop in modes
    )
    for other in others:
        assert_same_networks(other, eager)
