"""A whole log read through today's classes: what no longer fits, by type, version and field.

Knows: the store. Does not know: who shows the findings. One misfit is never the end of the scan.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from eventfold.errors import Unreadable
from eventfold.store import Store


class Misfit(msgspec.Struct, kw_only=True):
    """One way in which stored events no longer fit: how many, and the first of them."""

    type: str
    version: int
    field: str
    code: str
    what: str
    count: int = 0
    first: int = 0


class Scan(msgspec.Struct, kw_only=True):
    """What a scan came to: events read, how many of each type and version, and the misfits."""

    events: int = 0
    types: dict[str, int] = {}
    misfits: list[Misfit] = []

    @property
    def fits(self) -> bool:
        """Whether every event can be read by today's classes."""
        return not self.misfits


def scan(store: Store, progress: Callable[[int], None] | None = None, every: int = 10_000) -> Scan:
    """Read everything; `progress` is called with the count so far, every `every` events."""
    result = Scan()
    found: dict[tuple[str, int, str, str], Misfit] = {}
    for recorded in store.read(raw=True):
        stored = recorded.stored
        result.events += 1
        name = f"{stored.type} v{stored.version}"
        result.types[name] = result.types.get(name, 0) + 1
        try:
            store.registry.decode(stored)
        except Unreadable as error:
            field = str(error.fields.get("field", ""))
            misfit = found.setdefault(
                (stored.type, stored.version, field, error.code),
                Misfit(
                    type=stored.type,
                    version=stored.version,
                    field=field,
                    code=error.code,
                    what=error.what,
                    first=stored.position,
                ),
            )
            misfit.count += 1
        if progress is not None and result.events % every == 0:
            progress(result.events)
    result.misfits = sorted(found.values(), key=lambda m: (m.type, m.version, m.field))
    if progress is not None:
        progress(result.events)
    return result
