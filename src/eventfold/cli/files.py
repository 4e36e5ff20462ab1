"""Files that a command writes: whole, or as they were.

Knows: names beside a file, renaming, what the system refuses. Does not know: what is in a file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from eventfold.errors import EventfoldError


def write_whole(file: Path, data: bytes, what: str) -> None:
    """Write a file durably: whoever reads it, at any moment, finds what was there or what is new, whole.

    `what` is what cannot be kept, if it cannot: the beginning of the error's sentence.
    """
    place = file.resolve()  # a symbolic link stays one
    fresh = place.with_name(f"{place.name}.new")
    try:
        if place.exists() and not place.is_file():  # a pipe or a device: nothing can be renamed to it
            place.write_bytes(data)
            return
        with fresh.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileNotFoundError):
            fresh.chmod(place.stat().st_mode & 0o7777)
        fresh.replace(place)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise EventfoldError(
            f"{what} cannot be kept in {file}: {error.strerror}.",
            "Name a file in a folder that may be written to and has room.",
            path=str(file),
        ) from error
