"""The critic's estimate, and a GAN's JS estimate, against the samples' exact W₁ over training."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wgan_fast.studies.figures import GREEN, GREY, ORANGE, label
from wgan_fast.studies.measures import (
    exact_wasserstein,
    jensen_shannon_estimate,
    rank_correlation,
)
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.studies.training_run import TrainingRun, watched
from wgan_fast.training.config import TrainConfig

_POINTS, _SCORED, _MOMENTS = 512, 4096, 40


@dataclass(frozen=True)
class Course:
    """Of one run; the lists have one entry per moment."""

    steps: list[int]
    estimate: list[float]
    """W₁ by the critic, or JS by the discriminator (nats)."""
    distance: list[float]
    """W₁ of 512 real and 512 generated samples, exactly."""


@dataclass(frozen=True)
class Measured:
    """The same data and generator under two objectives."""

    wasserstein: Course
    jensen_shannon: Course
    floor: float
    """W₁ of 512 real and 512 other real samples."""


def measure(conditions: Conditions) -> Measured:
    """Trains on 25 Gaussians with WGAN-GP, and with a GAN's discriminator that is as well fed."""
    wgan_gp = TrainConfig(
        objective="wgan-gp", data="gaussians-25", hidden_dim=128, seed=conditions.seed
    )
    gan = TrainConfig(
        objective="dcgan",
        data="gaussians-25",
        hidden_dim=128,
        n_critic=wgan_gp.n_critic,
        critic_learning_rate=wgan_gp.critic_learning_rate,
        generator_learning_rate=wgan_gp.generator_learning_rate,
        seed=conditions.seed,
    )
    run = TrainingRun(wgan_gp, conditions.device)
    floor = exact_wasserstein(*(run.data(_POINTS, run.watching) for _ in range(2)))
    return Measured(
        _watch(conditions, run), _watch(conditions, TrainingRun(gan, conditions.device)), floor
    )


def _watch(conditions: Conditions, run: TrainingRun) -> Course:
    course = Course([], [], [])
    for step in watched(run, conditions, run.config.objective, _MOMENTS):
        if run.config.objective == "dcgan":
            estimate = jensen_shannon_estimate(run.losses()["critic_loss"])
        else:
            real, fake = run.samples(_SCORED)
            estimate = float(run.scores(real).mean() - run.scores(fake).mean())
        course.steps.append(step)
        course.estimate.append(estimate)
        course.distance.append(exact_wasserstein(*run.samples(_POINTS)))
    return course


def findings(measured: Measured) -> list[Finding]:
    """The critic's estimate falls and rises with the distance, more so than JS."""
    courses = (measured.wasserstein, measured.jensen_shannon)
    critic, gan = (rank_correlation(course.estimate, course.distance) for course in courses)
    first, last = (measured.wasserstein.distance[place] for place in (0, -1))
    return [
        Finding(
            "training brings the samples' W₁ to the data down to half or less",
            last <= first / 2,
            f"{first:.3f} to {last:.3f}; real against real {measured.floor:.3f}",
        ),
        Finding(
            "the critic's estimate follows it: rank correlation of 0.8 or more",
            critic >= 0.8,
            f"ρ = {critic:.2f}",
        ),
        Finding("a GAN's JS estimate follows its samples' W₁ less", gan < critic, f"ρ = {gan:.2f}"),
    ]


def draw(measured: Measured) -> Figure:
    """A row per run: estimate and distance over training, then one against the other."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    rows = (
        ("WGAN-GP", "critic's estimate", measured.wasserstein, GREEN),
        ("GAN", "JS estimate, nats", measured.jensen_shannon, ORANGE),
    )
    for number, (name, what, course, colour) in enumerate(rows):
        over_time = figure.add_subplot(2, 2, 2 * number + 1)
        _over_time(over_time, name, what, course, colour, measured.floor)
        scatter = figure.add_subplot(2, 2, 2 * number + 2)
        scatter.scatter(course.distance, course.estimate, s=14, color=colour)
        correlation = rank_correlation(course.estimate, course.distance)
        label(
            scatter,
            f"{name}: rank correlation {correlation:.2f}",
            "exact W₁ of the samples to the data",
            what,
        )
    return figure


def _over_time(axes: Axes, name: str, what: str, course: Course, colour: str, floor: float) -> None:
    axes.plot(course.steps, course.estimate, color=colour, label=what)
    axes.plot(course.steps, course.distance, color="black", label="exact W₁ of the samples")
    axes.axhline(floor, color=GREY, linestyle="--", linewidth=1, label="W₁, real to real")
    label(axes, f"{name} over training", "generator step", "estimate and W₁")
    axes.set_ylim(0, 1.5 * max(*course.estimate, *course.distance))  # room for the legend
    axes.legend(fontsize=8, loc="upper right")


STUDY = Study(
    name="estimate",
    claim="the critic's Wasserstein estimate tells how good the samples are",
    source="Arjovsky et al., 2017, arXiv 1701.07875, figures 3 and 4",
    steps=4000,
    measure=measure,
    findings=findings,
    draw=draw,
)
