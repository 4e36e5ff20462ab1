"""Rows in any other SQL database, through SQLAlchemy Core: MariaDB, MySQL and whatever else has a dialect.

Knows: SQLAlchemy. Does not know: projections, the log, the targets that have a driver of their own.
"""
