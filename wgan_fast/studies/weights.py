"""Histograms of the critic's weights: clipped to a box, or under a gradient penalty."""

from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from wgan_fast.studies.figures import GREEN, GREY, ORANGE, label, panels
from wgan_fast.studies.study import Conditions, Finding, Study
from wgan_fast.studies.training_run import TrainingRun
from wgan_fast.training.config import TrainConfig

_CLIP_VALUE = 0.01
_BINS = 80


@dataclass(frozen=True)
class Weights:
    """All weights between the critic's hidden layers, before and after training."""

    reach: float
    """The largest |w| after training, or c."""
    edges: list[float]
    """Of the histogram's bins, from −reach to reach."""
    before: list[float]
    """The part of the weights in each bin at the start; where none is outside, they sum to 1."""
    after: list[float]
    """The same at the end."""
    outermost_before: float
    """The part with |w| ≥ 0.95 reach at the start; a uniform distribution has 0.05."""
    outermost_after: float
    """The same at the end."""


@dataclass(frozen=True)
class Measured:
    """Both critics."""

    clipping: Weights
    penalty: Weights


def measure(conditions: Conditions) -> Measured:
    """Trains on the swiss roll with c = 0.01, and with λ = 10."""
    clipped = TrainConfig(
        objective="wgan",
        data="swiss-roll",
        hidden_dim=128,
        clip_value=_CLIP_VALUE,
        seed=conditions.seed,
    )
    penalised = TrainConfig(
        objective="wgan-gp",
        data="swiss-roll",
        hidden_dim=128,
        penalty_weight=10.0,
        seed=conditions.seed,
    )
    return Measured(
        _train(conditions, clipped, into_the_box),
        _train(conditions, penalised, lambda g, c: (g, c)),
    )


def into_the_box(generator: nn.Module, critic: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Scales each weight matrix to reach ±c and no further.

    The usual initialisation is far wider than the box: the first clipping alone would put most
    weights on its walls. So what stands there in the end was pushed there by training.
    """
    with torch.no_grad():
        for weight in _matrices(critic):
            weight.mul_(_CLIP_VALUE / weight.abs().max())
    return generator, critic


def _matrices(critic: nn.Module) -> list[Tensor]:
    return [parameter for parameter in critic.parameters() if parameter.dim() > 1]


def _hidden_weights(critic: nn.Module) -> Tensor:
    # Between hidden layers alone: the first and the last matrix start on scales of their own.
    square = [weight for weight in _matrices(critic) if weight.shape[0] == weight.shape[1]]
    return torch.cat([weight.detach().flatten() for weight in square]).double().cpu()


def _train(conditions: Conditions, config: TrainConfig, networks: object) -> Weights:
    run = TrainingRun(config, conditions.device, networks)  # type: ignore[arg-type]
    before = _hidden_weights(run.critic)
    for _ in conditions.count(config.objective):
        run.step()
    run.losses()
    after = _hidden_weights(run.critic)
    return summarise(before, after, _CLIP_VALUE if config.objective == "wgan" else None)


def summarise(before: Tensor, after: Tensor, clip_value: float | None) -> Weights:
    """The histograms on ±c, or on ±max |w|."""
    reach = float(after.abs().max()) if clip_value is None else clip_value
    edges = torch.linspace(-reach, reach, _BINS + 1, dtype=torch.float64)
    # float32 rounds c away from the float64 edge.
    shares = [
        (
            torch.histc(w[w.abs() <= reach * (1 + 1e-6)].clamp(-reach, reach), _BINS, -reach, reach)
            / len(w)
        ).tolist()
        for w in (before, after)
    ]
    outermost = [float((w.abs() >= 0.95 * reach).double().mean()) for w in (before, after)]
    return Weights(reach, edges.tolist(), shares[0], shares[1], outermost[0], outermost[1])


def findings(measured: Measured) -> list[Finding]:
    """Clipping piles weights up at the bounds; the penalty leaves them spread."""
    clipped, penalised = measured.clipping, measured.penalty
    return [
        Finding(
            "clipping pushes the weights to ±c: a quarter of them or more end beyond 0.95 c",
            clipped.outermost_after >= 0.25,
            f"{clipped.outermost_before:.1%} at first, {clipped.outermost_after:.1%} at the end",
        ),
        Finding(
            "under the penalty fewer weights than a uniform distribution's 5% end in the outer 5% "
            "of their range",
            penalised.outermost_after < 0.05,
            f"{penalised.outermost_after:.3%}",
        ),
    ]


def draw(measured: Measured) -> Figure:
    """One panel per critic; start as an outline, end filled."""
    figure, (left, right) = panels(2)
    _histogram(left, measured.clipping, "clipped to ±c, c = 0.01", ORANGE)
    left.legend(loc="upper center", fontsize=9)
    left.set_xticks([-_CLIP_VALUE, 0, _CLIP_VALUE], ["−c", "0", "c"])
    for bound in (-_CLIP_VALUE, _CLIP_VALUE):
        left.axvline(bound, color=GREY, linestyle="--", linewidth=1)
    _histogram(right, measured.penalty, "gradient penalty, λ = 10", GREEN)
    right.legend(loc="lower center", fontsize=9)
    return figure


def _histogram(axes: Axes, weights: Weights, title: str, colour: str) -> None:
    axes.stairs(
        [100 * share for share in weights.after],
        weights.edges,
        fill=True,
        color=colour,
        label="end",
    )
    axes.stairs(
        [100 * share for share in weights.before], weights.edges, color="black", label="start"
    )
    label(axes, title, "weight between hidden layers", "% of the weights per bin")


STUDY = Study(
    name="weights",
    claim="clipping pushes the critic's weights to the two bounds, a gradient penalty does not",
    source="Gulrajani et al., 2017, arXiv 1704.00028, figure 1(b)",
    steps=400,
    measure=measure,
    findings=findings,
    draw=draw,
)
