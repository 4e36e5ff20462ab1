"""Appends and decisions in a transaction of the user: the classes that `store.in_transaction(connection)` returns.

Knows: their public methods. Does not know: how an engine writes into a transaction that it did not begin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from eventfold.concurrency import run
from eventfold.core.aggregate import Aggregate
from eventfold.core.envelope import NewEvent, Receipt, Staged
from eventfold.core.query import Cursor
from eventfold.log.append import Unless, append, append_encoded
from eventfold.log.context import Log, Options
from eventfold.log.decide import decide
from eventfold.log.decided import Decided
from eventfold.ports.services import require

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=Aggregate)


class Joining:
    """A store whose appends are part of the transaction of one connection: they commit, or roll back, with it.

    Positions are assigned and conditions are checked at that transaction's COMMIT, which fails if a condition is not
    met. The outcome is unknown until then, so nothing is retried and no state is cached.
    """

    def __init__(self, log: Log, options: Options) -> None:
        self._log, self._options = log, options

    def append(self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None) -> Staged:
        """See Store.append. The result has no positions yet: after the COMMIT, `store.confirm` returns the receipt."""
        return cast(Staged, run(append(self._log, self._options, events, unless, after, key)))

    def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Staged:
        """See Store.append_encoded, and `append` of this class."""
        return cast(Staged, run(append_encoded(self._log, self._options, events, unless, after, key)))

    def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Store.decide. States are folded from the committed events, then from those that this transaction staged.

        So the second decision of a transaction sees the first one's events. A conflict with another writer fails the
        COMMIT.
        """
        return run(decide(self._log, self._options, function, args, kwargs))

    def change(
        self, method: Callable[Concatenate[A, P], R], aggregate: A, /, *args: P.args, **kwargs: P.kwargs
    ) -> Decided[R]:
        """See Store.change."""
        return self.decide(method, aggregate, *args, **kwargs)


class AsyncJoining:
    """The same as `Joining`, for async connections."""

    def __init__(self, log: Callable[[], Awaitable[Log]], options: Options) -> None:
        self._log, self._options = log, options

    async def append(
        self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Staged:
        """See Joining.append."""
        return cast(Staged, await append(await self._log(), self._options, events, unless, after, key))

    async def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Staged:
        """See Joining.append_encoded."""
        return cast(Staged, await append_encoded(await self._log(), self._options, events, unless, after, key))

    async def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Joining.decide."""
        return await decide(await self._log(), self._options, function, args, kwargs)

    async def change(
        self, method: Callable[Concatenate[A, P], R], aggregate: A, /, *args: P.args, **kwargs: P.kwargs
    ) -> Decided[R]:
        """See Joining.change."""
        return await self.decide(method, aggregate, *args, **kwargs)


async def confirm(log: Log, staged: Staged) -> Receipt | None:
    """Return the receipt of a staged append after its COMMIT; None if it was not committed. Raises NotSupported."""
    return await require(log.engine, "transactions").confirm(staged)
