"""SQLite: the log in one file, without a server. `engine.py` answers the calls of the port.

Knows: the public name of this package. Does not know: how anything is stored.
"""

from eventfold.engines.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]
