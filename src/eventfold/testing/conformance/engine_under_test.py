"""Where an engine keeps one store while a test runs, opened in either mode as often as it likes.

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
    """An address where nothing is yet, a mode, and the engine's options.

    `clock` whether the engine takes `clock=` as an option (a database server has a clock of its own).
    Whatever it opens it closes again, in `close()`.
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
        """How a coroutine of the port is run in this mode."""
        return self._loop or DirectRunner()

    def open(self, address: str | Engine | None = None, **options: Any) -> Store:
        """A new handle on the store, which looks synchronous in both modes; made if nothing is there yet."""
        where = address or self.url
        options = options if address else self.options | options
        if self._loop is None:
            store = Store(where, **options)
        else:
            store = cast(Store, Synchronous(AsyncStore(where, **options), self._loop).open())
        self._opened.append(store)
        return store

    def rival(self) -> Store:
        """A plain sync handle in either mode: what another thread, or a fault, writes through."""
        store = Store(self.url, **self.options)
        self._rivals.append(store)
        return store

    def engine(self) -> Engine:
        """The engine of the address, not opened yet."""
        return open_engine(self.url, self.mode, True, dict(self.options))

    def faulty(self, *, blocks: bool | None = None) -> tuple[Store, Faulty]:
        """A handle on the store with faults to plan between it and its engine."""
        faults = Faulty(self.engine(), blocks=blocks)
        return self.open(cast(Engine, faults)), faults

    def port(self, store: Store) -> Any:
        """The engine under a store, with its coroutines run: `place.port(store).head()`."""
        return Synchronous(store.engine, self.runner)

    def close(self) -> None:
        """Close every handle."""
        for store in [*self._rivals, *reversed(self._opened)]:
            store.close()
        if self._loop is not None:
            self._loop.close()
