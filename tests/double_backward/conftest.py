"""What tests of replayed calls share."""

import pytest

from wgan_fast.double_backward import replays


class Counted:
    """How many calls came from a graph, and how many took another way."""

    def __init__(self):
        self.replayed = self.missed = 0


@pytest.fixture
def counted(monkeypatch):
    """From the second call on, those that can be come from a graph."""
    seen = Counted()
    call = replays._Replayed.__call__

    def counting(self, critic, arguments):
        done = call(self, critic, arguments)
        seen.replayed += done is not None
        seen.missed += done is None
        return done

    monkeypatch.setattr(replays, "CALLS_BEFORE", 1)
    monkeypatch.setattr(replays._Replayed, "__call__", counting)
    return seen
