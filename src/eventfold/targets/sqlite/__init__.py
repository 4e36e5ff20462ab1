"""Rows and checkpoints in a SQLite file.

Knows: apsw, files. Does not know: projections.
"""
