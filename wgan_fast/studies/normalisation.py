"""No normalisation, LayerNorm or BatchNorm in a critic under a gradient penalty."""

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import wgan_fast
from wgan_fast.models import DCGANCritic
from wgan_fast.studies.figures import BLUE, GREEN, GREY, ORANGE, label, panels
from wgan_fast.studies.measures import random_directions, sliced_wasserstein
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.studies.training_run import TrainingRun, late_mean, watched
from wgan_fast.training.choices import Normalisation
from wgan_fast.training.config import TrainConfig

_NORMALISATIONS: tuple[Normalisation, ...] = ("none", "layer", "batch")
_NAMES = {"none": "none", "layer": "LayerNorm", "batch": "BatchNorm"}
_CHANNELS, _BATCH = 16, 64
_IMAGES, _DIRECTIONS, _MOMENTS = 512, 256, 20


@dataclass(frozen=True)
class Course:
    """Of one critic; the lists have one entry per moment."""

    normalisation: str
    steps: list[int]
    norm: list[float]
    """The mean of ‖∂f(x̂ᵢ)/∂x̂ᵢ‖: each score's gradient in its own sample, in training mode."""
    deviation: list[float]
    """The square root of the mean of (that norm − 1)²."""
    foreign: list[float]
    """‖∂ Σⱼ f(x̂ⱼ)/∂x̂ᵢ − ∂f(x̂ᵢ)/∂x̂ᵢ‖ relative to ‖∂f(x̂ᵢ)/∂x̂ᵢ‖: how far what a penalty sees is
    from the sample's own gradient; the mean over i."""
    distance: list[float]
    """Sliced W₁ of 512 generated and 512 real images."""


@dataclass(frozen=True)
class Measured:
    """The three critics, with the same generator at the start."""

    courses: list[Course]
    floor: float
    """Sliced W₁ of 512 real and 512 other real images."""


def measure(conditions: Conditions) -> Measured:
    """Trains on digits of 16 pixels with the paper's settings, once for each critic."""
    courses, floor = [], 0.0
    for normalisation in _NORMALISATIONS:
        run = _start(conditions, normalisation)
        directions = random_directions(16 * 16, _DIRECTIONS, run.watching)
        course = Course(normalisation, [], [], [], [], [])
        for step in watched(run, conditions, _NAMES[normalisation], _MOMENTS):
            _record(course, step, run, directions)
        courses.append(course)
        first, second = (run.data(_IMAGES, run.watching) for _ in range(2))
        floor = sliced_wasserstein(first, second, directions)
    return Measured(courses, floor)


def _start(conditions: Conditions, normalisation: Normalisation) -> TrainingRun:
    # The trainer refuses wgan-gp with BatchNorm, so the critic is made here.
    config = TrainConfig(
        objective="wgan-gp",
        data="digits",
        channels=_CHANNELS,
        batch_size=_BATCH,
        seed=conditions.seed,
    )

    def with_critic(generator: nn.Module, _: nn.Module) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            critic = DCGANCritic(
                config.image_size,
                channels=_CHANNELS,
                image_channels=1,
                normalisation=normalisation,
            )
        return generator, critic.to(conditions.device)

    return TrainingRun(config, conditions.device, with_critic)


def _record(course: Course, step: int, run: TrainingRun, directions: Tensor) -> None:
    real, fake = run.samples(_BATCH)
    alpha = torch.rand(_BATCH, generator=run.watching, device=real.device, dtype=real.dtype)
    own, total = own_and_total_gradients(run.critic, wgan_fast.interpolate(real, fake, alpha))
    norms = own.norm(dim=1)
    real, fake = run.samples(_IMAGES)
    course.steps.append(step)
    course.norm.append(float(norms.mean()))
    course.deviation.append(float((norms - 1).square().mean().sqrt()))
    course.foreign.append(float(((total - own).norm(dim=1) / norms).mean()))
    course.distance.append(sliced_wasserstein(real, fake, directions))


def own_and_total_gradients(critic: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    """∂f(xᵢ)/∂xᵢ and ∂ Σⱼ f(xⱼ)/∂xᵢ, both (B, D), in the critic's present mode.

    Its buffers (running statistics) are put back afterwards.
    """
    buffers = [(buffer, buffer.clone()) for buffer in critic.buffers()]
    points = points.detach().requires_grad_()
    scores = critic(points)
    each = [torch.autograd.grad(score, points, retain_graph=True)[0].flatten(1) for score in scores]
    with torch.no_grad():
        for buffer, former in buffers:
            buffer.copy_(former)
    jacobian = torch.stack(each)  # (score, sample, D)
    return jacobian.diagonal().T, jacobian.sum(0)


def findings(measured: Measured) -> list[Finding]:
    """BatchNorm mixes samples and loosens the constraint; LayerNorm does neither."""
    courses = {course.normalisation: course for course in measured.courses}
    foreign, deviation, distance = (
        {name: late_mean(getattr(course, what)) for name, course in courses.items()}
        for what in ("foreign", "deviation", "distance")
    )
    return [
        Finding(
            "with BatchNorm the gradient that is penalised is not the sample's own (off by > 1%)",
            foreign["batch"] > 0.01,
            f"off by {foreign['batch']:.1%}",
        ),
        Finding(
            "without normalisation and with LayerNorm it is",
            max(foreign["none"], foreign["layer"]) < 1e-4,
            f"off by {foreign['none']:.1g} and {foreign['layer']:.1g}",
        ),
        Finding(
            "so each sample's own gradient norm is held at 1 worst with BatchNorm",
            deviation["batch"] > max(deviation["none"], deviation["layer"]),
            f"√E(‖∇f‖ − 1)² is {_named(deviation)}",
        ),
        Finding(
            "LayerNorm's samples are no worse than BatchNorm's",
            distance["layer"] <= distance["batch"],
            f"sliced W₁ to the data is {_named(distance)}; real to real {measured.floor:.4f}",
        ),
    ]


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.3f} ({_NAMES[name]})" for name, value in values.items())


def draw(measured: Measured) -> Figure:
    """Three panels: own gradient norm, foreign part, sample distance."""
    figure, (left, middle, right) = panels(3)
    for course, colour in zip(measured.courses, (BLUE, GREEN, ORANGE), strict=True):
        style: dict[str, Any] = {
            "color": colour,
            "label": _NAMES[course.normalisation],
            "linewidth": 1.4,
        }
        left.plot(course.steps, course.norm, **style)
        middle.plot(course.steps, [100 * part for part in course.foreign], **style)
        right.plot(course.steps, course.distance, **style)
    left.axhline(1, color=GREY, linestyle="--", linewidth=1)
    label(left, "each score's own gradient", "generator step", "mean ‖∂f(x̂ᵢ)/∂x̂ᵢ‖")
    label(middle, "share of the other samples", "generator step", "gradient off by, %")
    label(right, "the samples", "generator step", "sliced W₁ to the data")
    right.axhline(measured.floor, color=GREY, linestyle="--", linewidth=1, label="real to real")
    right.set_yscale("log")
    for axes in (middle, right):
        axes.legend(fontsize=9)
    return figure


STUDY = Study(
    name="normalisation",
    claim="BatchNorm in the critic breaks the penalty's meaning, LayerNorm does not",
    source="Gulrajani et al., 2017, arXiv 1704.00028, section 4",
    steps=1000,
    measure=measure,
    findings=findings,
    draw=draw,
)
