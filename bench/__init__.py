"""The benchmarks: one file per claim, one shared harness.

``make bench`` (``python -m bench``) measures every case and prints a table for each claim;
``python -m bench --device cuda`` does so on a GPU. ``python -m pytest bench --benchmark-only`` runs
the same cases under pytest-benchmark. :mod:`bench.peers` has what others do about the same cost.

A new claim is a new file here with a tuple ``CASES`` of :class:`bench.harness.case.Case`; nothing
else needs to know of it.
"""
