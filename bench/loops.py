"""The claim: a whole training iteration is faster than the textbook's loop, by how much.

Five critic steps and one generator step with their optimisers, data at hand. The textbook is
wgan_fast.reference with PyTorch's optimisers as tutorials construct them; what stands against it is
CriticLoop with the fused ones. All draw the same z and α.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import wgan_fast
from bench.harness.case import Case, Figure
from bench.harness.guards import runs_compiled
from wgan_fast import reference
from wgan_fast.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator

_N_CRITIC, _SEED = 5, 1
_EAGER, _COMPILED = "wgan_fast, eager", "wgan_fast, compiled"
_TOLERANCE = 1e-3

_OPERATORS = {"wgan-gp": ("merged_batch", "gradient_norm_penalty"), "wgan": ("rmsprop_",)}

Networks = Callable[[], tuple[nn.Module, nn.Module]]


class Problem(NamedTuple):
    """Two modules and an iteration's data."""

    generator: nn.Module
    critic: nn.Module
    reals: Tensor
    latent_dim: int


class Iteration(NamedTuple):
    """What is trained, on what, and how large."""

    name: str
    sizes: str
    objective: str
    batch: int
    sample_shape: tuple[int, ...]
    latent_dim: int
    networks: Networks
    must: Figure

    def problem(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Problem:
        """The same numbers in every call and on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            generator, critic = (module.to(device, dtype) for module in self.networks())
            reals = torch.rand(_N_CRITIC, self.batch, *self.sample_shape) * 2 - 1
        return Problem(generator, critic, reals.to(device, dtype), self.latent_dim)


def _textbook_optimizer(objective: str, module: nn.Module) -> Optimizer:
    if objective == "wgan":
        return torch.optim.RMSprop(module.parameters(), lr=5e-5)
    return torch.optim.Adam(module.parameters(), lr=1e-4, betas=(0.0, 0.9))


def _fast_optimizer(
    objective: str, module: nn.Module, clip_value: float | None = None
) -> Optimizer:
    on_gpu = next(module.parameters()).is_cuda
    if objective == "wgan":
        return wgan_fast.optim.RMSprop(
            module.parameters(), lr=5e-5, capturable=on_gpu, clip_value=clip_value
        )
    return torch.optim.Adam(
        module.parameters(), lr=1e-4, betas=(0.0, 0.9), fused=True, capturable=on_gpu
    )


def _textbook(objective: str) -> Callable[[Problem], Callable[[], list[Tensor]]]:
    def prepare(problem: Problem) -> Callable[[], list[Tensor]]:
        generator, critic, reals, latent_dim = problem
        device, batch = reals.device, reals.shape[1]
        rng = torch.Generator(device).manual_seed(_SEED)
        like = {"generator": rng, "device": device, "dtype": reals.dtype}
        generator_optimizer = _textbook_optimizer(objective, generator)
        critic_optimizer = _textbook_optimizer(objective, critic)

        def iteration() -> list[Tensor]:
            z = torch.randn(_N_CRITIC, batch, latent_dim, **like)
            alpha = torch.rand(_N_CRITIC, batch, **like)
            losses = []
            for step in range(_N_CRITIC):
                given = generator, critic, critic_optimizer, reals[step], z[step]
                if objective == "wgan":
                    losses.append(reference.wgan_critic_step(*given))
                else:
                    losses.append(reference.wgan_gp_critic_step(*given, alpha[step]))
            z = torch.randn(batch, latent_dim, **like)
            loss = reference.wgan_generator_step(generator, critic, generator_optimizer, z)
            return [torch.stack(losses).mean(), loss]

        return iteration

    return prepare


def _loop(objective: str, mode: str) -> Callable[[Problem], Callable[[], list[Tensor]]]:
    def prepare(problem: Problem) -> Callable[[], list[Tensor]]:
        loop = wgan_fast.CriticLoop(
            problem.generator,
            problem.critic,
            _fast_optimizer(objective, problem.generator),
            _fast_optimizer(objective, problem.critic, clip_value=0.01),
            latent_shape=problem.latent_dim,
            objective=objective,
            n_critic=_N_CRITIC,
            mode=mode,
            rng=torch.Generator(problem.reals.device).manual_seed(_SEED),
        )

        def iteration() -> list[Tensor]:
            stats = loop(problem.reals)
            return [stats.critic_loss, stats.generator_loss]

        return iteration

    return prepare


def _call(iteration: Callable[[], Any]) -> Any:
    return iteration()


def _case(iteration: Iteration) -> Case:
    objective = iteration.objective
    return Case(
        name=f"iteration/{iteration.name}",
        sizes=iteration.sizes,
        problem=iteration.problem,
        sides=dict.fromkeys(("reference", "wgan_fast", _EAGER, _COMPILED), _call),
        prepare={
            "reference": _textbook(objective),
            "wgan_fast": _loop(objective, "captured"),
            _EAGER: _loop(objective, "eager"),
            _COMPILED: _loop(objective, "compiled"),
        },
        compiled=(_COMPILED,),
        figures=(iteration.must,),
        requires=(runs_compiled(*_OPERATORS[objective]),),
        tolerance=_TOLERANCE,
        # RMSprop's first step is a gradient's sign, whatever its size: rounding becomes an update.
        compared_on=partial(iteration.problem, dtype=torch.float64)
        if objective == "wgan"
        else None,
    )


def _dcgan(size: int, channels: int, latent_dim: int = 128) -> tuple[DCGANGenerator, DCGANCritic]:
    shape = {"channels": channels, "image_channels": 1}
    return DCGANGenerator(size, latent_dim=latent_dim, **shape), DCGANCritic(size, **shape)


def _at_least(side: str, bound: float) -> Figure:
    return Figure(side, "speed-up", bound)


ITERATIONS = (
    Iteration(
        "toy-mlp",
        "MLPs 2-128×3, B 256",
        "wgan-gp",
        256,
        (2,),
        2,
        lambda: (MLPGenerator(2, 2, 128), MLPCritic(2, 128, 3)),
        _at_least("wgan_fast", 2.5),
    ),
    Iteration(
        "tabular-mlp",
        "MLPs 100-256×3, B 500",
        "wgan-gp",
        500,
        (100,),
        128,
        lambda: (MLPGenerator(128, 100, 256), MLPCritic(100, 256, 3)),
        _at_least("wgan_fast", 1.7),
    ),
    Iteration(
        "digits",
        "DCGAN, 64 channels, 1×16×16, B 64",
        "wgan-gp",
        64,
        (1, 16, 16),
        128,
        lambda: _dcgan(16, 64),
        _at_least("wgan_fast", 1.6),
    ),
    Iteration(
        "dcgan-32",
        "DCGAN, 32 channels, 1×32×32, B 64",
        "wgan-gp",
        64,
        (1, 32, 32),
        128,
        lambda: _dcgan(32, 32),
        _at_least("wgan_fast", 1.5),
    ),
    Iteration(
        "dcgan-32-clipped",
        "the same with weight clipping and RMSprop",
        "wgan",
        64,
        (1, 32, 32),
        128,
        lambda: _dcgan(32, 32),
        _at_least("wgan_fast", 1.25),
    ),
)

CASES = tuple(_case(iteration) for iteration in ITERATIONS)
