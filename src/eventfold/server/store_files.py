"""Where the file of a store is, and how much space its disk has.

Knows: stores that are files. Does not know: what is in them.
"""

from __future__ import annotations

import os
from pathlib import Path

from eventfold.aio import AsyncStore


def file_of(store: AsyncStore) -> Path | None:
    """The file of an open store; None if it is not a file."""
    engine = store.engine
    address = engine.default_target or ""
    if not address.startswith("sqlite:") or engine.services.backup is None:
        return None
    return Path(address.removeprefix("sqlite:"))


def free_bytes(file: Path) -> int:
    """The bytes that an ordinary user may still write on the disk of a file. Raises OSError, also if it has gone."""
    os.stat(file)
    found = os.statvfs(file.parent)
    return found.f_bavail * found.f_frsize


def is_writable(file: Path) -> bool:
    """Whether this process has the right to write a file and its folder."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
