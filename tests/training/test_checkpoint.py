import numpy as np
import pytest
import torch
from PIL import Image

from wgan_fast.training import (
    CheckpointError,
    ConfigError,
    TrainConfig,
    load_checkpoint,
    sample,
    save_checkpoint,
)
from wgan_fast.training import checkpoint as checkpoint_module
from wgan_fast.training.networks import build_networks

CPU = torch.device("cpu")


def config_for(data="digits", **settings):
    return TrainConfig(data=data, channels=2, hidden_dim=8, latent_dim=3, **settings)


@pytest.fixture
def save(tmp_path):
    def write(config, step=7):
        networks = build_networks(config, CPU, getattr(torch, config.dtype))
        save_checkpoint(tmp_path / "checkpoint.pt", config, step, *networks)
        return networks

    return write


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("objective", "data"), [("dcgan", "digits"), ("wgan", "digits"), ("wgan-gp", "swiss-roll")]
)
def test_what_goes_in_comes_out(objective, data, dtype, save, tmp_path):
    config = config_for(data, objective=objective, dtype=dtype, run_folder=tmp_path)
    networks = save(config)
    for path in (tmp_path, tmp_path / "checkpoint.pt"):
        loaded = load_checkpoint(path)
        assert loaded.config == config
        assert loaded.step == 7
        for wrote, read in zip(networks, (loaded.generator, loaded.critic), strict=True):
            assert not read.training
            torch.testing.assert_close(read.state_dict(), wrote.state_dict(), rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_crash_while_writing_leaves_the_former_checkpoint(save, tmp_path, monkeypatch):
    save(config_for(), step=1)

    def half(contents, file):
        file.write(b"PK\x03\x04 half a checkpoint")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(checkpoint_module.torch, "save", half)
    with pytest.raises(RuntimeError, match="the disk is full"):
        save(config_for(), step=2)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path).step == 1


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def damage_empty(path):
    path.write_bytes(b"")


def damage_text(path):
    path.write_text("not a checkpoint")


def damage_folder(path):
    path.unlink()
    path.mkdir()


def damage_pickle(path):
    # A checkpoint of anything but tensors and plain values is refused unread.
    torch.save({"version": 1, "config": CheckpointError}, path)


def damage_version(path):
    torch.save({"version": 99}, path)


def damage_type(path):
    torch.save([1, 2], path)


def damage_missing(path):
    contents = torch.load(path)
    del contents["critic"]
    torch.save(contents, path)


def damage_settings(path):
    contents = torch.load(path)
    contents["config"]["unheard_of"] = 1
    torch.save(contents, path)


def damage_shapes(path):
    contents = torch.load(path)
    contents["config"]["channels"] = 3
    torch.save(contents, path)


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_empty,
        damage_text,
        damage_folder,
        damage_pickle,
        damage_version,
        damage_type,
        damage_missing,
        damage_settings,
        damage_shapes,
    ],
)
def test_a_damaged_checkpoint_is_said_to_be_one(damage, save, tmp_path):
    save(config_for())
    damage(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"run: .*checkpoint\.pt"):
        load_checkpoint(tmp_path)


def test_no_checkpoint_is_said_to_be_missing(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.pt"):
        with pytest.raises(CheckpointError, match=r"run: expected a run folder with a checkpoint"):
            load_checkpoint(path)


def test_sampling_draws_the_generators_images(save, tmp_path):
    config = config_for()
    generator, _ = save(config)
    path = sample(tmp_path, count=5, seed=11)
    assert path == tmp_path / "sample-seed-11.png"
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    # 16-pixel images are enlarged four times; five make a grid of three columns, 4 pixels apart.
    assert pixels.shape == (2 * 68 + 4, 3 * 68 + 4)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(11))
    expected = generator.eval()(z).detach()
    for number, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        top, left = 4 + 68 * row, 4 + 68 * column
        tile = pixels[top : top + 64, left : left + 64].astype(float)
        wanted = np.kron(expected[number, 0].numpy() * 127.5 + 127.5, np.ones((4, 4)))
        assert np.abs(tile - wanted).max() <= 1


def test_one_seed_one_picture(save, tmp_path):
    save(config_for("swiss-roll"))
    first = sample(tmp_path, seed=1, output=tmp_path / "a.png").read_bytes()
    assert sample(tmp_path / "checkpoint.pt", seed=1).read_bytes() == first
    assert sample(tmp_path, seed=2).read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected a number from 0 to 4294967295, got -1"),
        ({"output": "no/such/folder/a.png"}, "output: cannot write"),
        ({"output": "a.unknown"}, "output: cannot write"),
    ],
)
@pytest.mark.parametrize("data", ["digits", "swiss-roll"])
def test_bad_arguments_name_themselves(data, arguments, words, save, tmp_path):
    save(config_for(data))
    if "output" in arguments:
        arguments = {"output": tmp_path / arguments["output"]}
    with pytest.raises(ConfigError, match=words):
        sample(tmp_path, **arguments)
