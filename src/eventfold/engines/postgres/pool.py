"""Connections as read models borrow them, and threads that hold one while a user's code runs.

Knows: pools, threads. Does not know: rows, the log. A thread that holds a connection over a user's code is never made
to wait for its next one: whoever has that one might wait for this thread.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import psycopg

from eventfold.engines.postgres.errors import translate_error

if TYPE_CHECKING:
    from eventfold.engines.postgres.connection import AsyncConnection, Checkout, Pool, SyncConnection

HANDLER_ACQUIRE_TIMEOUT_S = 30.0  # for one of the connections in which handlers write


class ThreadCheckouts:
    """The loans of each thread over which a user's code runs."""

    def __init__(self) -> None:
        self._own = threading.local()

    def add(self, loan: Checkout | None) -> None:
        """The calling thread holds this until it is over."""
        kept: list[Checkout] = getattr(self._own, "loans", [])
        self._own.loans = [each for each in kept if not each.is_over()]
        if loan is not None:
            self._own.loans.append(loan)

    def is_holding(self) -> bool:
        """Whether the calling thread holds one."""
        kept: list[Checkout] = getattr(self._own, "loans", [])
        return any(not each.is_over() for each in kept)


class TargetPools(msgspec.Struct, frozen=True):
    """What is lent for read models: `short` for single statements and short transactions, `long` for handlers' rows.

    Two pools, so that slow handlers leave connections to those who read rows and keep leases.
    """

    short: Pool
    long: Pool
    thread_checkouts: ThreadCheckouts


def split_pool_size(pool: int) -> tuple[int, int]:
    """How many of `pool` connections are for short use, and how many for handlers' transactions; at least one each."""
    long = max(1, pool // 2)
    return max(1, pool - long), long


async def detect_pooler(connection: SyncConnection | AsyncConnection, where: str) -> None:
    """Keep nothing in the session if a transaction pooler stands in between. Raises StoreUnavailable and kin.

    A pooler introduces itself by a number of its own instead of the server process's.
    """
    try:
        if (await connection.fetch("SELECT pg_backend_pid()"))[0][0] != connection.backend_pid:
            connection.mark_pooled()
    except psycopg.Error as error:
        raise translate_error(error, where) from None
