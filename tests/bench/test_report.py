"""Results become figures, a table and JSON; the command finds every case."""

import json

import pytest
import torch

from bench import __main__ as command
from bench.harness.case import Case, Figure
from bench.harness.discover import all_cases, cases_for
from bench.harness.interleave import Plan
from bench.harness.measure import measure_or_refuse
from bench.harness.results import CaseResult, Results, SideResult
from bench.harness.stamp import stamp
from bench.harness.table import table


def sides(fast=0.001, rounds=15, memory=500):
    return [
        SideResult("textbook", [0.002] * rounds, 5, 1000, 20, 1500, 12_000),
        SideResult("ours", [fast] * rounds, 10, memory, 7, 600, 10_000),
    ]


def result(name="claim/one", figures=(), running=1.0, **more):
    return CaseResult(
        name,
        "B 64",
        2_000_000,
        sides(**more),
        list(figures),
        running=running,
        forward_flops=1000,
        gemm_flops_per_second=2e7,
    )


def row_of(side, printed):
    (row,) = [line for line in printed.splitlines() if f"| {side} |" in line]
    return row


FAST, LEAN = Figure("ours", "speed-up", 2.0), Figure("ours", "memory", 0.5)


def test_the_figures_of_a_case():
    case = result()
    side = case.sides[1]
    assert case.speed_up(side).median == pytest.approx(2)
    assert case.memory_ratio(side) == 0.5
    assert case.allocator_ratio(side) == 0.4
    assert case.gigabytes_per_second(side) == pytest.approx(2.0)
    assert case.forwards(side) == 10
    assert case.gemm_fraction(side) == pytest.approx(0.5)
    assert case.doubt(side) == ""


def test_figures_that_nobody_asked_for():
    case = CaseResult("claim/one", "", None, [SideResult("textbook", [1.0], 1, 1, 1)])
    assert case.forwards(case.sides[0]) is None
    assert case.gemm_fraction(case.sides[0]) is None


@pytest.mark.parametrize(
    ("figure", "more", "verdict"),
    [
        (FAST, {}, "met"),
        (FAST, {"fast": 0.0011}, "missed"),
        (FAST, {"rounds": 14}, "too few rounds"),
        (FAST, {"running": 0.89}, "machine busy"),
        (FAST, {"running": None}, "met"),
        (LEAN, {}, "met"),
        (LEAN, {"memory": 501}, "missed"),
        (LEAN, {"rounds": 1, "running": 0.1}, "met"),
    ],
)
def test_verdicts(figure, more, verdict):
    case = result(figures=[figure], **more)
    assert case.verdict(figure) == verdict
    said = [] if verdict == "met" else [f"{verdict}: claim/one, ours, {figure}"]
    assert Results({}, [case]).not_met == said


def test_a_baseline_that_allocates_nothing():
    nothing = [SideResult("textbook", [1.0] * 15, 1, 0, 1, 0)]
    for memory, verdict in ((0, "met"), (8, "missed")):
        ours = SideResult("ours", [1.0] * 15, 1, memory, 1, memory)
        case = CaseResult("claim/one", "", None, [*nothing, ours], [LEAN])
        assert case.memory_ratio(ours) is None
        assert case.verdict(LEAN) == verdict
        assert "–" in table(Results({}, [case]))


def test_a_starved_measurement_is_called_so():
    row = row_of("ours", table(Results({}, [result(running=0.5)])))
    assert "[2.00, 2.00] starved |" in row


def test_a_wide_spread_is_called_noisy():
    spread = [0.001, 0.0015, 0.003] * 5
    case = CaseResult("claim/one", "", None, [sides()[0], SideResult("ours", spread, 1, 1, 1)])
    assert case.doubt(case.sides[1]) == "noisy"
    assert "noisy" in row_of("ours", table(Results({}, [case])))


