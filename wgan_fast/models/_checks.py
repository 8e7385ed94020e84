"""The argument checks that every model shares: each error names the argument and what came."""

from torch import Tensor


def require_positive(**sizes: int) -> None:
    """Raises unless every named size is a positive int (a bool is none)."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(
                f"{name}: expected an int, got {value!r} of type {type(value).__name__}"
            )
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")


def require_shape(name: str, tensor: Tensor, per_sample: tuple[int, ...]) -> None:
    """Raises unless ``tensor`` has shape (B, *per_sample)."""
    if tensor.ndim != 1 + len(per_sample) or tuple(tensor.shape[1:]) != per_sample:
        expected = ", ".join(["B", *map(str, per_sample)])
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(tensor.shape)}")
