"""Inductor without what it kept of earlier compilations, so that a compilation can be timed."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fresh_inductor() -> Iterator[None]:
    """In here, Inductor compiles anew and keeps nothing."""
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    with config.patch(force_disable_caches=True), fresh_cache():
        yield
