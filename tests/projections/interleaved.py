"""A target that runs another command before its n-th call: at every point where one can come between.

Knows: calls of the port. Does not know: what happens in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import eventfold as ef
from eventfold.errors import EventfoldError, ProjectionStopped

Act = Callable[[ef.Store], object]
MOST_CALLS = 60  # of one command


class _Bad:
    """Numbers that handlers fail at. In the environment, since a global would be part of the fingerprint."""

    def add(self, number: int) -> None:
        os.environ["EVENTFOLD_TEST_BAD"] = f"{os.environ.get('EVENTFOLD_TEST_BAD', '')} {number}"

    def clear(self) -> None:
        os.environ.pop("EVENTFOLD_TEST_BAD", None)


BAD = _Bad()


class Taken(ef.Event):
    """A seat was taken."""

    seat: ef.Tag
    n: int


class Flaky(ef.Projection, name="flaky", on_error="park", attempts=1):
    """How often a seat was taken."""

    seat: str
    n: int = 0

    def evolve(self, event: Taken) -> None:
        """Count one, unless it is bad."""
        if str(event.n) in os.environ.get("EVENTFOLD_TEST_BAD", "").split():
            raise ValueError("not now")
        self.n += 1


class Interleaved:
    """See the port. `between` is called once, before call number `at`, counted from 1; a transaction is two calls."""

    def __init__(self, target: Any, at: int, between: Callable[[], object]) -> None:
        self.target, self.at, self.between, self.calls = target, at, between, 0
        self._inside = False  # a transaction: another would wait for its end

    @property
    def came(self) -> bool:
        """Return whether `between` was called."""
        return self.calls >= self.at

    def _count(self) -> None:
        if not self._inside:
            self.calls += 1
            if self.calls == self.at:
                self.between()

    @contextmanager
    def _transaction(self, name: str, *args: Any) -> Generator[Any]:
        self._count()
        with getattr(self.target, name)(*args) as tx:
            self._inside = True
            try:
                yield tx
            finally:
                self._inside = False
        self._count()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        if name in ("control", "writing"):
            return lambda *args: self._transaction(name, *args)
        if not callable(found) or name == "close":
            return found

        def call(*args: Any, **named: Any) -> Any:
            self._count()
            return found(*args, **named)

        return call


def between_calls(store: ef.Store, at: int, between: Callable[[], object], command: Act) -> bool:
    """Run a command with another in between; return whether the command made that many calls."""
    targets = store.projections.catalog._targets  # pyright: ignore[reportPrivateUsage]
    own = store.projections.target(Flaky)
    (address,) = [key for key, target in targets.items() if target is own]
    targets[address] = wrapped = Interleaved(own, at, between)  # type: ignore[assignment]
    try:
        command(store)
    except ef.EventfoldError:
        pass  # noqa: S110 the other was quicker, and the command says so
    finally:
        targets[address] = own
    return wrapped.came


def seats(store: ef.Store) -> int:
    """Return how often the seat was taken, by its rows."""
    return sum(row.n for row in store.rows(Flaky))


def right_in_the_end(store: ef.Store) -> None:
    """Return whether, once everything is retried, rows contain each event once, except the skipped ones."""
    with suppress(ProjectionStopped):  # it is paused
        store.project(Flaky)  # registers it, if it was removed
    known = store.projections.target(Flaky).record("flaky")
    assert known is not None
    if known.paused:
        store.projections.resume(Flaky)
    store.projections.retry(Flaky)
    store.project(Flaky)
    entries = store.projections.parked(Flaky)
    assert [entry.state for entry in entries] == ["skipped"] * len(entries)
    assert seats(store) == store.count(ef.Query.of(types="Taken")) - len(entries)
    for proof in store.projections.verify(Flaky):
        assert proof.proved or proof.generation != known.live, proof
    assert store.projections.target(Flaky).pending_commands(store.engine.store_id) == []


def retried_and_run(store: ef.Store) -> None:
    """Run another operator's retry, and the runner after it."""
    store.projections.retry(Flaky)
    with suppress(EventfoldError):  # it was paused
        store.projections.project(Flaky, timeout=0.05)


def rebuilt(store: ef.Store) -> None:
    """Rebuild into a new generation, and switch to it."""
    store.projections.rebuild(Flaky)
    store.projections.switch(Flaky)


def prepared(store: ef.Store, previous: bool) -> None:
    """Prepare three events of one key, all parked; with an older generation to roll back to, and one being built."""
    for n in (1, 2, 3):
        store.append(Taken("s1", n))
    BAD.add(1)
    store.project(Flaky)
    if previous:
        rebuilt(store)
        store.projections.rebuild(Flaky)
    BAD.clear()


def every_interleaving(url: Callable[[], str], one: Act, other: Act, previous: bool = True) -> int:
    """Run `other` before every call that `one` makes; return how many there are."""
    for at in range(1, MOST_CALLS):
        address = url()
        fast = {} if "://" in address else {"durability": "normal"}
        with ef.Store(address, **fast) as store, ef.Store(address, **fast) as another:
            prepared(store, previous)

            def between(another: ef.Store = another) -> None:
                with suppress(EventfoldError):  # it is too early or too late for it
                    other(another)

            came = between_calls(store, at, between, one)
            right_in_the_end(store)
            store.projections.remove(Flaky)  # the partition may be reserved for the next one
        if not came:
            return at - 1
    raise AssertionError("the command makes more calls than were tried")
