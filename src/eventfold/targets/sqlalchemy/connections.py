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

from eventfold.targets.sqlalchemy.dialects import SERVERS, configure_connections, engine_options

POOL_SIZE = 4  # connections for single statements and short transactions, and as many for handlers
POOL_TIMEOUT_S = 30.0  # for one of them


class ConnectionPools:
    """Of one target. What is no server has one pool, SQLAlchemy's usual."""

    def __init__(self, url: sa.URL) -> None:
        given = engine_options(url)
        if url.get_backend_name() in SERVERS:
            given |= {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT_S}
        self.default_pool = self._handler_pool = self._unpooled = sa.create_engine(url, **given)
        configure_connections(self.default_pool)
        if url.get_backend_name() in SERVERS:
            self._handler_pool = sa.create_engine(url, **given)
            kept = ("pool_size", "max_overflow", "pool_timeout", "pool_pre_ping", "pool_recycle")
            rest: dict[str, Any] = {name: value for name, value in given.items() if name not in kept}
            self._unpooled = sa.create_engine(url, **rest, poolclass=NullPool)
            configure_connections(self._handler_pool)
            configure_connections(self._unpooled)
        self._local = threading.local()

    @contextmanager
    def connect(self, runs_user_code: bool) -> Generator[sa.Connection]:
        """A connection; `runs_user_code`: a user's code runs meanwhile, perhaps for long."""
        depth: int = getattr(self._local, "depth", 0)
        engine = self._unpooled if depth else self._handler_pool if runs_user_code else self.default_pool
        try:
            self._local.depth = depth + runs_user_code
            with engine.connect() as connection:
                yield connection
        finally:
            self._local.depth = depth

    def close(self) -> None:
        """Hang up."""
        for engine in (self.default_pool, self._handler_pool, self._unpooled):
            engine.dispose()
