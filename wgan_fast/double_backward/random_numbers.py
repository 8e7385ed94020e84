"""Where PyTorch's default random number generators stand."""

import torch


class RandomNumbers:
    """The states of the CPU's default generator and of a GPU's, as they are now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_cpu = torch.random.get_rng_state()
        self._on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def put_back(self) -> None:
        """Let the generators go on from where they stood."""
        torch.random.set_rng_state(self._on_cpu)
        if self._on_gpu is not None:
            torch.cuda.set_rng_state(self._on_gpu, self._device)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomNumbers):
            return NotImplemented
        same = torch.equal(self._on_cpu, other._on_cpu)
        if self._on_gpu is None or other._on_gpu is None:
            return same and self._on_gpu is other._on_gpu
        return same and torch.equal(self._on_gpu, other._on_gpu)

    __hash__ = None  # type: ignore[assignment]
