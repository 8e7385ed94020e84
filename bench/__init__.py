"""The benchmarks: one file per claim, one shared harness.

``make bench`` (``python -m bench``) measures every case and prints one table; ``python -m bench
--device cuda`` does so on a GPU. ``python -m pytest bench --benchmark-only`` runs the same cases
under pytest-benchmark.

A new claim is a new file here with a tuple ``CASES`` of :class:`bench.harness.case.Case`; nothing
else needs to know of it.
"""
