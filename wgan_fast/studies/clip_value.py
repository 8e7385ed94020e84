"""Gradients through a deep critic: clipped at c too large, too small, or under the penalty.

On its way back through a ReLU layer of width n, whose weights are independent, of mean 0 and of
variance σ², a gradient's norm is multiplied by about √(n σ²/2): half of the units are closed. In
the box [−c, c] that is c √(n/6) for uniform weights, and c √(n/2) for weights at ±c, to where
clipping pushes them. So c √n decides. A gradient of uniform weights grows from c = √(6/n) on, which
is the bound of He's initialisation, and one of weights at ±c from c = √(2/n) on.

The paper takes c = 0.1, 0.01 and 0.001 (figure 1(b)) and does not say the width; its other critics
on such data are 512 wide. There weights at 0.1 are beyond the threshold of √(2/512) = 0.063. With
the width of 128 here it is 0.125, and 0.1 would be below it. With twice the paper's c, c √n and so
every layer's gain is the same as with the paper's c at a width of 512.
"""

import copy
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from wgan_fast.models import MLPCritic, MLPGenerator
from wgan_fast.studies.figures import BLUE, GREEN, ORANGE, RED, label, panels
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.studies.training_run import TrainingRun, watched
from wgan_fast.training.config import TrainConfig

_LAYERS, _WIDTH = 12, 128
_CLIP_VALUES = (0.2, 0.02, 0.002)
_POINTS, _MOMENTS = 512, 20


@dataclass(frozen=True)
class Profile:
    """Of one run."""

    name: str
    clip_value: float | None
    """c; none under the penalty."""
    norms: list[float]
    """‖∂L/∂h_l‖ for l = 1 (next to the samples) to 12 (next to the score): the geometric mean over
    the second half of training."""


@dataclass(frozen=True)
class Measured:
    """Clipping with c descending, then the penalty."""

    profiles: list[Profile]


def measure(conditions: Conditions) -> Measured:
    """Trains twelve-layer networks on the swiss roll, as the paper does, with c √n as in it."""
    settings: list[tuple[str, TrainConfig]] = [
        (
            f"clipping, c = {clip_value:g}",
            TrainConfig(
                objective="wgan",
                data="swiss-roll",
                clip_value=clip_value,
                latent_dim=2,
                seed=conditions.seed,
            ),
        )
        for clip_value in _CLIP_VALUES
    ]
    penalised = TrainConfig(
        objective="wgan-gp", data="swiss-roll", penalty_weight=10.0, seed=conditions.seed
    )
    settings.append(("penalty, λ = 10", penalised))
    return Measured([_profile(conditions, name, config) for name, config in settings])


def _profile(conditions: Conditions, name: str, config: TrainConfig) -> Profile:
    def deep(generator: nn.Module, critic: nn.Module) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            networks = MLPGenerator(2, 2, _WIDTH, _LAYERS), MLPCritic(2, _WIDTH, _LAYERS)
        return networks[0].to(conditions.device), networks[1].to(conditions.device)

    run = TrainingRun(config, conditions.device, deep)
    seen = [
        gradients_by_layer(run.critic, *run.samples(_POINTS))
        for step in watched(run, conditions, name, _MOMENTS)
        if 2 * step >= conditions.steps
    ]
    # A gradient of exactly 0 makes the mean 0, which is what there is to say.
    norms = torch.stack(seen).log().mean(0).exp()
    clip_value = config.clip_value if config.objective == "wgan" else None
    return Profile(name, clip_value, norms.tolist())


def gradients_by_layer(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """‖∂L/∂h_l‖ over the batch, L = E f(fake) − E f(real), for every ReLU's output in order.

    In float64, where a gradient that vanishes has further to go.
    """
    critic = copy.deepcopy(critic).double()
    activations: list[Tensor] = []
    for module in critic.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, __, output: activations.append(output))
    scores = critic(torch.cat((fake, real)).double())
    signs = torch.ones_like(scores)
    signs[len(fake) :] = -1
    loss = (signs * scores).sum() / len(fake)
    gradients = torch.autograd.grad(loss, activations)
    return torch.stack([gradient.norm() for gradient in gradients]).cpu()


def growth(profile: Profile) -> float:
    """How many times as large the gradient at the first layer is as at the last one."""
    return profile.norms[0] / profile.norms[-1] if profile.norms[-1] else 0.0


def findings(measured: Measured) -> list[Finding]:
    """The largest c explodes, the smallest one vanishes, the penalty does neither."""
    clipped = [profile for profile in measured.profiles if profile.clip_value is not None]
    largest = max(clipped, key=lambda profile: profile.clip_value or 0)
    smallest = min(clipped, key=lambda profile: profile.clip_value or 0)
    (penalised,) = [profile for profile in measured.profiles if profile.clip_value is None]
    return [
        Finding(
            f"c = {largest.clip_value:g} explodes: 10 times the gradient or more on the way back",
            growth(largest) >= 10,
            f"{growth(largest):.3g} times",
        ),
        Finding(
            f"c = {smallest.clip_value:g} vanishes: a tenth of the gradient or less is left",
            growth(smallest) <= 0.1,
            f"{growth(smallest):.3g} times",
        ),
        Finding(
            "under the penalty it stays within a factor of 10",
            0.1 <= growth(penalised) <= 10,
            f"{growth(penalised):.3g} times",
        ),
    ]


def draw(measured: Measured) -> Figure:
    """The norms by layer, in the order in which backward visits the layers."""
    figure, (axes,) = panels(1, height=4.2)
    for profile, colour in zip(measured.profiles, (RED, ORANGE, BLUE, GREEN), strict=True):
        layers = range(1, len(profile.norms) + 1)
        axes.plot(layers, profile.norms, marker="o", color=colour, label=profile.name)
    axes.invert_xaxis()
    axes.set_yscale("log")
    axes.set_xticks(range(1, _LAYERS + 1))
    label(
        axes,
        "the loss's gradient on its way back through the critic",
        "hidden layer (12: next to the score, 1: next to the samples)",
        "‖∂L/∂h‖ over the batch",
    )
    axes.legend(fontsize=9)
    return figure


STUDY = Study(
    name="clip-value",
    claim="through a deep clipped critic gradients explode or vanish, under a penalty neither",
    source="Gulrajani et al., 2017, arXiv 1704.00028, section 3.2",
    steps=300,
    measure=measure,
    findings=findings,
    draw=draw,
)
