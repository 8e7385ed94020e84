"""Distances between samples and the like, computed without any critic."""

import math
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def exact_wasserstein(first: Tensor, second: Tensor) -> float:
    """W₁ of two samples of equal size, exactly: the cheapest way to pair their points.

    W₁ = min over permutations π of (1/N) Σ ‖firstᵢ − second_π(i)‖₂, solved as an assignment problem
    in float64, in O(N³). Of two samples of one distribution it is above 0, by what N leaves open.

    Args:
        first: (N, ...), flattened to N points.
        second: the same shape.
    """
    cost = torch.cdist(first.double().flatten(1), second.double().flatten(1)).cpu().numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


def sliced_wasserstein(first: Tensor, second: Tensor, directions: Tensor) -> float:
    """Sliced W₁: the mean of W₁ over projections onto lines (Bonneel et al., 2015).

    Args:
        first: (N, ...), flattened to N points of D coordinates.
        second: the same shape.
        directions: (D, K), columns of length 1.
    """
    projected = [(points.flatten(1) @ directions).sort(0).values for points in (first, second)]
    return float((projected[0] - projected[1]).abs().mean())


def random_directions(dimensions: int, count: int, rng: torch.Generator) -> Tensor:
    """``count`` uniform directions as the columns of a (dimensions, count) tensor."""
    normal = torch.randn(dimensions, count, generator=rng, device=rng.device)
    return normal / normal.norm(dim=0)


def jensen_shannon_estimate(cross_entropy: float) -> float:
    """JS = log 2 − L/2, of a discriminator's loss L = −E log D(real) − E log(1 − D(fake)).

    Equal to the Jensen-Shannon divergence (in nats) for the best discriminator, below it for every
    other one (Goodfellow et al., 2014, arXiv 1406.2661, theorem 1).
    """
    return math.log(2) - cross_entropy / 2


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's ρ of two series without ties; 0 where a series is too short or constant."""
    if len(first) < 2:
        return 0.0
    ranks = [
        torch.tensor(series).double().argsort().argsort().double() for series in (first, second)
    ]
    if any(min(series) == max(series) for series in (first, second)):
        return 0.0
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])
