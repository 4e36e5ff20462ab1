"""The process in which a source's SQLite file is open: it runs statements that it reads from standard input.

A process that opens a file twice loses its locks when one of them is closed, and the store's SQLite may be another
version: so a source is never opened in the store's process. A request and an answer are MessagePack, after their
length in four bytes. `python -m eventfold.migrate.sqlite_process PATH ro|rw`

Knows: SQLite's driver, the requests. Does not know: tables, what is asked.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import Any, BinaryIO

import apsw
import msgspec

BUSY_MS = 10_000  # how long a statement waits for another writer
LENGTH_BYTES = 4


def read_message(stream: BinaryIO) -> bytes | None:
    """Read a message; None at the end of the stream."""
    length = stream.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "big")
    found = stream.read(size)
    return found if len(found) == size else None


def write_message(stream: BinaryIO, message: bytes) -> None:
    """Write a message."""
    stream.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)
    stream.flush()


class Session:
    """The file, and the query whose rows are being read."""

    def __init__(self, path: str, readonly: bool) -> None:
        flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
        self._connection = apsw.Connection(path, flags=flags)
        self._connection.set_busy_timeout(BUSY_MS)
        self._cursor: Any = None
        self._connection.execute("SELECT count(*) FROM sqlite_schema")  # a file that is no database is refused here

    def answer(self, request: dict[str, Any]) -> Any:
        """Carry a request out: `rows`, `run`, `many`, `open` and then `next`."""
        sql, parameters = request.get("sql", ""), request.get("parameters", ())
        match request["do"]:
            case "rows":
                return [list(row) for row in self._connection.execute(sql, parameters)]
            case "run":
                before = self._connection.total_changes()
                self._connection.execute(sql, parameters)
                return self._connection.total_changes() - before
            case "many":
                self._connection.cursor().executemany(sql, parameters)
                return None
            case "open":
                self._cursor = self._connection.cursor().execute(sql, parameters)
                return None
            case "next":
                return [list(row) for row in islice(self._cursor, request["size"])]
            case "stop":
                self._cursor = None
                return None
            case _:
                raise ValueError(f"no request is called {request['do']!r}")


def main(path: str, mode: str) -> None:
    """Answer requests until standard input ends."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # nothing else may write between two answers
    session: Session | None = None
    encoder = msgspec.msgpack.Encoder()
    try:
        session = Session(path, mode == "ro")
        write_message(stdout, encoder.encode({"value": apsw.sqlite_lib_version()}))
    except (apsw.Error, OSError) as error:
        write_message(stdout, encoder.encode({"error": str(error), "kind": type(error).__name__}))
        return
    while (message := read_message(stdin)) is not None:
        try:
            answer = {"value": session.answer(msgspec.msgpack.decode(message))}
            encoded = encoder.encode(answer)
        except (apsw.Error, ValueError, TypeError, OverflowError) as error:
            encoded = encoder.encode({"error": str(error), "kind": type(error).__name__})
        write_message(stdout, encoded)


if __name__ == "__main__":
    main(*sys.argv[1:])
