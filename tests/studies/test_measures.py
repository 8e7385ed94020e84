import itertools
import math

import pytest
import torch

from wgan_fast.studies.measures import (
    exact_wasserstein,
    jensen_shannon_estimate,
    random_directions,
    rank_correlation,
    sliced_wasserstein,
)
from wgan_fast.studies.training_run import late_mean, moments, tail


def test_exact_wasserstein_is_the_best_of_all_pairings():
    first, second = torch.randn(2, 5, 3, dtype=torch.float64)
    costs = [
        (first - second[list(order)]).norm(dim=1).mean().item()
        for order in itertools.permutations(range(5))
    ]
    assert exact_wasserstein(first, second) == pytest.approx(min(costs), rel=1e-12)


def test_exact_wasserstein_of_a_shift_is_its_length():
    points, shift = torch.randn(40, 2, 2), torch.randn(2, 2)
    shuffled = (points + shift)[torch.randperm(40)]
    assert exact_wasserstein(points, shuffled) == pytest.approx(shift.norm().item(), rel=1e-5)


def test_sliced_wasserstein_on_a_line_is_exact():
    first, second = torch.randn(2, 50, 1)
    one = torch.ones(1, 1)
    expected = exact_wasserstein(first, second)
    assert sliced_wasserstein(first, second, one) == pytest.approx(expected, rel=1e-5)


def test_sliced_wasserstein_of_a_shift_in_the_plane():
    # The mean of |⟨shift, direction⟩| over the circle is 2/π of its length.
    points, shift = torch.randn(64, 2), torch.tensor([3.0, 4.0])
    directions = random_directions(2, 5_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(5_000))
    seen = sliced_wasserstein(points, points + shift, directions)
    assert seen == pytest.approx(5 * 2 / math.pi, rel=0.02)


def test_jensen_shannon_of_the_best_discriminator():
    real, fake = torch.rand(2, 5, dtype=torch.float64)
    real, fake = real / real.sum(), fake / fake.sum()
    middle = (real + fake) / 2
    js = (real * (real / middle).log()).sum() / 2 + (fake * (fake / middle).log()).sum() / 2
    best = real / (real + fake)
    cross_entropy = -(real * best.log()).sum() - (fake * (1 - best).log()).sum()
    assert jensen_shannon_estimate(cross_entropy.item()) == pytest.approx(js.item(), rel=1e-12)


def test_rank_correlation():
    series = torch.randn(20).tolist()
    assert rank_correlation(series, [math.exp(value) for value in series]) == pytest.approx(1)
    assert rank_correlation(series, [-value for value in series]) == pytest.approx(-1)
    other = torch.randn(20).tolist()
    from scipy.stats import spearmanr

    expected = spearmanr(series, other).statistic
    assert rank_correlation(series, other) == pytest.approx(expected, rel=1e-9)
    assert rank_correlation([1.0], [2.0]) == 0
    assert rank_correlation([1.0, 1.0], [2.0, 3.0]) == 0


@pytest.mark.parametrize("steps", [1, 2, 7, 60, 1000])
@pytest.mark.parametrize("count", [1, 3, 60])
def test_moments_are_evenly_spread_and_end_at_the_end(steps, count):
    seen = moments(steps, count)
    assert len(seen) == min(steps, count)
    assert seen[-1] == steps
    assert seen[0] >= 1
    gaps = [after - before for before, after in itertools.pairwise([0, *seen])]
    assert max(gaps) - min(gaps) <= 1


def test_tail_is_never_empty():
    assert tail([1.0]) == [1.0]
    assert tail([1.0, 2.0, 3.0, 4.0]) == [4.0]
    assert tail([1.0, 2.0, 3.0, 4.0], 0.5) == [3.0, 4.0]
    assert late_mean([9.0] * 6 + [1.0, 2.0]) == 1.5
