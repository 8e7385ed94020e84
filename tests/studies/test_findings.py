"""Verdicts on made-up numbers: each finding can be seen and can be not seen."""

import dataclasses
import math

import pytest

from wgan_fast.studies import (
    STUDIES,
    Finding,
    clip_value,
    estimate,
    gradient_norms,
    memory,
    normalisation,
    penalty_weight,
    point_masses,
    verdict,
    weights,
)


def seen(study, measured):
    return [finding.seen for finding in STUDIES[study].findings(measured)]


def norms(low, middle, high):
    return gradient_norms.NormsOverTraining([0], [0.1, 1.0], [[1.0]], [low], [middle], [high])


@pytest.mark.parametrize(
    ("penalty", "clipping", "expected"),
    [
        ((0.9, 1.0, 1.1), (0.01, 0.01, 0.02), [True, True, True]),
        ((0.7, 1.05, 1.1), (0.01, 0.01, 0.02), [True, False, True]),
        ((0.9, 1.05, 1.3), (0.01, 0.01, 0.02), [True, False, True]),
        ((0.85, 0.88, 1.1), (3.0, 4.0, 5.0), [False, True, True]),
        ((1.0, 1.2, 1.3), (0.9, 0.95, 1.0), [False, False, False]),
    ],
)
def test_gradient_norms(penalty, clipping, expected):
    measured = gradient_norms.Measured(norms(*penalty), norms(*clipping))
    assert seen("gradient-norms", measured) == expected


@pytest.mark.parametrize(
    ("clipped", "penalised", "expected"),
    [(0.6, 0.001, [True, True]), (0.2, 0.06, [False, False]), (0.3, 0.06, [True, False])],
)
def test_weights(clipped, penalised, expected):
    def make(outermost):
        return weights.Weights(1.0, [-1, 1], [1.0], [1.0], 0.05, outermost)

    assert seen("weights", weights.Measured(make(clipped), make(penalised))) == expected


@pytest.mark.parametrize(
    ("deviations", "ratios", "distances", "expected"),
    [
        ((0.3, 0.2, 0.1), (1.5, 1.2, 1.0), (0.1, 0.1, 0.1), [True, True, True]),
        ((0.3, 0.2, 0.2), (1.5, 1.2, 1.0), (0.1, 0.1, 0.3), [False, True, False]),
        ((0.1, 0.2, 0.1), (1.0, 1.2, 1.5), (0.3, 0.2, 0.1), [False, False, False]),
    ],
)
def test_penalty_weight(deviations, ratios, distances, expected):
    courses = [
        # What came early must not count.
        penalty_weight.Course(
            w, [1, 2, 3, 4], [9.0] * 3 + [n], [9.0] * 3 + [r * d], [9.0] * 3 + [d]
        )
        for w, n, r, d in zip((1.0, 10.0, 100.0), deviations, ratios, distances, strict=True)
    ]
    assert seen("penalty-weight", penalty_weight.Measured(courses, 0.05)) == expected


@pytest.mark.parametrize(
    ("large", "small", "penalised", "expected"),
    [
        (100.0, 1e-20, 0.5, [True, True, True]),
        (100.0, 0.0, 0.5, [True, True, True]),
        (5.0, 0.5, 20.0, [False, False, False]),
        (0.01, 100.0, 0.01, [False, False, False]),
    ],
)
def test_clip_value(large, small, penalised, expected):
    profiles = [
        clip_value.Profile("small", 0.001, [2 * small, 5.0, 2.0]),
        clip_value.Profile("large", 0.1, [large, 5.0, 1.0]),
        clip_value.Profile("penalty", None, [penalised, 5.0, 1.0]),
    ]
    assert seen("clip-value", clip_value.Measured(profiles)) == expected


def test_a_gradient_that_is_gone_everywhere_has_vanished():
    assert clip_value.growth(clip_value.Profile("dead", 0.001, [0.0, 0.0])) == 0


