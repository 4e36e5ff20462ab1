"""One store of an engine during a test, opened in sync or async mode any number of times.

Knows: addresses, modes. Does not know: pytest, engines.
"""

from __future__ import annotations

from typing import Any, cast

from eventfold.aio import AsyncStore
from eventfold.engines import Mode, open_engine
from eventfold.ports.engine import Engine
from eventfold.store import Store
from eventfold.testing.faults import Faulty
from eventfold.testing.synchronous import DirectRunner, LoopRunner, Runner, Synchronous


class EngineUnderTest:
    """An address without a store, a mode, and the engine's options.

    `clock`: whether the engine takes `clock=` as an option (a database server has a clock of its own). `close()` closes
    all handles that were opened.
    """

    def __init__(self, url: str, mode: Mode = "sync", *, clock: bool = False, **options: Any) -> None:
        self.url, self.clock = url, clock
        self.mode: Mode = mode
        self.options = options
        self._opened: list[Store] = []
        self._rivals: list[Store] = []
        self._loop = LoopRunner() if mode == "async" else None

    @property
    def runner(self) -> Runner:
        """Runs coroutines of the port in this mode."""
        return self._loop or DirectRunner()

    def open(self, address: str | Engine | None = None, **options: Any) -> Store:
        """Open a new handle on the store, synchronous in both modes; the store is created if there is none."""
        where = address or self.url
        options = options if address else self.options | options
        if self._loop is None:
            store = Store(where, **options)
        else:
            store = cast(Store, Synchronous(AsyncStore(where, **options), self._loop).open())
        self._opened.append(store)
        return store

    def rival(self) -> Store:
        """Open a sync handle in either mode, for writes by another thread or a fault."""
        store = Store(self.url, **self.options)
        self._rivals.append(store)
        return store

    def engine(self) -> Engine:
        """The engine of the address, not yet opened."""
        return open_engine(self.url, self.mode, True, dict(self.options))

    def faulty(self, *, blocks: bool | None = None) -> tuple[Store, Faulty]:
        """Open a handle with planned faults between the store and its engine."""
        faults = Faulty(self.engine(), blocks=blocks)
        return self.open(cast(Engine, faults)), faults

    def port(self, store: Store) -> Any:
        """The engine under a store, with its coroutines run: `engine_under_test.port(store).head()`."""
        return Synchronous(store.engine, self.runner)

    def service(self, store: Store, name: str) -> Any:
        """A service of the engine under a store, with its coroutines run. None if the engine does not have it."""
        found = getattr(store.engine.services, name)
        return None if found is None else Synchronous(found, self.runner)

    def close(self) -> None:
        """Close every handle."""
        for store in [*self._rivals, *reversed(self._opened)]:
            store.close()
        if self._loop is not None:
            self._loop.close()
