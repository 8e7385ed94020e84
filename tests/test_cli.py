"""The command line: in processes of its own where that can differ, in this one elsewhere."""

import json
import os
import subprocess
import sys

import pytest
import torch

import wgan_fast
from wgan_fast import cli

pytest.importorskip("tyro", reason="the command line needs the extra train")

EXTRA = ["matplotlib", "rich", "scipy", "sklearn", "tensorboard", "torchvision", "tyro"]
TINY = ["--steps", "2", "--batch-size", "4", "--n-critic", "1", "--latent-dim", "3"]
TINY += ["--channels", "2", "--hidden-dim", "8"]
FIRST_ORDER = "wgan-fast: backend: first_order goes with loop eager, and with auto; got loop "


def run(*arguments, python=("-m", "wgan_fast"), folder=None):
    # One thread: the machine may be busy with the other tests.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-W", "error", *python, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_train_then_sample(tmp_path, capsys):
    trained = run("train", *TINY, "--device", "cpu", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == "runs/wgan-gp-digits\n"
    assert "2/2  critic" in trained.stderr
    folder = tmp_path / "runs" / "wgan-gp-digits"
    assert json.loads((folder / "config.json").read_text())["steps"] == 2

    picture = tmp_path / "a.png"
    drawn = main(capsys, "sample", folder, "--count", 3, "--seed", 5, "--output", picture)
    assert drawn == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_train_with_every_shape_of_the_critic_then_sample_and_resume(tmp_path, capsys):
    folders = [tmp_path / name for name in ("first", "second")]
    options = ["--conditional", "--pac", "2", "--critic-scores", "multi-scale"]
    where = ["--device", "cpu", "--loop", "eager", "--run-folder", folders[0]]
    status, out, _ = main(capsys, "train", *TINY, *options, *where)
    assert (status, out) == (0, f"{folders[0]}\n")
    status, out, err = main(capsys, "sample", folders[0], "--label", 7, "--count", 2)
    assert (status, err) == (0, "")
    status, _, err = main(capsys, "sample", folders[0], "--label", 10)
    assert (status, err) == (2, "wgan-fast: label: expected a digit from 0 to 9, got 10\n")
    status, out, err = main(capsys, "resume", folders[0], "--steps", 3, "--run-folder", folders[1])
    assert (status, out) == (0, f"{folders[1]}\n"), err
    wrong = ["--data", "swiss-roll", "--critic-scores", "patch"]
    status, _, err = main(capsys, "train", *TINY, *wrong)
    assert status == 2
    assert "critic_scores: patch goes with images, data digits; got data swiss-roll" in err


@pytest.mark.parametrize("options", [["--inpaint"], ["--pairs", "separate", "--pac", "2"]])
def test_train_with_holes_or_pairs_then_sample_and_resume(options, tmp_path, capsys):
    folders = [tmp_path / name for name in ("first", "second")]
    where = ["--device", "cpu", "--loop", "eager", "--run-folder", folders[0]]
    status, out, _ = main(capsys, "train", *TINY, *options, *where)
    assert (status, out) == (0, f"{folders[0]}\n")
    status, out, err = main(capsys, "sample", folders[0], "--count", 2)
    assert (status, err) == (0, "")
    status, out, err = main(capsys, "resume", folders[0], "--steps", 3, "--run-folder", folders[1])
    assert (status, out) == (0, f"{folders[1]}\n"), err
    status, _, err = main(capsys, "train", *TINY, *options, "--conditional")
    assert status == 2
    assert f"{options[0][2:]}: does not go with conditional" in err


def test_train_with_every_option_of_the_penalty_then_resume(tmp_path, capsys):
    folders = [tmp_path / name for name in ("first", "second")]
    options = ["--lipschitz", "adaptive", "--penalty-every", "2", "--drift", "0.001"]
    where = ["--device", "cpu", "--log-every", "1", "--run-folder", folders[0]]
    status, out, _ = main(
        capsys, "train", *TINY, *options, *where, "--data", "swiss-roll", "--loop", "eager"
    )
    assert (status, out) == (0, f"{folders[0]}\n")
    more = ["--steps", 4, "--run-folder", folders[1]]
    status, out, err = main(capsys, "resume", folders[0], *more)
    assert (status, out) == (0, f"{folders[1]}\n"), err
    rows = [
        json.loads(line)
        for folder in folders
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    # λ moves in the steps that have a penalty, which are every other one.
    assert ["penalty" in row for row in rows] == [True, False, True, False]
    weights = [row["weight"] for row in rows]
    assert weights[0] == 10.0
    assert weights[1] == weights[2] != weights[0]
    assert weights[3] != weights[2]


def test_importing_the_package_imports_none_of_the_extra():
    code = f"import sys, wgan_fast, wgan_fast.cli; print([m for m in {EXTRA} if m in sys.modules])"
    result = run(python=("-c", code))
    assert result.stdout == "[]\n", result.stderr


def test_without_the_extra_the_way_out_is_named():
    # One process for all three: a None in sys.modules is a package that is not there.
    code = """
import sys
sys.modules.update(dict.fromkeys(["rich", "tyro"]))
from wgan_fast.cli import main
print(main(["train"]), main(["doctor"]))
import wgan_fast.training
"""
    result = run(python=("-c", code))
    said, *traceback = result.stderr.splitlines()
    assert said == 'wgan-fast: rich, tyro not installed; run: pip install "wgan-fast[train]"'
    assert "trainer: not usable, rich, tyro not installed" in result.stdout
    assert result.stdout.endswith("\n1 0\n")
    assert 'the trainer needs tyro: pip install "wgan-fast[train]"' in traceback[-1]


def test_a_taken_run_folder(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    status, out, err = main(capsys, "train", *TINY, "--run-folder", tmp_path)
    assert (status, out) == (1, "")
    assert "run_folder: expected a folder that is new or empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def main(capsys, *arguments):
    """(exit status, standard output, standard error) of a command in this process."""
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("train", "resume", "sample", "study"))],
)
def test_help(arguments, capsys):
    status, out, _ = main(capsys, *arguments)
    assert status == 0
    assert "usage: wgan-fast" in out