@pytest.mark.parametrize(
    ("foreign", "deviation", "distance", "expected"),
    [
        ((0, 1e-7, 0.2), (0.1, 0.1, 0.3), (0.1, 0.1, 0.2), [True, True, True, True]),
        ((0, 1e-2, 0.2), (0.1, 0.3, 0.3), (0.1, 0.2, 0.2), [True, False, False, True]),
        ((1e-3, 0, 0.001), (0.4, 0.1, 0.3), (0.1, 0.2, 0.1), [False, False, False, False]),
    ],
)
def test_normalisation(foreign, deviation, distance, expected):
    courses = [
        normalisation.Course(name, [1], [1.0], [deviation[i]], [foreign[i]], [distance[i]])
        for i, name in enumerate(("none", "layer", "batch"))
    ]
    assert seen("normalisation", normalisation.Measured(courses, 0.01)) == expected


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ((30, 60, 40, 20), [True, True, True]),
        ((70, 60, 80, 20), [False, False, True]),
        ((30, 60, 40, 50), [True, True, False]),
    ],
)
def test_memory(peaks, expected):
    names = (memory.GAN, memory.DOUBLE, memory.OURS, memory.CHUNKED)
    # The largest batch decides.
    by_name = {name: [50 - peak // 2, peak] for name, peak in zip(names, peaks, strict=True)}
    assert seen("memory", memory.Measured([16, 32], 8, by_name)) == expected


def masses(scale=1.0, slope=1.0, js=1.0, js_slope=0.0):
    thetas = [-1.0, 0.0, 2.0]
    return point_masses.Measured(
        thetas,
        10.0,
        [scale * point_masses.penalised_closed_form(theta, 10.0) for theta in thetas],
        [slope * (theta > 0) - slope * (theta < 0) for theta in thetas],
        [js * point_masses.jensen_shannon_closed_form(theta) for theta in thetas],
        [js_slope * math.copysign(1, theta) for theta in thetas],
    )


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (masses(), [True, True, True, True]),
        (masses(scale=0.9), [False, True, True, True]),
        (masses(js=0.9), [True, False, True, True]),
        (masses(js=1.1), [True, False, True, True]),
        (masses(slope=-1.0), [True, True, False, True]),
        (masses(slope=0.5), [True, True, False, True]),
        (masses(js_slope=-0.3), [True, True, True, False]),
    ],
)
def test_point_masses(measured, expected):
    assert seen("point-masses", measured) == expected


@pytest.mark.parametrize(
    ("distance", "critic", "gan", "expected"),
    [
        ((4, 3, 2, 1), (5, 3, 2, 1), (1, 3, 2, 4), [True, True, True]),
        ((4, 3, 2, 3), (5, 3, 2, 4), (4, 3, 1, 2), [False, True, True]),
        ((4, 3, 2, 1), (1, 2, 3, 4), (4, 3, 2, 1), [True, False, False]),
    ],
)
def test_estimate(distance, critic, gan, expected):
    wasserstein, js = (
        estimate.Course([1, 2, 3, 4], list(series), list(distance)) for series in (critic, gan)
    )
    assert seen("estimate", estimate.Measured(wasserstein, js, 0.1)) == expected


@pytest.mark.parametrize(
    ("flags", "summary"),
    [
        ((True, True), "verdict: as claimed"),
        ((True, False), "verdict: in part as claimed (1 of 2)"),
        ((False, False), "verdict: the expected effect was not seen"),
    ],
)
def test_the_summary_counts(flags, summary):
    study = dataclasses.replace(STUDIES["memory"], name="n", claim="c", source="s")
    findings = [Finding(f"claim {i}", flag, f"measured {i}") for i, flag in enumerate(flags)]
    first, *lines, last = verdict(study, findings).splitlines()
    assert first == "n: c (s)"
    for i, (line, flag) in enumerate(zip(lines, flags, strict=True)):
        assert line == f"  {'seen    ' if flag else 'NOT SEEN'}  claim {i}: measured {i}"
    assert last == summary
