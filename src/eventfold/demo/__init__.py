"""Demonstrations on real data, from an empty file to a report. Each is a program that uses the public library.

Knows: the public names of eventfold, its own extra (`demo`). Does not know: engines, or how it was started.
"""