def test_help_of_train_names_every_setting_and_the_papers_defaults(capsys):
    from dataclasses import fields

    from wgan_fast.training import TrainConfig

    _, out, _ = main(capsys, "train", "--help")
    for field in fields(TrainConfig):
        assert f"--{field.name.replace('_', '-')} " in out
    assert "None" not in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "train, resume, sample, study, doctor"),
        (["fly"], 2, "fly"),
        (["train", "--objective", "gan"], 2, "--objective"),
        (["train", "--steps", "many"], 2, "--steps"),
        (["train", "--wings", "2"], 2, "--wings"),
        (["train", "--steps", "0"], 2, "steps: expected an integer of at least 1, got 0"),
        (["train", "--clip-value", "-1"], 2, "clip_value: expected a number above 0, got -1.0"),
        (["train", "--device", "tpu9"], 2, "device: expected auto, cpu, cuda"),
        (["train", "--drift", "-1"], 2, "drift: expected a number of at least 0, got -1.0"),
        (["train", "--loop", "graph"], 2, "--loop"),
        *(
            (["train", "--backend", "first_order", "--loop", loop], 2, FIRST_ORDER + loop)
            for loop in ("captured", "compiled")
        ),
        (["sample"], 2, "PATH"),
        (["resume"], 2, "PATH"),
        (["resume", "no-such-run"], 1, "run: expected a run folder with a checkpoint.pt"),
        (["study", "gradients"], 2, "name: expected one of gradient-norms, weights, "),
        (["study", "memory", "--steps", "0"], 2, "steps: expected an integer of at least 1, got 0"),
        (["study", "memory", "--threads", "0"], 2, "threads: expected an integer of at least 1"),
        (["study", "memory", "--seed", "-1"], 2, "seed: expected a number from 0 to 4294967295"),
        (["study", "memory", "--device", "tpu9"], 2, "device: expected auto, cpu, cuda"),
        (["sample", "no-such-run"], 1, "run: expected a run folder with a checkpoint.pt"),
        (["sample", "no-such-run", "--count", "0"], 2, "count: expected at least 1, got 0"),
    ],
)
def test_errors_of_the_user(arguments, status, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    got, out, err = main(capsys, *arguments)
    assert got == status
    assert words in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["study"], ["study", "--list"], ["study", "memory", "--list"]]
)
def test_studies_are_listed(arguments, capsys, tmp_path, monkeypatch):
    from wgan_fast.studies import STUDIES

    monkeypatch.chdir(tmp_path)
    status, out, err = main(capsys, *arguments)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(STUDIES)
    assert list(tmp_path.iterdir()) == []


