"""Stores of one stream as of several processes and hosts, and which of them holds the writers' lease.

Knows: the parts of the engine. Does not know: pytest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import eventfold as ef
from eventfold.engines.jetstream.engine import JetStreamEngine
from eventfold.engines.jetstream.forwarding import Forwarding
from eventfold.engines.jetstream.leases import Lease
from eventfold.engines.jetstream.session import Session

LIMIT_S = 80.0


class Booked(ef.Event, type="forwarding.booked"):
    """A seat of a course was booked."""

    course: ef.Tag
    by: str


def opened(url: str, folder: Path, name: str, **options: Any) -> ef.Store:
    """Open a store with an index of its own, as another host does."""
    return ef.Store(url, index=str(folder / f"{name}.db"), **options)


def session_of(store: ef.Store | ef.AsyncStore) -> Session:
    """Return what a process has of a store."""
    engine = store.engine
    assert isinstance(engine, JetStreamEngine)
    return engine._session


def forwarding_of(store: ef.Store | ef.AsyncStore) -> Forwarding:
    """Return whether, and to whom, a store forwards."""
    return session_of(store).forwarding


def on_loop(store: ef.Store | ef.AsyncStore, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on the loop of a store's connection."""
    return session_of(store).loop.run(work)


def let_hold(holder: ef.Store | ef.AsyncStore, *others: ef.Store | ef.AsyncStore) -> None:
    """Let one store hold the writers' lease, and the others forward to it."""
    on_loop(holder, lambda: forwarding_of(holder)._seek(None))
    assert forwarding_of(holder).is_holder()
    let_forward(*others)


def let_forward(*others: ef.Store | ef.AsyncStore) -> None:
    """Let stores look up the holder of the lease."""
    for each in others:
        on_loop(each, lambda each=each: forwarding_of(each)._seek(None))
        assert forwarding_of(each)._holder is not None


def pretend_to_hold(store: ef.Store) -> str:
    """Let a store believe that it holds the lease, beside the one that does. Returns its name as a holder."""

    async def pretend() -> None:
        forwarding = forwarding_of(store)
        await forwarding.acceptor.start()
        lease = Lease("writer", forwarding.acceptor.holder, 1_000)
        lease.confirm(1, time.monotonic())
        forwarding._lease, forwarding._holder = lease, None

    on_loop(store, pretend)
    return forwarding_of(store).acceptor.holder


def in_threads(*works: Callable[[], object]) -> None:
    """Run functions in threads of their own. Raises the first error of one."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (raised in the caller)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def ids_in(store: ef.Store) -> list[UUID]:
    """Return the ids of all events of a store, in order."""
    return [event.id for event in store.read()]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)
