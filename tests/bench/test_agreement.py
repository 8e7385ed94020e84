"""No case is timed that is not what it says: wrong results and fallbacks are refused."""

from collections import Counter

import pytest
import torch

from bench.harness.agreement import check_agreement, compare
from bench.harness.case import Case, DisagreementError, WrongImplementationError
from bench.harness.guards import check_calls, runs_compiled
from bench.harness.interleave import Plan
from bench.harness.measure import measure, measure_or_refuse
from wgan_fast import ops

CPU = torch.device("cpu")
QUICK = Plan(rounds=2, seconds=0.0, sample_seconds=0.0, warmup_seconds=0.0)


def case(right, other, **more):
    sides = {"right": right, "other": other}
    return Case("claim/subject", "3 numbers", lambda _: torch.arange(1.0, 4.0), sides, **more)


def test_rounding_agrees():
    compare(torch.ones(5), torch.ones(5) + 1e-6, 1e-5)
    compare([torch.ones(5), {"a": 2.0}], [torch.ones(5), {"a": 2.0}], 0.0)


@pytest.mark.parametrize(
    "actual",
    [
        torch.tensor([1.0, 1.0, 1.001]),
        torch.tensor([1.0, 1.0, float("nan")]),
        torch.ones(3, 1),
        None,
        [torch.ones(3), torch.ones(3)],
    ],
    ids=["value", "NaN", "shape", "None", "number of tensors"],
)
def test_anything_else_does_not(actual):
    with pytest.raises(DisagreementError):
        compare(torch.ones(3), actual, 1e-5)


def test_a_missing_gradient_is_a_zero_gradient():
    compare([torch.ones(3), None], [torch.ones(3), torch.zeros(2)], 1e-5)
    with pytest.raises(DisagreementError, match="result 1"):
        compare([torch.ones(3), None], [torch.ones(3), torch.ones(2)], 1e-5)


def test_a_gradient_that_cancels_is_judged_beside_its_siblings():
    compare([torch.ones(3), torch.tensor(1e-9)], [torch.ones(3), torch.tensor(-1e-9)], 1e-5)
    with pytest.raises(DisagreementError):
        compare([torch.ones(3), torch.tensor(0.0)], [torch.ones(3), torch.tensor(1e-4)], 1e-5)


def test_results_are_copied_before_the_next_side_runs():
    shared = torch.zeros(3)
    with pytest.raises(DisagreementError, match="second"):
        check_agreement({"first": lambda: shared.add_(1), "second": lambda: shared.add_(1)}, 0, CPU)


def test_a_baseline_without_results_is_refused():
    with pytest.raises(DisagreementError, match="nothing"):
        check_agreement({"first": lambda: None, "second": lambda: None}, 1e-5, CPU)


def test_a_wrong_side_is_never_timed():
    wrong = case(lambda x: x * 2, lambda x: x * 2.1)
    with pytest.raises(DisagreementError, match="other"):
        measure(wrong, CPU, QUICK)
    refused = measure_or_refuse(wrong, CPU, QUICK)
    assert refused.sides == []
    assert "other" in refused.refused


def test_a_guard_comes_before_everything():
    def guard(device):
        raise WrongImplementationError("not here")

    def never(x):
        raise AssertionError("was run")

    with pytest.raises(WrongImplementationError, match="not here"):
        measure(case(never, never, requires=(guard,)), CPU, QUICK)


def test_a_fallback_is_refused_with_its_reason(monkeypatch):
    table = {
        "interpolate": {"cpu": "plain PyTorch", "cuda": "Triton"},
        "clip_weights_": {"cpu": "C++", "cuda": "plain PyTorch"},
        "extension": {"usable": "no", "why": "no compiler"},
        "triton": {"usable": "yes", "why": ""},
    }
    monkeypatch.setattr(ops, "status", lambda: table)
    with pytest.raises(WrongImplementationError, match=r"interpolate.*plain PyTorch.*no compiler"):
        runs_compiled("clip_weights_", "interpolate")(CPU)
    runs_compiled("interpolate")(torch.device("cuda"))
    with pytest.raises(WrongImplementationError, match="clip_weights_"):
        runs_compiled("clip_weights_")(torch.device("cuda"))


def test_a_side_that_never_calls_its_operator_is_refused():
    must_call = {"other": ("aten::mul",)}
    measure(case(lambda x: x + x, lambda x: x * 2, must_call=must_call), CPU, QUICK)
    with pytest.raises(WrongImplementationError, match=r"other never called aten::mul"):
        measure(case(lambda x: x + x, lambda x: x + x, must_call=must_call), CPU, QUICK)
    with pytest.raises(WrongImplementationError):
        check_calls("other", ("aten::mul",), Counter())


def test_every_side_has_a_problem_of_its_own():
    # Both write into the problem; on a shared one the second would find what the first has left.
    result = measure(case(lambda x: x.add_(1), lambda x: x.add_(1)), CPU, QUICK)
    assert [side.name for side in result.sides] == ["right", "other"]
