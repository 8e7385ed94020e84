"""Threads as in ``python -m bench``, skipping without a device, and peak memory in the summary."""

import pytest
import torch

THREADS = 2
PEAKS = pytest.StashKey[dict[str, int]]()


def pytest_configure(config):
    """Make room for what :func:`record_peak` is told."""
    config.stash[PEAKS] = {}


def pytest_collection_modifyitems(items):
    """Skip, with a reason, what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session", autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def record_peak(request):
    """Called with bytes: adds a line to the section on peak memory at the end."""
    return lambda peak: request.config.stash[PEAKS].update({request.node.callspec.id: peak})


def pytest_terminal_summary(terminalreporter, config):
    """Time has pytest-benchmark's table, memory this section."""
    peaks = config.stash[PEAKS]
    if not peaks:
        return
    terminalreporter.section("peak memory")
    for name, peak in peaks.items():
        terminalreporter.line(f"{name}: {peak:,} B")
