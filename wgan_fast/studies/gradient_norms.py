"""Gradient norms at interpolates over training, with the penalty and with clipped weights."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from torch import Tensor

from wgan_fast.studies.figures import GREEN, GREY, ORANGE, label, panels
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.studies.training_run import TrainingRun, watched
from wgan_fast.training.config import TrainConfig
from wgan_fast.training.lipschitz import Objective

_LOWEST, _HIGHEST, _BINS = -4.0, 1.0, 60  # powers of ten
_POINTS, _MOMENTS = 1024, 60


@dataclass(frozen=True)
class NormsOverTraining:
    """Of one run; all lists but ``edges`` have one entry per moment."""

    steps: list[int]
    edges: list[float]
    """Of the histogram's bins, (bins + 1,)."""
    shares: list[list[float]]
    """The part of the norms in each bin; what lies outside of the edges is in the outermost."""
    lower_quartile: list[float]
    median: list[float]
    upper_quartile: list[float]


@dataclass(frozen=True)
class Measured:
    """Both runs on the same data from the same initial parameters."""

    penalty: NormsOverTraining
    clipping: NormsOverTraining


def measure(conditions: Conditions) -> Measured:
    """Trains on 8 Gaussians, λ = 10, c = 0.01."""
    return Measured(_watch(conditions, "wgan-gp"), _watch(conditions, "wgan"))


def _watch(conditions: Conditions, objective: Objective) -> NormsOverTraining:
    # λ = 10 is the paper's; its code for the toys has 0.1, which holds the norms loosely.
    config = TrainConfig(
        objective=objective,
        data="gaussians-8",
        hidden_dim=128,
        latent_dim=2,
        penalty_weight=10.0,
        seed=conditions.seed,
    )
    run = TrainingRun(config, conditions.device)
    edges = torch.logspace(_LOWEST, _HIGHEST, _BINS + 1, dtype=torch.float64)
    seen = NormsOverTraining([], edges.tolist(), [], [], [], [])
    _record(seen, 0, run.gradient_norms(_POINTS))
    for step in watched(run, conditions, objective, _MOMENTS):
        _record(seen, step, run.gradient_norms(_POINTS))
    return seen


def _record(seen: NormsOverTraining, step: int, norms: Tensor) -> None:
    norms = norms.double().cpu()
    edges = torch.tensor(seen.edges, dtype=torch.float64)
    places = torch.bucketize(norms, edges[1:-1])
    counts = torch.bincount(places, minlength=len(edges) - 1)
    seen.steps.append(step)
    seen.shares.append((counts / len(norms)).tolist())
    quartiles = norms.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    for series, value in zip(
        (seen.lower_quartile, seen.median, seen.upper_quartile), quartiles, strict=True
    ):
        series.append(value)


def findings(measured: Measured) -> list[Finding]:
    """The penalty brings the norms to 1 and holds them there, and clipping does not."""
    gp, clipped = measured.penalty, measured.clipping
    low, middle, high = gp.lower_quartile[-1], gp.median[-1], gp.upper_quartile[-1]
    return [
        Finding(
            "with the penalty the median norm ends within 0.1 of 1",
            abs(middle - 1) <= 0.1,
            f"{gp.median[0]:.2g} at the start, {middle:.3f} at the end",
        ),
        Finding(
            "and the middle half of the norms within 0.2 of 1",
            low >= 0.8 and high <= 1.2,
            f"{low:.3f} to {high:.3f}",
        ),
        Finding(
            "with clipped weights nothing holds the norms at 1",
            abs(clipped.median[-1] - 1) > 0.1,
            f"the median ends at {clipped.median[-1]:.2g}",
        ),
    ]


def draw(measured: Measured) -> Figure:
    """Histograms over training as two maps."""
    figure, (left, right) = panels(2, height=3.8)
    _map(left, measured.penalty, "gradient penalty, λ = 10", GREEN)
    left.set_ylim(0.1, 10)  # the norms stay near 1, and their spread is what there is to see
    mesh = _map(right, measured.clipping, "weights clipped to ±0.01", ORANGE)
    figure.colorbar(mesh, ax=[left, right]).set_label("part of the norms per bin")
    return figure


def _map(axes: Axes, seen: NormsOverTraining, title: str, colour: str) -> QuadMesh:
    # Each column reaches half way to its neighbours.
    steps = [float(step) for step in seen.steps]
    borders = [(a + b) / 2 for a, b in pairwise(steps)]
    columns = [steps[0], *borders, steps[-1]]
    shares = torch.tensor(seen.shares).T.numpy()
    mesh = axes.pcolormesh(columns, seen.edges, shares, cmap="Greys", vmax=0.3)
    axes.plot(steps, seen.median, color=colour, linewidth=2, label="median")
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1, label="norm 1")
    label(axes, title, "generator step", "‖∇f‖ at interpolates")
    axes.set_yscale("log")
    axes.legend(loc="lower right", fontsize=9)
    return mesh


STUDY = Study(
    name="gradient-norms",
    claim="the gradient penalty drives the critic's gradient norms to 1",
    source="Gulrajani et al., 2017, arXiv 1704.00028",
    steps=800,
    measure=measure,
    findings=findings,
    draw=draw,
)
