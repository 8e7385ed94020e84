import io
import json

import pytest
import torch
from PIL import Image
from rich.console import Console

from wgan_fast import studies
from wgan_fast.studies import (
    STUDIES,
    StudySettings,
    clip_value,
    gradient_norms,
    memory,
    penalty_weight,
)
from wgan_fast.studies import normalisation as normalisation_study
from wgan_fast.training import NonFiniteLossError


@pytest.fixture
def small(monkeypatch, without_graphs):
    monkeypatch.setattr(memory, "_BATCHES", (4, 8))
    monkeypatch.setattr(memory, "_CHANNELS", 4)
    monkeypatch.setattr(clip_value, "_WIDTH", 16)
    monkeypatch.setattr(clip_value, "_POINTS", 16)
    monkeypatch.setattr(penalty_weight, "_POINTS", 64)
    monkeypatch.setattr(normalisation_study, "_CHANNELS", 4)
    monkeypatch.setattr(normalisation_study, "_IMAGES", 64)


def run(name, folder, **settings):
    settings = StudySettings(**{"steps": 2, "device": "cpu", **settings}, folder=folder)
    return studies.run(STUDIES[name], settings, Console(file=io.StringIO()))


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_leaves_picture_numbers_and_verdict(name, small, tmp_path):
    folder = tmp_path / "study"
    threads = torch.get_num_threads()
    outcome = run(name, folder, seed=3, threads=1)
    assert torch.get_num_threads() == threads
    assert outcome.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.json", f"{name}.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["study"]

    contents = json.loads((folder / f"{name}.json").read_text(), parse_constant=pytest.fail)
    assert contents["study"] == name
    assert contents["settings"] == {"steps": 2, "seed": 3, "device": "cpu"}
    assert contents["measured"]
    first, *lines, last = outcome.verdict.splitlines()
    assert first.startswith(f"{name}: ")
    assert last.startswith("verdict: ")
    for line, finding in zip(lines, contents["findings"], strict=True):
        assert line.split()[0] == ("seen" if finding["seen"] else "NOT")
        assert finding["claim"] in line
        assert finding["measured"] in line

    with Image.open(folder / f"{name}.png") as picture:
        picture.load()
        assert picture.width == 900
    assert (folder / f"{name}.png").stat().st_size <= 100_000


def test_one_seed_one_result(conditions, without_graphs):
    first, again, other = (gradient_norms.measure(conditions(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_study_that_breaks_down_leaves_nothing(small, tmp_path, monkeypatch):
    def explode(critic, *_):
        raise NonFiniteLossError("training broke down")

    monkeypatch.setattr(clip_value, "gradients_by_layer", explode)
    with pytest.raises(NonFiniteLossError):
        run("clip-value", tmp_path / "study", steps=1)
    assert list(tmp_path.iterdir()) == []
