"""The interleaved runner: known ratios are found, drift cancels, every side has its turns."""

import gc
import time
from collections import Counter
from itertools import combinations

import pytest
import torch

from bench.harness import interleave as module
from bench.harness.interleave import Plan, Quartiles, interleave, speed_ups, turn, wall_clock

QUICK = Plan(rounds=15, seconds=0.0, sample_seconds=0.002, warmup_seconds=0.0)


def busy(loops):
    def run():
        for _ in range(loops):
            pass

    return run


def own_time(run, repeats):
    """A timer that stands still while the machine does other people's work."""
    start = time.thread_time()
    for _ in range(repeats):
        run()
    return time.thread_time() - start


class Machine:
    """A timer without a clock: sides cost what ``costs`` says, times the present slowdown."""

    def __init__(self, costs, slowdown=lambda turn: 1.0):
        self.costs, self.slowdown = costs, slowdown
        self.turns = 0
        self.seen = []

    def sides(self):
        return {name: (lambda name=name: name) for name in self.costs}

    def __call__(self, run, repeats):
        name = run()
        self.seen.append(name)
        self.turns += 1
        return repeats * self.costs[name] * self.slowdown(self.turns)


def test_a_known_ratio_is_found():
    samples = interleave({"slow": busy(40_000), "fast": busy(20_000)}, QUICK, own_time).seconds
    assert speed_ups(samples["slow"], samples["fast"]).median == pytest.approx(2, rel=0.2)


def test_the_wall_clock_sees_all_repeats():
    assert wall_clock(lambda: time.sleep(0.002), 5) >= 0.01


def test_drift_cancels():
    # The machine becomes four times as slow in the middle and ever slower all the way.
    machine = Machine(
        {"slow": 0.02, "fast": 0.01}, lambda turn: (1 + 0.001 * turn) * (4 if turn > 20 else 1)
    )
    samples = interleave(machine.sides(), QUICK, machine).seconds
    assert max(samples["fast"]) > 4 * min(samples["fast"])
    assert speed_ups(samples["slow"], samples["fast"]).median == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_pair_of_sides_stands_in_both_orders_equally_often(count):
    names = [f"side {i}" for i in range(count)]
    before = Counter()
    starts = Counter()
    for index in range(2 * count):
        order = turn(names, index)
        assert sorted(order) == names
        starts[order[0]] += 1
        before.update(combinations(order, 2))
    assert set(before.values()) == {count}
    assert set(starts.values()) == {2}


def test_the_share_of_running_is_taken():
    timings = interleave({"asleep": lambda: time.sleep(0.005)}, QUICK, wall_clock)
    assert 0 <= timings.running < 0.5
    timings = interleave({"busy": busy(20_000)}, QUICK, own_time)
    assert 0 < timings.running <= 1.01


def test_short_work_is_repeated_within_a_sample():
    machine = Machine({"a": 0.001, "b": 0.0001})
    plan = Plan(rounds=15, seconds=0.0, sample_seconds=0.01, warmup_seconds=0.0)
    timings = interleave(machine.sides(), plan, machine)
    samples, repeats = timings.seconds, timings.repeats
    assert 10 <= repeats["a"] <= 12
    assert 100 <= repeats["b"] <= 120
    assert samples["b"] == pytest.approx([0.0001] * len(samples["b"]))


@pytest.mark.parametrize(("rounds", "expected"), [(15, 16), (20, 20), (1, 2)])
def test_rounds_are_at_least_as_many_as_asked_for_and_whole_pairs(rounds, expected):
    machine = Machine({"a": 1.0, "b": 1.0})
    plan = Plan(rounds=rounds, seconds=0.0, warmup_seconds=0.0)
    samples = interleave(machine.sides(), plan, machine).seconds
    assert {name: len(taken) for name, taken in samples.items()} == {"a": expected, "b": expected}


def test_time_allows_more_rounds_up_to_the_most():
    machine = Machine({"a": 1.0, "b": 1.0})
    plan = Plan(rounds=2, seconds=60.0, most_rounds=30, warmup_seconds=0.0)
    samples = interleave(machine.sides(), plan, machine).seconds
    assert len(samples["a"]) == 30


def test_no_collection_happens_within_a_sample_and_all_is_restored():
    seen = []
    interleave({"a": lambda: seen.append(gc.isenabled())}, QUICK, lambda run, n: (run(), 1.0)[1])
    assert True in seen[:2], "calibration comes before"
    assert not any(seen[2:])
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_collection_is_restored_after_an_error():
    def fails():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), module.garbage_collection_between_rounds():
        fails()
    assert gc.isenabled()


def test_quartiles():
    assert Quartiles.of([3.0]) == Quartiles(3, 3, 3)
    assert Quartiles.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Quartiles(2, 3, 4)


def test_ratios_are_taken_within_rounds():
    assert speed_ups([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == Quartiles(2, 2, 2)


@pytest.mark.cuda
def test_events_see_the_work_on_the_device():
    a = torch.randn(4096, 4096, device="cuda")
    once, twice = (lambda: a @ a), (lambda: (a @ a, a @ a))
    samples = interleave({"twice": twice, "once": once}, QUICK, module.cuda_events).seconds
    assert speed_ups(samples["twice"], samples["once"]).median == pytest.approx(2, rel=0.2)
