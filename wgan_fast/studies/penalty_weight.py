"""λ ∈ {1, 10, 100}: how tightly the norm is held, what the estimate is worth, how samples fare."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from wgan_fast.studies.figures import BLUE, GREEN, GREY, ORANGE, label, panels
from wgan_fast.studies.measures import exact_wasserstein
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.studies.training_run import TrainingRun, late_mean, watched
from wgan_fast.training.config import TrainConfig

_WEIGHTS = (1.0, 10.0, 100.0)
_POINTS, _MOMENTS = 512, 20


@dataclass(frozen=True)
class Course:
    """Of one λ; the lists have one entry per moment."""

    weight: float
    steps: list[int]
    deviation: list[float]
    """√E(‖∇f‖ − 1)² at interpolates."""
    estimate: list[float]
    """E f(real) − E f(fake) on the samples of ``distance``."""
    distance: list[float]
    """W₁ of 512 real and 512 generated samples, exactly."""


@dataclass(frozen=True)
class Measured:
    """The courses, λ ascending, from the same initial parameters."""

    courses: list[Course]
    floor: float
    """W₁ of 512 real and 512 other real samples: what a perfect generator has."""


def measure(conditions: Conditions) -> Measured:
    """Trains on the swiss roll once for each λ."""
    courses, floor = [], 0.0
    for weight in _WEIGHTS:
        config = TrainConfig(
            objective="wgan-gp",
            data="swiss-roll",
            hidden_dim=128,
            penalty_weight=weight,
            seed=conditions.seed,
        )
        run = TrainingRun(config, conditions.device)
        course = Course(weight, [], [], [], [])
        for step in watched(run, conditions, f"λ = {weight:g}", _MOMENTS):
            _record(course, step, run)
        courses.append(course)
        floor = exact_wasserstein(*(run.data(_POINTS, run.watching) for _ in range(2)))
    return Measured(courses, floor)


def _record(course: Course, step: int, run: TrainingRun) -> None:
    norms = run.gradient_norms(_POINTS)
    real, fake = run.samples(_POINTS)
    course.steps.append(step)
    course.deviation.append(float((norms - 1).square().mean().sqrt()))
    course.estimate.append(float(run.scores(real).mean() - run.scores(fake).mean()))
    course.distance.append(exact_wasserstein(real, fake))


def findings(measured: Measured) -> list[Finding]:
    """Norms by λ, the estimate's share of the distance by λ, and how little the samples care."""
    courses = measured.courses
    deviations = [late_mean(course.deviation) for course in courses]
    ratios = [late_mean(course.estimate) / late_mean(course.distance) for course in courses]
    distances = [late_mean(course.distance) for course in courses]
    return [
        Finding(
            "the larger λ, the nearer are the gradient norms to 1",
            _falls(deviations),
            _by_weight(courses, deviations, "√E(‖∇f‖ − 1)² is"),
        ),
        Finding(
            "the larger λ, the smaller is the critic's estimate relative to W₁",
            _falls(ratios),
            _by_weight(courses, ratios, "estimate / W₁ is"),
        ),
        Finding(
            "the samples differ little: W₁ to the data within a factor of 2 for all λ",
            max(distances) <= 2 * min(distances),
            f"{_by_weight(courses, distances, 'W₁ is')}; real against real {measured.floor:.3f}",
        ),
    ]


def _falls(series: list[float]) -> bool:
    return all(later < former for former, later in pairwise(series))


def _by_weight(courses: list[Course], values: list[float], what: str) -> str:
    parts = [f"{value:.3f} for λ = {c.weight:g}" for c, value in zip(courses, values, strict=True)]
    return f"{what} {', '.join(parts)}"


def draw(measured: Measured) -> Figure:
    """Three panels over the generator steps: norms, estimate over distance, distance."""
    figure, (left, middle, right) = panels(3)
    for course, colour in zip(measured.courses, (ORANGE, GREEN, BLUE), strict=True):
        style: dict[str, Any] = {
            "color": colour,
            "label": f"λ = {course.weight:g}",
            "linewidth": 1.4,
        }
        left.plot(course.steps, course.deviation, **style)
        ratios = [e / d for e, d in zip(course.estimate, course.distance, strict=True)]
        middle.plot(course.steps, ratios, **style)
        right.plot(course.steps, course.distance, **style)
    label(left, "gradient norms", "generator step", "√E(‖∇f‖ − 1)²")
    left.set_yscale("log")
    label(middle, "the critic's estimate", "generator step", "estimate / exact W₁")
    middle.axhline(1, color=GREY, linestyle="--", linewidth=1)
    label(right, "the samples", "generator step", "exact W₁ to the data")
    right.axhline(measured.floor, color=GREY, linestyle="--", linewidth=1, label="real to real")
    right.set_yscale("log")
    # Below the panels: no corner of them stays free of a curve.
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    return figure


STUDY = Study(
    name="penalty-weight",
    claim="λ trades the tightness of the constraint against the critic's freedom; 10 suits many",
    source="Gulrajani et al., 2017, arXiv 1704.00028, section 4",
    steps=2000,
    measure=measure,
    findings=findings,
    draw=draw,
)
