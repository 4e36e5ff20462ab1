"""One target during a test, opened any number of times, by itself or under a store.

Knows: how a store is given a target. Does not know: pytest, which target it is.
"""

from __future__ import annotations

from collections.abc import Callable

from eventfold.ports.target import Target
from eventfold.store import Store


class TargetUnderTest:
    """An empty target, and the address of a log that does not exist yet.

    `target` is the target's address, or a function that opens it; None: the default target of the log's engine.
    `log` must be an address that several stores may open at once, such as a path, unless `shared` is False: then tests
    that open several stores are skipped. `close()` closes all that was opened.
    """

    def __init__(self, target: str | Callable[[], Target] | None, log: str, *, shared: bool = True) -> None:
        self.target, self.log, self.shared = target, log, shared
        self._stores: list[Store] = []

    def open_store(self) -> Store:
        """Open a store on the log, with the target."""
        target = self.target if self.target is None or isinstance(self.target, str) else self.target()
        store = Store(self.log, target=target)
        self._stores.append(store)
        return store

    def close(self) -> None:
        """Close every store, and its target."""
        for store in reversed(self._stores):
            store.close()
