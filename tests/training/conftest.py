"""A run small enough for a test, and a console that nobody sees."""

import io

import pytest
from PIL import Image
from rich.console import Console

from wgan_fast.training import TrainConfig, run_folder, train, watching

TINY = {
    "steps": 3,
    "batch_size": 4,
    "n_critic": 2,
    "latent_dim": 3,
    "channels": 2,
    "hidden_dim": 8,
    "log_every": 1,
    "picture_every": 2,
    "device": "cpu",
}


@pytest.fixture
def tiny_config(tmp_path):
    """Makes tiny configs, each with a run folder of its own."""
    made = []

    def make(**settings):
        folder = tmp_path / f"run-{len(made)}"
        made.append(folder)
        return TrainConfig(**{**TINY, "run_folder": folder, **settings})

    return make


@pytest.fixture
def train_quietly():
    """The trainer, writing its progress nowhere."""

    def run(config):
        return train(config, Console(file=io.StringIO()))

    return run


@pytest.fixture
def without_pictures(monkeypatch):
    """One grey pixel for every picture: drawing is most of a tiny run's time."""

    def one_pixel(*arguments):
        Image.new("L", (1, 1)).save(arguments[-1])

    monkeypatch.setattr(watching, "save_grid", one_pixel)
    monkeypatch.setattr(watching, "save_level_sets", one_pixel)
    monkeypatch.setattr(run_folder, "save_curves", one_pixel)
