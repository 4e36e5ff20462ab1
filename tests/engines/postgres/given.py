"""Builders for these tests: events and requests as the port takes them, an open engine, blocking or asyncio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.postgres import PostgresEngine
from eventfold.ports.messages import AppendRequest, Page, Span
from eventfold.ports.services import Services
from eventfold.testing.synchronous import DirectRunner, LoopRunner, Synchronous

EVERYTHING = Query()


def event(type: str = "Deposited", *tags: str, data: bytes = b'{"amount":"1"}', **more: Any) -> NewEvent:
    """Return a new event with these tags."""
    return NewEvent(new_id(), type, 1, data, tuple(sorted(tags)), **more)


def request(*events: NewEvent, unless: Query | None = None, after: int = 0, key: str | None = None) -> AppendRequest:
    """Return a request with at most one clause."""
    return AppendRequest(events, () if unless is None else (ConditionClause(unless, after),), key)


def tagged(*tags: str) -> Query:
    """Return the query for events with all of these tags."""
    return Query.of(tags=tags)


class Opened:
    """An engine whose coroutines are run: `opened.append_many(…)`, `opened.locks.release(…)`."""

    def __init__(self, url: str, mode: str = "sync", **options: Any) -> None:
        self.runner = LoopRunner() if mode == "async" else DirectRunner()
        self.inner = PostgresEngine(url, mode=mode, **options)  # pyright: ignore[reportArgumentType]
        self._port = Synchronous(self.inner, self.runner)

    def __getattr__(self, name: str) -> Any:
        if name in Services.__struct_fields__:
            return Synchronous(getattr(self.inner.services, name), self.runner)
        return getattr(self._port, name)

    def append(self, *events: NewEvent, **more: Any) -> Any:
        """Append one request. Raises the outcome if it is an error."""
        outcome = self.append_many([request(*events, **more)])[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def everything(self) -> list[Any]:
        """Return the whole log."""
        after, events = 0, list[Any]()
        while True:
            page: Page = self.read(EVERYTHING, Span(after=after))
            events += page.events
            after = page.scanned
            if not page.more:
                return events

    def end(self) -> None:
        """Close the engine, and its loop."""
        self.close()
        if isinstance(self.runner, LoopRunner):
            self.runner.close()


def sql(url: str, *statements: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run statements as the server's owner. Returns the rows of the last."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def soon(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Return whether something becomes true within a time, in seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def together(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run jobs on threads of their own and wait for all. Returns what they raised."""
    raised: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a job hangs"
    return raised
