"""Planted faults: an event that no decision made, and one changed byte of the file. An example has to find both.

Knows: appends, files of SQLite stores. Does not know: how an example finds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.projections.verify import LogProof

# Bytes of a payload by which its place in the file is found: as many as SQLite keeps together on a page of 4 KiB, also
# of a long row. Events that are alike for longer are changed together.
COMPARED = 300


def forge(store: ef.Store, *events: Any) -> int:
    """Append events without any decision, as a program that bypasses the rules would; return the last position."""
    return store.append(*events).last


def change_byte(path: Path, position: int) -> None:
    """Change one byte of an event's payload in the file of a SQLite store that no process has open.

    Raises ValueError if the payload cannot be found in the file.
    """
    with ef.Store(str(path), create=False) as store:
        recorded = next(iter(store.read(after=position - 1, limit=1, raw=True)))
        payload: bytes = bytes(recorded.event.data)
    content = bytearray(path.read_bytes())
    key, place = payload[:COMPARED], -1
    found = 0
    while (place := content.find(key, place + 1)) >= 0:  # a page that was split may have an old copy of it
        content[place + len(key) // 2] ^= 1
        found += 1
    if not found:
        raise ValueError(f"the payload of event {position} is not in {path}")
    path.write_bytes(bytes(content))


def damage_of(url: str) -> LogProof:
    """Open a store and let its engine check the log: the flaws that it finds, with their positions."""
    with ef.Store(url, create=False) as store:
        return store.projections.verify_log()