def test_json_round_trips(tmp_path):
    refused = CaseResult("claim/two", "B 1", figures=[LEAN], refused="DisagreementError: off")
    results = Results({"threads": 2, "operators": {"a": "C++"}}, [result(figures=[FAST]), refused])
    path = tmp_path / "new folder" / "results.json"
    results.write(path)
    assert Results.read(path) == results
    assert json.loads(path.read_text())["cases"][0]["sides"][1]["seconds"] == [0.001] * 15


def test_the_table_has_a_row_for_each_side_and_each_refusal():
    refused = CaseResult("claim/two", "B 1", figures=[LEAN], refused="off by 1 | 2")
    printed = table(Results({"threads": 2}, [result(figures=[FAST, LEAN]), refused]))
    baseline, ours = row_of("textbook", printed), row_of("ours", printed)
    assert baseline.startswith("| one: B 64 | textbook | 1 | 2 | 1 | 12.00 | 0.30 | 20 | 1 kB |")
    assert ours.startswith("|  | ours | **2.00** [2.00, 2.00] | 1 | 2 | 10.00 | 0.50 | 7 | 500 B |")
    assert ours.endswith("| 0.50 (0.40) | speed-up ≥ 2; memory ≤ 0.5 | met; met |")
    (refusal,) = [line for line in printed.splitlines() if line.startswith("| two: B 1 |")]
    assert "not measured: off by 1 \\| 2" in refusal
    assert "memory ≤ 0.5" in refusal
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    columns = {line.replace("\\|", "").count("|") for line in rows}
    assert len(columns) == 1, "every row has every column"
    assert "threads 2" in printed.splitlines()[-1]


def test_each_claim_has_its_table_without_empty_columns():
    plain = CaseResult("other/one", "", None, [SideResult("textbook", [1.0], 1, 1, 1)])
    first, second = table(Results({}, [result(), result("claim/two"), plain])).split("### other")
    assert first.startswith("### claim\n")
    assert "GB/s | FLOPs/F |" in first
    assert "| one: B 64 |" in first
    assert "| two: B 64 |" in first
    header = second.splitlines()[2]
    assert header.startswith("| case | side |")
    assert "GB/s" not in header
    assert "FLOPs/F" not in header


