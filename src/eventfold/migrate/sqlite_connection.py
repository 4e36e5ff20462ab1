"""A connection to a SQLite file that is open in a process of its own (sqlite_process.py).

Knows: the process, its requests. Does not know: SQLite's driver, tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

import eventfold
from eventfold.errors import SourceUnavailable
from eventfold.migrate.connection import Dialect, Row, unavailable

END_S = 10.0  # how long the process may take to end
LENGTH_BYTES = 4


class SqliteConnection:
    """A SQLite file as a source."""

    mark = "?"
    dialect: Dialect = "sqlite"

    def __init__(self, path: str, readonly: bool) -> None:
        self.address = path
        if not Path(path).is_file():
            raise SourceUnavailable(
                f"{path} does not exist, or is no file.", "Check the path.", source=path, state=None
            )
        package = str(Path(eventfold.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eventfold.migrate.sqlite_process", path, "ro" if readonly else "rw"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C ends the command, which ends the process
        )
        self._encoder = msgspec.msgpack.Encoder()
        self._is_awaited = False  # a page was asked for in advance
        self._next: dict[str, Any] | None = None
        try:
            self.version = str(self._answer())
        except SourceUnavailable:
            self.close()
            raise

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return all its rows."""
        return [tuple(row) for row in self._ask(do="rows", sql=sql, parameters=list(parameters))]

    def pages(self, sql: str, parameters: Sequence[Any] = (), size: int = 2000) -> Iterator[list[Row]]:
        """Run a query and yield its rows in pages. One such query is open at a time."""
        self._ask(do="open", sql=sql, parameters=list(parameters))
        while True:
            if self._next is None and not self._is_awaited:
                self._ask_next(size)
            self._receive_next()
            answer, self._next = self._next, None
            page = self._value(answer)
            if not page:
                return
            self._ask_next(size)  # the process reads it while this page is used
            yield [tuple(row) for row in page]

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that returns no rows, and return how many rows it changed."""
        return int(self._ask(do="run", sql=sql, parameters=list(parameters)))

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each tuple of parameters."""
        self._ask(do="many", sql=sql, parameters=[list(each) for each in parameters])

    def begin(self, snapshot: bool = False) -> None:
        """Begin a transaction; one that writes takes the lock at once."""
        self.run("BEGIN" if snapshot else "BEGIN IMMEDIATE")
        if snapshot:
            self.rows("SELECT count(*) FROM sqlite_schema")  # the first read is what fixes the state

    def commit(self) -> None:
        """Commit the transaction."""
        self.run("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back."""
        self.run("ROLLBACK")

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # it has ended already, with a request unread
                    continue
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, **request: Any) -> Any:
        self._receive_next()  # or both sides would wait for each other to read
        if request["do"] == "open":
            self._next = None
        self._send(**request)
        return self._answer()

    def _ask_next(self, size: int) -> None:
        self._send(do="next", size=size)
        self._is_awaited = True

    def _receive_next(self) -> None:
        """Receive the page that was asked for in advance."""
        if self._is_awaited:
            self._is_awaited = False
            self._next = self._received()

    def _send(self, **request: Any) -> None:
        message = self._encoder.encode(request)
        stdin = cast("BinaryIO", self._process.stdin)
        try:
            stdin.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)
            stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise self._ended() from error

    def _answer(self) -> Any:
        return self._value(self._received())

    def _received(self) -> dict[str, Any]:
        stdout = cast("BinaryIO", self._process.stdout)
        length = stdout.read(LENGTH_BYTES)
        message = stdout.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else b""
        if not message:
            raise self._ended()
        return msgspec.msgpack.decode(message)

    def _value(self, answer: dict[str, Any] | None) -> Any:
        if answer is None:
            raise self._ended()
        if "error" in answer:
            raise unavailable(self.address, answer["error"])
        return answer["value"]

    def _ended(self) -> SourceUnavailable:
        return SourceUnavailable(
            f"The process that reads {self.address} has ended.",
            "Run the command again.",
            source=self.address,
            state=None,
        )
