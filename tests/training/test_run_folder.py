import os

import pytest

from wgan_fast.training import RunFolderError, TrainConfig
from wgan_fast.training.run_folder import RunFolder


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(RunFolderError, match=r"run_folder: expected a folder that is new or empty"):
        RunFolder(TrainConfig(run_folder=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    with RunFolder(TrainConfig(run_folder=tmp_path / "a" / "b")) as run:
        assert run.path == tmp_path / "a" / "b"
    (tmp_path / "empty").mkdir()
    with RunFolder(TrainConfig(run_folder=tmp_path / "empty")) as run:
        assert (run.path / "config.json").exists()


def test_unnamed_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        with RunFolder(TrainConfig(objective="wgan", data="gaussians-8")) as run:
            names.append(run.path.as_posix())
    assert names == ["runs/wgan-gaussians-8", "runs/wgan-gaussians-8-2", "runs/wgan-gaussians-8-3"]


def test_a_file_in_the_way_is_named(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunFolderError, match=r"run_folder: cannot make .*runs"):
        RunFolder(TrainConfig(run_folder=tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFolderError, match=r"run_folder: cannot make runs"):
        RunFolder(TrainConfig())


def test_metrics_are_on_disk_at_once(tmp_path):
    with RunFolder(TrainConfig(run_folder=tmp_path / "run")) as run:
        run.log(1, {"critic_loss": 0.5})
        assert (run.path / "metrics.jsonl").read_text() == '{"step": 1, "critic_loss": 0.5}\n'
        assert not os.path.exists(run.path / "curves.png")
    assert (run.path / "curves.png").exists()


def test_a_run_without_metrics_has_no_curves(tmp_path):
    with RunFolder(TrainConfig(run_folder=tmp_path / "run")) as run:
        pass
    assert not (run.path / "curves.png").exists()
