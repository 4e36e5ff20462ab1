"""Planted faults: an event that no decision made, and one changed byte of the file. An example has to find both.

Knows: appends, files of SQLite stores. Does not know: how an example finds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.projections.verify import LogProof

# Bytes of a payload that SQLite keeps together on a page of 4 KiB, also of a long row.
COMPARED = 300
BETWEEN = 16  # bytes at most between the id and the payload in a row: two numbers, the type and its version


def forge(store: ef.Store, *events: Any) -> int:
    """Append events without any decision, as a program that bypasses the rules would; return the last position."""
    return store.append(*events).last


def change_byte(path: Path, position: int) -> None:
    """Change one byte of one event's payload in the file of a SQLite store that no process has open.

    Events with the same payload are not touched. Raises ValueError if there is none, or if it cannot be found.
    """
    with ef.Store(str(path), create=False) as store:
        recorded = next(iter(store.read(after=position - 1, limit=1, raw=True)), None)
        if recorded is None:
            raise ValueError(f"there is no event at position {position} in {path}")
        identity, payload = recorded.id.bytes, bytes(recorded.event.data)
    content = bytearray(path.read_bytes())
    key, place, found = payload[:COMPARED], -1, 0
    while (place := content.find(identity, place + 1)) >= 0:  # in the index of ids; in an old copy of a page, too
        after = place + len(identity)
        begin = content.find(key, after, after + BETWEEN + len(key))
        if begin >= 0:
            content[begin + len(key) // 2] ^= 1
            found += 1
    if not found:
        raise ValueError(f"the payload of event {position} is not in {path}")
    path.write_bytes(bytes(content))


def damage_of(url: str) -> LogProof:
    """Open a store and let its engine check the log: the flaws that it finds, with their positions."""
    with ef.Store(url, create=False) as store:
        return store.projections.verify_log()
