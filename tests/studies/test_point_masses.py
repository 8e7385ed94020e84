import math

import pytest
import torch

from wgan_fast.studies import point_masses
from wgan_fast.studies.measures import exact_wasserstein

THETAS = [-1.5, 0.0, 0.75]


@pytest.mark.parametrize("theta", THETAS)
def test_the_closed_forms(theta):
    masses = torch.zeros(1, 1), torch.full((1, 1), theta)
    assert point_masses.wasserstein_closed_form(theta) == exact_wasserstein(*masses)
    # JS by its definition, on the two (or one) points that have mass.
    real, fake = ([1.0, 0.0], [0.0, 1.0]) if theta else ([1.0], [1.0])
    js = 0.0
    for p, q in zip(real, fake, strict=True):
        js += sum(x * math.log(2 * x / (p + q)) / 2 for x in (p, q) if x)
    assert point_masses.jensen_shannon_closed_form(theta) == pytest.approx(js, rel=1e-12)
    # The best slope, by trying them all.
    slopes = torch.linspace(0, 3, 30_001, dtype=torch.float64)
    losses = -slopes * abs(theta) + 4.0 * (slopes - 1) ** 2
    best = slopes[losses.argmin()].item() * abs(theta)
    assert point_masses.penalised_closed_form(theta, 4.0) == pytest.approx(best, abs=1e-3)


def test_trained_critics_meet_the_closed_forms(conditions, monkeypatch):
    monkeypatch.setattr(point_masses, "_THETAS", THETAS)
    measured = point_masses.measure(conditions(steps=300))
    assert measured.thetas == THETAS
    for place, theta in enumerate(THETAS):
        best = point_masses.penalised_closed_form(theta, measured.weight)
        assert measured.wasserstein[place] == pytest.approx(best, abs=0.1)
        js = point_masses.jensen_shannon_closed_form(theta)
        assert measured.jensen_shannon[place] == pytest.approx(js, abs=0.03)
        assert measured.jensen_shannon[place] <= js + 1e-6
        assert abs(measured.jensen_shannon_slope[place]) < 0.05
        if theta:
            slope = math.copysign(1 + abs(theta) / (2 * measured.weight), theta)
            assert measured.wasserstein_slope[place] == pytest.approx(slope, abs=0.2)
    assert all(finding.seen for finding in point_masses.findings(measured))
