"""PostgreSQL's `pgoutput` messages, as its logical decoding gives them, as transactions.

Version 1 of the format, values as text; the sections "Logical Replication Message Formats" of its manual define it.
Knows: the bytes of messages. Does not know: SQL, how messages are fetched.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import msgspec

from eventfold.migrate.sources.changes import Change, Image, Mark, Operation, Transaction

EPOCH_US = 946_684_800_000_000  # 2000-01-01 UTC, from which PostgreSQL counts
_begin, _commit = struct.Struct(">qqI"), struct.Struct(">bqqq")
_u32, _i16 = struct.Struct(">I"), struct.Struct(">h")
OPERATIONS: dict[bytes, Operation] = {b"I": "insert", b"U": "update", b"D": "delete"}
_REMEDY = "run ALTER TABLE {0} REPLICA IDENTITY FULL, then `eventfold migrate load --reread {0}`"
UNCHANGED = object()  # a value that is stored apart and was not changed, so that it is not in the message


class Relation(msgspec.Struct, frozen=True):
    """A table, as the messages after it describe rows of it. `types`: the number of each column's type."""

    name: str
    columns: tuple[str, ...]
    types: tuple[int, ...]


class Decoder:
    """Turns messages into transactions. `wanted`: the names of tables by schema and name; others are left out.

    `own`: the prefix of an application's message by which a transaction says that it is ours: its changes are left out.
    """

    def __init__(self, wanted: Mapping[tuple[str, str], str], own: str = "") -> None:
        self._wanted, self._own = wanted, own
        self.relations: dict[int, Relation | None] = {}

    def transactions(self, messages: Iterable[bytes], near: int) -> list[Transaction]:
        """Return the transactions of some messages. `near`: a recent transaction id of 64 bits.

        Messages have ids of 32 bits, which are extended to the nearest ones: some may be greater than `near`.
        """
        found: list[Transaction] = []
        changes: list[Change] = []
        xid = final = at = 0
        is_own = False
        for message in messages:
            match message[:1]:
                case b"B":
                    final, at, short = _begin.unpack_from(message, 1)
                    xid, changes, is_own = _full(short, near), [], False
                case b"C":
                    _, _, end, at = _commit.unpack_from(message, 1)
                    content = () if is_own else tuple(changes)
                    found.append(Transaction(str(xid), xid, lsn_text(end), at + EPOCH_US, content, True))
                case b"R":
                    self._learn(message)
                case b"I" | b"U" | b"D":
                    self._add(message, changes, final)
                case b"T":
                    self._add_truncated(message, changes, final)
                case b"M" if message[1]:  # of a transaction
                    is_own = is_own or (bool(self._own) and _text(message, 10)[0] == self._own)
                case _:  # types, origins, messages outside transactions: no rows
                    continue
        return found

    def _learn(self, message: bytes) -> None:
        number = _u32.unpack_from(message, 1)[0]
        schema, at = _text(message, 5)
        name, at = _text(message, at)
        count = _i16.unpack_from(message, at + 1)[0]
        at += 3
        columns: list[str] = []
        types: list[int] = []
        for _ in range(count):
            column, at = _text(message, at + 1)
            columns.append(column)
            types.append(_u32.unpack_from(message, at)[0])
            at += 8
        table = self._wanted.get((schema, name))
        self.relations[number] = None if table is None else Relation(table, tuple(columns), tuple(types))

    def _add(self, message: bytes, changes: list[Change], final: int) -> None:
        relation = self.relations[_u32.unpack_from(message, 1)[0]]
        if relation is None:
            return
        mark: Mark = (final, len(changes))
        operation = OPERATIONS[message[:1]]
        kind, at = message[5:6], 6
        before: Image | None = None
        problem: str | None = None
        if kind in (b"K", b"O"):
            old, at = _values(message, at)
            if kind == b"O":
                before = dict(zip(relation.columns, old, strict=True))
            kind, at = message[at : at + 1], at + 1
        if operation != "insert" and before is None:
            problem = f"a change of {relation.name} came without the row as it was before"
        after: Image | None = None
        if operation != "delete":
            new, _ = _values(message, at)
            after = dict(zip(relation.columns, new, strict=True))
            for column, value in after.items():
                if value is UNCHANGED:
                    if before is None:
                        problem = f"{relation.name}.{column} is stored apart (TOAST), and its value did not come"
                        break
                    after[column] = before[column]
        if problem is None:
            changes.append(Change(relation.name, operation, mark, before, after))
        else:
            changes.append(Change(relation.name, operation, mark, problem=(problem, _REMEDY.format(relation.name))))

    def _add_truncated(self, message: bytes, changes: list[Change], final: int) -> None:
        count = _u32.unpack_from(message, 1)[0]
        for index in range(count):
            relation = self.relations[_u32.unpack_from(message, 6 + 4 * index)[0]]
            if relation is not None:
                changes.append(Change(relation.name, "truncate", (final, len(changes))))


def _values(message: bytes, at: int) -> tuple[list[object], int]:
    count = _i16.unpack_from(message, at)[0]
    at += 2
    found: list[object] = []
    for _ in range(count):
        kind = message[at : at + 1]
        at += 1
        if kind == b"t":
            length = _u32.unpack_from(message, at)[0]
            at += 4
            found.append(message[at : at + length].decode())
            at += length
        else:
            found.append(None if kind == b"n" else UNCHANGED)
    return found, at


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1


def lsn_text(number: int) -> str:
    """Return a place in the write-ahead log as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def _full(short: int, near: int) -> int:
    """Return a transaction id of 64 bits: the one with these 32 low bits that is nearest to another one."""
    ahead = (short - near) & 0xFFFFFFFF
    return near + ahead if ahead < 1 << 31 else near + ahead - (1 << 32)
