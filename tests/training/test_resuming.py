"""A run that is interrupted and resumed learns what an uninterrupted one does."""

import io
import json

import pytest
import torch
from rich.console import Console

from wgan_fast.training import (
    CheckpointError,
    ConfigError,
    RunFolderError,
    load_checkpoint,
    resume,
    save_checkpoint,
)

RUNS = {
    "adaptive": {"lipschitz": "adaptive", "data": "swiss-roll"},
    "lazy": {"penalty_every": 3, "data": "swiss-roll"},
    "drift": {"drift": 0.1, "data": "swiss-roll"},
    "all of it": {"lipschitz": "adaptive", "penalty_every": 3, "drift": 0.1},
    "batch norm": {"objective": "dcgan"},
    "rmsprop": {"objective": "wgan"},
    "spectral norm": {"lipschitz": "sn", "data": "gaussians-8"},
}


def quietly(run, **options):
    return resume(run, console=Console(file=io.StringIO()), **options)


def rows(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "steps_per_second")
    return [{name: row[name] for name in row if name not in times} for row in lines]


def assert_same(one, other):
    """Two states of anything, bit for bit."""
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert_same(one[name], value)
    elif isinstance(other, list | tuple):
        assert len(one) == len(other)
        for value, wanted in zip(one, other, strict=True):
            assert_same(value, wanted)
    elif isinstance(other, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    else:
        assert one == other


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("name", RUNS)
def test_equals_an_uninterrupted_run(name, tiny_config, train_quietly, tmp_path):
    settings = {"dtype": "float64", "loop": "eager", "steps": 7, "picture_every": 3, **RUNS[name]}
    whole = train_quietly(tiny_config(**settings))
    part = train_quietly(tiny_config(**{**settings, "steps": 4}))
    resumed = quietly(part, steps=7, run_folder=tmp_path / "resumed")
    assert rows(resumed) == rows(whole)[4:]
    ends = [load_checkpoint(run) for run in (resumed, whole)]
    assert ends[0].step == 7
    assert ends[0].config.steps == 7
    for part in ("generator", "critic"):
        assert_same(*(getattr(end, part).state_dict() for end in ends))
    assert_same(ends[0].training, ends[1].training)
    assert "critic_steps" in ends[0].training["loop"]


@pytest.mark.usefixtures("without_pictures")
def test_captured(tiny_config, train_quietly, tmp_path):
    """A graph is checked against the eager step when it is made, which must leave no trace."""
    settings = {"dtype": "float64", "loop": "captured", "data": "swiss-roll", **RUNS["all of it"]}
    whole = train_quietly(tiny_config(**{**settings, "steps": 7}))
    part = train_quietly(tiny_config(**{**settings, "steps": 4}))
    resumed = quietly(part, steps=7, run_folder=tmp_path / "resumed")
    ends = [load_checkpoint(run) for run in (resumed, whole)]
    assert_same(ends[0].critic.state_dict(), ends[1].critic.state_dict())
    assert_same(ends[0].training, ends[1].training)


@pytest.mark.usefixtures("without_pictures")
def test_a_run_that_was_stopped_goes_on_to_its_own_end(tiny_config, train_quietly, tmp_path):
    run = train_quietly(tiny_config(data="swiss-roll"))
    stopped = torch.load(run / "checkpoint.pt")
    stopped["step"], stopped["config"]["steps"] = 3, 5
    torch.save(stopped, run / "checkpoint.pt")
    assert [row["step"] for row in rows(quietly(run, run_folder=tmp_path / "more"))] == [4, 5]
    assert load_checkpoint(tmp_path / "more").step == 5


@pytest.mark.usefixtures("without_pictures")
def test_what_cannot_be_resumed(tiny_config, train_quietly, tmp_path):
    config = tiny_config(data="swiss-roll")
    run = train_quietly(config)
    with pytest.raises(ConfigError, match=r"steps: expected more than the 3 that .*got 3"):
        quietly(run)
    with pytest.raises(ConfigError, match=r"steps: expected an integer of at least 1, got 0"):
        quietly(run, steps=0)
    with pytest.raises(RunFolderError, match=r"run_folder: expected a folder that is new or empty"):
        quietly(run, steps=4, run_folder=run)
    ended = load_checkpoint(run)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, config, 3, ended.generator, ended.critic)
    with pytest.raises(CheckpointError, match=r"run: its checkpoint has the networks alone"):
        quietly(path, steps=4)
    training = {**ended.training, "device": "cuda"}
    save_checkpoint(path, config, 3, ended.generator, ended.critic, training)
    with pytest.raises(CheckpointError, match=r"device that it was trained on, cuda, .*got cpu"):
        quietly(path, steps=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "run-0"]