def test_a_study(capsys, tmp_path, monkeypatch):
    from wgan_fast.studies import memory

    monkeypatch.setattr(memory, "_BATCHES", (4,))
    monkeypatch.setattr(memory, "_CHANNELS", 2)
    folder = tmp_path / "here"
    arguments = ["study", "memory", "--steps", "1", "--device", "cpu", "--folder", folder]
    status, out, _ = main(capsys, *arguments)
    assert status == 0
    assert out.startswith("memory: ")
    assert out.endswith(f"\n{folder}\n")
    assert sorted(path.name for path in folder.iterdir()) == ["memory.json", "memory.png"]

    status, out, err = main(capsys, *arguments)
    assert (status, out) == (1, "")
    assert "folder: expected a folder that is new or empty" in err


def test_a_corrupt_checkpoint(capsys, tmp_path):
    (tmp_path / "checkpoint.pt").write_text("not a checkpoint")
    status, _, err = main(capsys, "sample", tmp_path)
    assert status == 1
    assert "is damaged or not a checkpoint" in err


def test_a_loss_that_is_not_finite(capsys, tmp_path):
    # Steps this large overflow float32 within a few iterations.
    status, out, err = main(
        capsys,
        "train",
        *TINY,
        "--steps",
        20,
        "--critic-learning-rate",
        1e30,
        "--log-every",
        1,
        "--run-folder",
        tmp_path / "run",
        "--device",
        "cpu",
    )
    assert status == 1
    assert out == ""
    assert "wgan-fast: training broke down at or just before step" in err
    assert (tmp_path / "run" / "config.json").exists()


def test_stopped_by_hand(capsys, monkeypatch):
    from wgan_fast import training

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stop)
    status, out, err = main(capsys, "train")
    assert (status, out) == (130, "")
    assert err == "wgan-fast: stopped; what was written so far is kept\n"


def test_a_defect_of_ours_is_not_hidden(monkeypatch, capsys):
    from wgan_fast import training

    def defect(_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(training, "train", defect)
    with pytest.raises(RuntimeError, match="a defect"):
        main(capsys, "train")


def table(**pieces):
    on = {"cpu": "C++", "cuda": "Triton"}
    usable = {"usable": "yes", "why": ""}
    return {
        "interpolate": on,
        "clip_weights_": {"cpu": "C++", "cuda": "CUDA C++"},
        "extension": usable,
        "triton": usable,
        **pieces,
    }


@pytest.mark.parametrize(
    ("pieces", "expected", "unexpected"),
    [
        ({}, ["extension: usable\n", "triton: usable\n", "trainer: usable\n"], "not usable"),
        (
            {"extension": {"usable": "no", "why": "no compiler"}},
            ["extension: not usable, no compiler; plain PyTorch stands in on CPUs"],
            "extension: usable",
        ),
        (
            {"triton": {"usable": "no", "why": "triton is not installed"}},
            ["triton: not usable, triton is not installed; plain PyTorch stands in on GPUs"],
            "triton: usable",
        ),
        (
            {"clip_weights_": {"cpu": "C++", "cuda": "plain PyTorch"}},
            ["extension: usable, built without CUDA", "plain PyTorch\n"],
            "not usable",
        ),
    ],
)
def test_doctor_says_what_is_missing_and_what_it_costs(
    pieces, expected, unexpected, monkeypatch, capsys
):
    monkeypatch.setattr(cli.ops, "status", lambda: table(**pieces))
    status, out, err = main(capsys, "doctor")
    assert (status, err) == (0, "")
    for words in expected:
        assert words in out
    assert unexpected not in out


def test_doctor_tells_the_truth_about_this_machine(capsys):
    _, out, _ = main(capsys, "doctor")
    assert out.startswith(f"wgan_fast {wgan_fast.__version__}\n")
    assert f"torch {torch.__version__}" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    on_cpu, on_gpu = (lines["operator"].index(column) for column in ("on CPU", "on GPU"))
    names = ("interpolate", "gradient_norm_penalty", "clip_weights_", "normalisation_parameters")
    for operator in names:
        has_cpu = torch._C._dispatch_has_kernel_for_dispatch_key(f"wgan_fast::{operator}", "CPU")
        assert ("C++" in lines[operator][on_cpu:on_gpu]) == has_cpu
        assert lines[operator][on_cpu - 1] == lines[operator][on_gpu - 1] == " "
