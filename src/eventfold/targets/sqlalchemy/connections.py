"""Connections over SQLAlchemy: a bounded number to a server, in two pools, so that handlers leave some to the others.

A thread that holds a connection while a user's code runs never waits for its next one: whoever has that one might wait
for this thread. Knows: SQLAlchemy's engines and pools, threads. Does not know: statements, transactions.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from eventfold.targets.sqlalchemy.dialects import SERVERS, options, set_up

MOST = 4  # connections for single statements and short transactions, and as many for handlers
WAIT_S = 30.0  # for one of them


class Connections:
    """Of one target. What is no server has one pool, SQLAlchemy's usual."""

    def __init__(self, url: sa.URL) -> None:
        given = options(url)
        if url.get_backend_name() in SERVERS:
            given |= {"pool_size": MOST, "max_overflow": 0, "pool_timeout": WAIT_S}
        self.short = self._long = self._beyond = sa.create_engine(url, **given)
        set_up(self.short)
        if url.get_backend_name() in SERVERS:
            self._long = sa.create_engine(url, **given)
            kept = ("pool_size", "max_overflow", "pool_timeout", "pool_pre_ping", "pool_recycle")
            rest: dict[str, Any] = {name: value for name, value in given.items() if name not in kept}
            self._beyond = sa.create_engine(url, **rest, poolclass=NullPool)
            set_up(self._long)
            set_up(self._beyond)
        self._own = threading.local()

    @contextmanager
    def connected(self, handling: bool) -> Generator[sa.Connection]:
        """A connection; `handling`: a user's code runs meanwhile, perhaps for long."""
        held: int = getattr(self._own, "held", 0)
        engine = self._beyond if held else self._long if handling else self.short
        try:
            self._own.held = held + handling
            with engine.connect() as connection:
                yield connection
        finally:
            self._own.held = held

    def close(self) -> None:
        """Hang up."""
        for engine in (self.short, self._long, self._beyond):
            engine.dispose()
