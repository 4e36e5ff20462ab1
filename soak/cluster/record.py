"""The record of a client: each append with its events and conditions, its answers, and each head that was read.

A line is written by one system call, before a call and after it, so that the record of a killed client ends with calls
whose outcome is unknown. Times are of the monotonic clock, which all processes of a machine share. Knows: lines in
files. Does not know: stores, what is right.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import ConditionClause, Query

SUFFIX = ".record"
Answer = Literal["acknowledged", "conflict", "refused", "unknown"]
ANSWERS: tuple[Answer, ...] = ("acknowledged", "conflict", "refused", "unknown")


class Clause(msgspec.Struct, frozen=True):
    """A part of a condition: no event after `after` matches `query`."""

    query: Query
    after: int


class Call(msgspec.Struct, tag="call"):
    """A call to append. Calls with the same `op` have the same events: they are repeats."""

    op: str
    number: int  # of the call, from 1: `op` and `number` together are unique
    began: int
    ids: list[str]
    contents: list[str]
    unless: list[Clause] = []
    key: str | None = None


class Answered(msgspec.Struct, tag="answered"):
    """The answer to a call. `refused`: an error that says that nothing was written by this call, but for a conflict."""

    op: str
    number: int
    ended: int
    answer: Answer
    first: int = 0
    epoch: int = 0
    ids: list[str] = []
    repeated: bool = False
    error: str = ""


class Look(msgspec.Struct, tag="look"):
    """A head that was read, with the promise that it is the newest."""

    began: int
    ended: int
    head: int


class Read(msgspec.Struct, tag="read"):
    """The events that a read of (after, until] returned."""

    query: Query
    after: int
    until: int
    ids: list[str]


class Seen(msgspec.Struct, tag="seen"):
    """A page of a follower: the first position and the ids in order. `fresh`: it begins to follow here."""

    follower: str
    first: int
    ids: list[str]
    fresh: bool


class Foreign(msgspec.Struct, tag="foreign"):
    """An error that is not the library's reached a caller, or says that a store is damaged: always a violation."""

    what: str


Line = Call | Answered | Look | Read | Seen | Foreign
_DECODER = msgspec.json.Decoder(Line)


def content(event: NewEvent | StoredEvent) -> str:
    """Return a digest of what the writer of an event chose, without its id."""
    tags = event.tag_set if isinstance(event, StoredEvent) else event.tags
    values = [event.type, event.version, list(tags), event.occurred, event.codec, event.key]
    raw = msgspec.json.encode(values) + event.data + (event.metadata or b"")
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def now() -> int:
    """Return the time of the machine's monotonic clock, in ns."""
    return time.monotonic_ns()


class Recorder:
    """The record of one client, in a file of the folder."""

    def __init__(self, folder: Path, client: str) -> None:
        self._file = os.open(folder / f"{client}{SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._client = client
        self._numbers: dict[str, int] = {}

    def _write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def call(
        self, op: str, events: Sequence[NewEvent], unless: Sequence[ConditionClause] = (), key: str | None = None
    ) -> int:
        """Note that an append follows. Returns the number of the call."""
        number = self._numbers[op] = self._numbers.get(op, 0) + 1
        ids, contents = [event.id.hex() for event in events], [content(event) for event in events]
        self._write(Call(op, number, now(), ids, contents, [Clause(each.query, each.after) for each in unless], key))
        return number

    def acknowledged(self, op: str, number: int, receipt: Receipt) -> None:
        """Note the receipt."""
        ids = [each.hex() for each in receipt.ids]
        self._write(Answered(op, number, now(), "acknowledged", receipt.first, receipt.epoch, ids, receipt.repeated))

    def failed(self, op: str, number: int, answer: Answer, error: BaseException) -> None:
        """Note an error."""
        self._write(Answered(op, number, now(), answer, error=f"{type(error).__name__}: {error}"[:400]))

    def looked(self, began: int, head: int) -> None:
        """Note a head that was read."""
        self._write(Look(began, now(), head))

    def read(self, query: Query, after: int, until: int, ids: Sequence[str]) -> None:
        """Note what a read returned."""
        self._write(Read(query, after, until, list(ids)))

    def seen(self, follower: str, events: Sequence[Any], *, fresh: bool) -> None:
        """Note a page: objects with a position and an id (UUID)."""
        self._write(Seen(follower, events[0].position, [each.id.hex for each in events], fresh))

    def foreign(self, error: BaseException) -> None:
        """Note an error that must not be."""
        self._write(Foreign(f"{self._client}: {type(error).__name__}: {error}"[:400]))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_records(folder: Path) -> Iterator[Line]:
    """Yield the complete lines of all records of a folder."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        *complete, _half = path.read_bytes().split(b"\n")
        yield from map(_DECODER.decode, complete)


def count_acknowledged(folder: Path) -> int:
    """Return how many appends were acknowledged so far."""
    return sum(path.read_bytes().count(b'"answer":"acknowledged"') for path in folder.glob(f"*{SUFFIX}"))
