"""Fresh random inputs in every run; a failing run is repeated with WGAN_FAST_TEST_SEED=<seed>."""

import os
import random

import pytest
import torch

# In the environment, where the processes that share the work find it.
SEED = int(
    os.environ.setdefault("WGAN_FAST_TEST_SEED", str(random.SystemRandom().randrange(2**31)))
)


def pytest_report_header():
    return f"wgan_fast: WGAN_FAST_TEST_SEED={SEED}, torch {torch.__version__}"


@pytest.fixture(autouse=True)
def seeded(request):
    """Each test draws its own numbers, the same ones for one seed whatever else is run."""
    torch.manual_seed(SEED + sum(map(ord, request.node.nodeid)))


@pytest.fixture
def two_threads():
    """As many of PyTorch's threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
