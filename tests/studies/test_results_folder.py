import os
import stat

import pytest

from wgan_fast.studies.results_folder import results_folder
from wgan_fast.training import RunFolderError


def test_all_of_it_appears_at_once(tmp_path):
    folder = tmp_path / "parents" / "study"
    with results_folder(folder, "name") as (place, unfinished):
        assert place == folder
        (unfinished / "a").write_text("a")
        assert list(folder.iterdir()) == []
        mode = stat.S_IMODE(folder.stat().st_mode)
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert [path.name for path in folder.parent.iterdir()] == ["study"]
    assert stat.S_IMODE(folder.stat().st_mode) == mode


def test_unnamed_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = []
    for _ in range(2):
        with results_folder(None, "name") as (place, unfinished):
            (unfinished / "a").write_text("a")
        places.append(place.as_posix())
    assert places == ["runs/study-name", "runs/study-name-2"]
    assert sorted(os.listdir("runs")) == ["study-name", "study-name-2"]


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with (
        pytest.raises(RunFolderError, match="folder: expected a folder that is new or empty"),
        results_folder(tmp_path, "name"),
    ):
        pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def fill(folder, meanwhile):
    with results_folder(folder, "name") as (_, unfinished):
        (unfinished / "a").write_text("a")
        meanwhile()


def test_what_comes_meanwhile_is_not_overwritten(tmp_path):
    folder = tmp_path / "study"
    with pytest.raises(RunFolderError, match="folder: cannot fill"):
        fill(folder, lambda: (folder / "theirs").write_text("theirs"))
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("was_there", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_half_written_stays(was_there, error, tmp_path):
    folder = tmp_path / "study"
    if was_there:
        folder.mkdir()

    def fail():
        raise error

    with pytest.raises(error):
        fill(folder, fail)
    assert [path.name for path in tmp_path.iterdir()] == (["study"] if was_there else [])
    assert not was_there or list(folder.iterdir()) == []
