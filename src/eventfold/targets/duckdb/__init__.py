"""Rows in a DuckDB file, and snapshots of them as Parquet.

Knows: duckdb. Does not know: projections, where the log is.
"""
