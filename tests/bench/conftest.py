import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other on a busy machine would make these tests slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
