"""What :mod:`wgan_fast.ops.registration` puts around the operators' implementations."""

import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from wgan_fast.ops.registration import on_its_device


def test_triton_launches_on_its_tensors_gpu(monkeypatch):
    """A model on the second GPU, in a process whose current GPU is the first."""
    current = [torch.device("cuda:0")]

    @contextlib.contextmanager
    def device(new):
        current.append(new)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    with FakeTensorMode():
        samples = torch.empty(3, device="cuda:1")
    launch = on_its_device(lambda *arguments: (current[-1], arguments))
    assert launch(None, samples, 2.0) == (torch.device("cuda:1"), (None, samples, 2.0))
    assert current == [torch.device("cuda:0")]
