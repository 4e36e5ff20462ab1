"""Demonstrations on real data, from an empty file to a report. Each is a program that uses the public library.

Knows: the public names of eventfold, its extra (`demo`). Does not know: engines, how it was started.
"""