def test_the_stamp_says_what_ran_where():
    found = stamp(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads()
    assert set(found["operators"]) >= {"interpolate", "gradient_norm_penalty", "clip_weights_"}
    assert {"date", "CPU", "torch", "triton", "Python", "commit", "load"} <= set(found)
    json.dumps(found)


def test_every_case_is_discovered_and_sound():
    cases = all_cases()
    claims = {case.name.split("/")[0] for case in cases}
    assert claims == {"operators", "critic_loss", "gradient_penalty", "R1", "R1+R2", "iteration"}
    for case in cases:
        assert len(case.sides) >= 2
        assert {figure.side for figure in case.figures} <= set(case.sides)
        others = {*case.must_call, *case.prepare, *case.peers, *case.compiled}
        assert others <= set(case.sides)
        assert next(iter(case.sides)) not in case.peers
        assert not {figure.side for figure in case.figures} & set(case.peers)
    assert cases_for("cpu", "critic_loss/toy") == [
        case for case in cases if case.name == "critic_loss/toy-mlp"
    ]
    for device in ("cuda", "cpu"):
        assert 0 < len(cases_for(device)) < len(cases)


@pytest.mark.parametrize("name", ["critic_loss/toy-mlp", "operators/clip_weights_"])
def test_a_real_case_runs(name, monkeypatch):
    # The real one takes its time; every run of the benchmark checks what it makes.
    monkeypatch.setattr("torch._inductor.compile", lambda graph, inputs, **options: graph)
    (case,) = cases_for("cpu", name)
    plan = Plan(rounds=2, seconds=0.0, sample_seconds=0.0, warmup_seconds=0.0)
    measured = measure_or_refuse(case, torch.device("cpu"), plan)
    if measured.refused is None:  # without a compiled extension it must be refused
        assert [side.name for side in measured.sides] == list(case.sides)
    else:
        assert "plain PyTorch" in measured.refused


@pytest.fixture
def small(monkeypatch):
    """The command on two cases of its own: one sound with a figure out of reach, one wrong."""

    def cases(device, only=""):
        x = torch.ones(100)
        sound = {"plain": lambda x: x * 2, "other": lambda x: x + x}
        wrong = {"plain": lambda x: x * 2, "other": lambda x: x * 3}
        unreachable = Figure("other", "memory", 0.0)
        made = [
            Case("small/sound", "100", lambda _: x, sound, figures=(unreachable,)),
            Case("small/wrong", "100", lambda _: x, wrong),
        ]
        return [case for case in made if only in case.name]

    monkeypatch.setattr(command, "cases_for", cases)
    monkeypatch.setattr(command, "Plan", lambda: Plan(sample_seconds=0.0, warmup_seconds=0.0))


QUICKLY = ["--rounds", "2", "--seconds", "0", "--threads", "1"]


def test_a_first_call_that_takes_long_and_when_it_pays():
    baseline = SideResult("textbook", [0.003] * 15, 1, 1, 1, first_seconds=0.003)
    compiled = SideResult("ours", [0.001] * 15, 1, 1, 1, first_seconds=2.003)
    slower = SideResult("slower", [0.004] * 15, 1, 1, 1, first_seconds=0.6)
    case = CaseResult("claim/one", "", None, [baseline, compiled, slower])
    assert case.pays_after(compiled) == 1000
    assert case.pays_after(slower) is None
    printed = table(Results({}, [case]))
    assert "| 2.0 s, 1000 |" in printed
    assert "| 0.6 s, never |" in printed


def test_a_figure_against_the_strongest_peer():
    sides = [
        SideResult(name, [seconds] * 15, 1, 1, 1)
        for name, seconds in (("textbook", 0.004), ("ours", 0.001), ("a", 0.003), ("b", 0.002))
    ]
    case = CaseResult("claim/one", "", None, sides)
    for bound, against, verdict in (
        (2.0, ("a", "b"), "met"),
        (2.5, ("a", "b"), "missed"),
        (2.5, ("a",), "met"),
        (3.5, ("not measured",), "met"),
    ):
        assert case.verdict(Figure("ours", "speed-up", bound, against)) == verdict
    assert str(Figure("ours", "speed-up", 2.0, ("a", "b"))) == "speed-up over a and b ≥ 2"


def test_the_command(small, tmp_path, capsys):
    path = tmp_path / "all.json"
    assert command.main([*QUICKLY, "--json", str(path)]) == 1, "a refused case is an error"
    printed = capsys.readouterr().out
    assert "| sound: 100 | plain |" in printed
    assert "| wrong: 100 |" in printed
    read = Results.read(path)
    assert [case.name for case in read.cases] == ["small/sound", "small/wrong"]
    assert len(read.cases[0].sides[0].seconds) == 2
    assert read.stamp["threads"] == 1


def test_a_figure_that_is_not_met_is_an_error_where_strict(small, tmp_path, capsys):
    only = [*QUICKLY, "--only", "sound", "--json", str(tmp_path / "sound.json")]
    assert command.main(only) == 0
    assert command.main([*only, "--strict"]) == 1
    assert "missed: small/sound, other, memory ≤ 0" in capsys.readouterr().err


def test_what_cannot_be_run_is_said(capsys):
    assert command.main(["--only", "no such case"]) == 2
    assert "no such case" in capsys.readouterr().err
    assert command.main(["--list", "--only", "operators"]) == 0
    assert "operators/interpolate\n" in capsys.readouterr().out
    if not torch.cuda.is_available():
        assert command.main(["--device", "cuda"]) == 2
        assert "no CUDA device" in capsys.readouterr().err
