"""Two point masses δ₀ and δ_θ: W₁ is |θ| and has a slope, JS is log 2 and has none."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import wgan_fast
from wgan_fast.models import MLPCritic
from wgan_fast.objectives import nonsaturating
from wgan_fast.studies.figures import BLUE, GREEN, GREY, ORANGE, label, panels
from wgan_fast.studies.study import Conditions, Finding, Study

_THETAS = [number / 4 for number in range(-8, 9)]
_BATCH, _WIDTH, _LAYERS, _LEARNING_RATE = 64, 64, 2, 3e-3
_WEIGHT = 10.0


@dataclass(frozen=True)
class Measured:
    """One entry per θ."""

    thetas: list[float]
    weight: float
    """λ of the critic's penalty."""
    wasserstein: list[float]
    """f(0) − f(θ) of the trained critic."""
    wasserstein_slope: list[float]
    """Its derivative in θ: what a generator that moves θ is given."""
    jensen_shannon: list[float]
    """log 2 − L/2 of the trained discriminator, in nats."""
    jensen_shannon_slope: list[float]
    """Its derivative in θ."""


def measure(conditions: Conditions) -> Measured:
    """Trains a critic and a discriminator for every θ."""
    measured = Measured([], _WEIGHT, [], [], [], [])
    rng = torch.Generator(conditions.device).manual_seed(conditions.seed)
    for theta in _THETAS:
        estimate, slope = _train(
            conditions, f"W₁, θ = {theta:g}", theta, _critic_loss(rng), _wasserstein
        )
        js, js_slope = _train(
            conditions, f"JS, θ = {theta:g}", theta, _cross_entropy, _jensen_shannon
        )
        measured.thetas.append(theta)
        measured.wasserstein.append(estimate)
        measured.wasserstein_slope.append(slope)
        measured.jensen_shannon.append(js)
        measured.jensen_shannon_slope.append(js_slope)
    return measured


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _critic_loss(rng: torch.Generator) -> Loss:
    def loss(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return wgan_fast.critic_loss(critic, real, fake, weight=_WEIGHT, generator=rng)

    return loss


def _cross_entropy(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return nonsaturating(critic(real), critic(fake))


def _wasserstein(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return (critic(real) - critic(fake)).mean()


def _jensen_shannon(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return math.log(2) - nonsaturating(critic(real), critic(fake)) / 2


def _train(
    conditions: Conditions, name: str, theta: float, loss: Loss, divergence: Loss
) -> tuple[float, float]:
    """Trains on δ₀ as the real and δ_θ as the fake; the divergence and its derivative in θ.

    The critic starts flat. A slope of the wrong sign would stay: the two-sided penalty has a second
    minimum near −1, behind a wall of height λ at 0.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(conditions.seed)
        critic = MLPCritic(1, _WIDTH, _LAYERS)
    *_, last = (layer for layer in critic.modules() if isinstance(layer, nn.Linear))
    nn.init.zeros_(last.weight)
    critic.to(conditions.device)
    optimizer = torch.optim.Adam(critic.parameters(), lr=_LEARNING_RATE, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, conditions.steps)
    real = torch.zeros(_BATCH, 1, device=conditions.device)
    fake = torch.full_like(real, theta)
    for _ in conditions.count(name):
        optimizer.zero_grad()
        loss(critic, real, fake).backward()
        optimizer.step()
        schedule.step()
    position = torch.tensor([[theta]], device=conditions.device, requires_grad=True)
    value = divergence(critic, torch.zeros_like(position), position)
    (slope,) = torch.autograd.grad(value, position)
    return value.item(), slope.item()


def wasserstein_closed_form(theta: float) -> float:
    """W₁(δ₀, δ_θ) = |θ|."""
    return abs(theta)


def penalised_closed_form(theta: float, weight: float) -> float:
    """The best estimate under a penalty: |θ| (1 + |θ| / 2λ).

    The best critic is a line between the two points; of slope s it has the loss −s|θ| + λ(s − 1)²,
    least at s = 1 + |θ|/2λ. So a penalised critic overestimates W₁ by θ²/2λ.
    """
    return abs(theta) * (1 + abs(theta) / (2 * weight))


def jensen_shannon_closed_form(theta: float) -> float:
    """JS(δ₀, δ_θ) in nats: log 2 wherever θ ≠ 0, and 0 at θ = 0."""
    return math.log(2) if theta else 0.0


def findings(measured: Measured) -> list[Finding]:
    """Both divergences against their closed forms, and their slopes."""
    rows = [place for place, theta in enumerate(measured.thetas) if theta]
    best = [penalised_closed_form(theta, measured.weight) for theta in measured.thetas]
    error = max(abs(w - b) for w, b in zip(measured.wasserstein, best, strict=True))
    off = max(
        abs(w - wasserstein_closed_form(theta))
        for w, theta in zip(measured.wasserstein, measured.thetas, strict=True)
    )
    stuck = [measured.jensen_shannon[row] / math.log(2) for row in rows]
    towards = [
        math.copysign(1, measured.thetas[row]) * measured.wasserstein_slope[row] for row in rows
    ]
    flat = max(abs(measured.jensen_shannon_slope[row]) for row in rows)
    return [
        Finding(
            "the critic's estimate is |θ| (1 + |θ|/2λ), to 0.1",
            error <= 0.1,
            f"off by {error:.3f} at most, from |θ| itself by {off:.3f}",
        ),
        Finding(
            "JS is stuck at log 2 for every θ ≠ 0, to 5%",
            all(0.95 <= part <= 1.0001 for part in stuck),
            f"{min(stuck):.4f} to {max(stuck):.4f} of log 2",
        ),
        Finding(
            "W₁ gives a generator a slope of about ±1 away from the data, everywhere",
            all(0.8 <= slope <= 1.3 for slope in towards),
            f"{min(towards):.3f} to {max(towards):.3f}",
        ),
        Finding("JS gives it none (below 0.05)", flat < 0.05, f"{flat:.2g} at most"),
    ]


def draw(measured: Measured) -> Figure:
    """Divergences over θ beside their slopes over θ."""
    figure, (left, right) = panels(2, height=3.8)
    fine = [number / 50 for number in range(-105, 106)]
    left.plot(fine, [abs(theta) for theta in fine], color=GREY, linestyle="--", label="W₁ = |θ|")
    left.plot(
        fine,
        [penalised_closed_form(theta, measured.weight) for theta in fine],
        color=BLUE,
        linewidth=1,
        label="|θ| (1 + |θ|/2λ)",
    )
    left.plot(measured.thetas, measured.wasserstein, "o", color=GREEN, label="critic's estimate")
    left.axhline(math.log(2), color=GREY, linestyle=":", label="log 2")
    left.plot(
        measured.thetas, measured.jensen_shannon, "s", color=ORANGE, label="JS, discriminator"
    )
    label(left, r"$\delta_0$ against $\delta_\theta$", "θ", "divergence (JS in nats)")
    left.legend(fontsize=8.5, loc="upper center")
    right.plot(measured.thetas, measured.wasserstein_slope, "o", color=GREEN, label="W₁, critic")
    right.plot(
        measured.thetas,
        measured.jensen_shannon_slope,
        "s",
        color=ORANGE,
        label="JS, discriminator",
    )
    label(right, "what moves a generator", "θ", "derivative of the estimate in θ")
    right.legend(fontsize=8.5, loc="upper left")
    return figure


STUDY = Study(
    name="point-masses",
    claim="of two point masses W₁ is |θ| and has a slope, while JS is stuck at log 2",
    source="Arjovsky et al., 2017, arXiv 1701.07875, example 1",
    steps=400,
    measure=measure,
    findings=findings,
    draw=draw,
)
