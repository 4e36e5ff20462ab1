"""The figures of eventfold, as ratios taken in one run on one machine: `python -m benchmarks`.

Knows: the public API, the raw floor, the peers. Does not know: the library's internals.
docs/explanation/speed.md explains the figures.
"""
