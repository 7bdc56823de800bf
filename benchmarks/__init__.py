"""Benchmarks: each figure beside the limit measured in the same run. `make bench`, or `python -m benchmarks C1`."""
