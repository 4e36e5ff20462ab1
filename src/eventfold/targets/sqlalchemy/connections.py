"""Connections over SQLAlchemy: a bounded number to a server, in two pools, so that handlers cannot use all of them.

A thread that has a connection while a user's code runs never waits for a further one, which would risk a deadlock: the
thread that has that one might wait for this thread. Knows: SQLAlchemy's engines and pools, threads. Does not know:
statements, transactions.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from eventfold.targets.sqlalchemy.dialects import SERVERS, configure_connections, engine_options

POOL_SIZE = 4  # connections of each pool: one for single statements and short transactions, one for handlers
POOL_TIMEOUT_S = 30.0  # to wait for a connection


class ConnectionPools:
    """The connection pools of one target. A database that is not a server has one pool, SQLAlchemy's default."""

    def __init__(self, url: sa.URL) -> None:
        options = engine_options(url)
        if url.get_backend_name() in SERVERS:
            options |= {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT_S}
        self.default_pool = self._handler_pool = self._unpooled = sa.create_engine(url, **options)
        configure_connections(self.default_pool)
        if url.get_backend_name() in SERVERS:
            self._handler_pool = sa.create_engine(url, **options)
            of_pool = ("pool_size", "max_overflow", "pool_timeout", "pool_pre_ping", "pool_recycle")
            rest: dict[str, Any] = {name: value for name, value in options.items() if name not in of_pool}
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
        """Close all connections."""
        for engine in (self.default_pool, self._handler_pool, self._unpooled):
            engine.dispose()
