"""Studies small enough for a test."""

import functools
import io

import pytest
import torch
from rich.console import Console

import wgan_fast
from wgan_fast.studies.study import Conditions


@pytest.fixture
def conditions():
    """Makes conditions on the CPU that nobody watches."""

    def make(steps=2, seed=0):
        return Conditions(steps, seed, torch.device("cpu"), Console(file=io.StringIO()))

    return make


@pytest.fixture
def without_graphs(monkeypatch):
    """For two steps a graph does not pay."""
    eager = functools.partial(wgan_fast.CriticLoop, mode="eager")
    monkeypatch.setattr(wgan_fast, "CriticLoop", eager)
