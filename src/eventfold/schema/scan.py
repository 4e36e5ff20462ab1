"""A whole log read with the present classes: events that do not fit, by type, version and field.

Knows: the store. Does not know: how misfits are shown. A misfit does not end the scan.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from eventfold.errors import Unreadable
from eventfold.store import Store


class Misfit(msgspec.Struct, kw_only=True):
    """A reason why stored events do not fit, their number, and the first of them."""

    type: str
    version: int
    field: str
    code: str
    what: str
    count: int = 0
    first: int = 0


class Scan(msgspec.Struct, kw_only=True):
    """The result of a scan: the number of events, in all and of each type and version, and the misfits."""

    events: int = 0
    types: dict[str, int] = {}
    misfits: list[Misfit] = []

    @property
    def fits(self) -> bool:
        """Whether every event can be read by the present classes."""
        return not self.misfits


def scan(store: Store, progress: Callable[[int], None] | None = None, every: int = 10_000) -> Scan:
    """Read the whole log; `progress` is called with the count so far, every `every` events."""
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
