"""The port of a row watcher: what a definition does with changed rows besides storing them. Alerts have one.

Knows: when a worker calls it. Does not know: what a watcher does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from eventfold.ports.target import Checkpoint


class RowWatcher(Protocol):
    """Watches the rows of one partition of one generation. A worker calls it, one call at a time."""

    async def begin(self, checkpoint: Checkpoint) -> None:
        """Begin with the stored rows, after a claim of the lease."""
        ...

    async def before_commit(self, rows: Iterable[tuple[tuple[Any, ...], Any]]) -> None:
        """Receive the keys and rows that a page changed, before they are stored. May be repeated after a crash."""
        ...

    async def at_head(self, checkpoint: Checkpoint) -> None:
        """Receive that every event of the log is folded and stored. Called about once a second, and after pages."""
        ...
