"""Events made of rows and changes of rows, encoded, without the user's event classes.

    opening   the row as it was when it was loaded or inserted: every field
    changed   the key and the fields that changed; a transition has a type of its own, also a soft delete
    removed   the key
    fact      what a column with a time proves, such as shipped_at; it comes before the opening

An id is derived from what the event says of which row, so that a repeated command meets its own events. Metadata say
which row an event is of (`source`), what it does to it (`op`), and how that is known (`evidence`).
Knows: mapping, envelope, ids. Does not know: where rows come from, stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from eventfold.core.envelope import NewEvent, check_new, to_micros
from eventfold.core.tags import check_name
from eventfold.errors import InvalidInput, ValueNotExact
from eventfold.migrate.mapping import Mapping as Migration
from eventfold.migrate.mapping import Moment, TableMapping, key_text
from eventfold.migrate.sources.changes import Mark
from eventfold.migrate.table_codec import TableCodec

Evidence = Literal["row", "column", "history", "change", "reread"]
Effect = Literal["open", "change", "remove", "fact"]
Row = dict[str, Any]  # by field, as JSON
_encode = msgspec.json.Encoder(decimal_format="string").encode
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of an event: which row, what it does to it, how that is known.

    `mark` orders the changes of one row; `run` is the run of the load; `transaction`, `part`: of the source's
    transaction, and which of its appends this is in.
    """

    evidence: Evidence
    op: Effect
    source: str
    mark: Mark | None = None
    run: int | None = None
    transaction: str | None = None
    part: str | None = None
    actor: str | None = None


class Circumstances(msgspec.Struct, frozen=True):
    """What the events of one row or transaction have in common. `at`: when it was changed, µs since 1970 UTC."""

    evidence: Evidence
    at: int | None = None
    mark: Mark | None = None
    run: int | None = None
    transaction: str | None = None
    part: str | None = None


def event_id(moment: int, *parts: str) -> bytes:
    """Return an id derived from `parts`: a UUIDv8 that begins with the milliseconds of a moment (µs since 1970 UTC).

    Before 1970 counts as 1970.
    """
    digest = sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).digest()
    millis = max(0, min(moment // 1000, 2**48 - 1))
    head = bytes((0x80 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F))
    return millis.to_bytes(6) + head + digest[3:10]


class TableEvents:
    """Makes the events of one table's rows. `began`: of the migration, in ids of events without a moment."""

    def __init__(self, codec: TableCodec, migration: Migration, name: str, began: int) -> None:
        self.codec, self.mapping = codec, codec.mapping
        self.label = codec.table.label
        own = self.mapping
        self.key_fields = tuple(own.field(each) for each in own.key)
        self._name, self._began = name, began
        self._references = [_Reference(own, each, migration) for each in own.references]
        self._moment = None if own.occurred is None else _Clock(own, own.occurred)
        self._dates = [(_Clock(own, Moment(column=each, zone=_zone_of(own))), type) for each, type in own.dates.items()]
        self.types = tuple(
            dict.fromkeys(
                filter(
                    None,
                    (
                        own.created,
                        own.opening,
                        own.changed,
                        own.removed,
                        *own.dates.values(),
                        *(own.transition.types.values() if own.transition else ()),
                    ),
                )
            )
        )
        for each in self.types:
            check_name("event type", each)

    def key(self, row: Row) -> str:
        """Return the key of a row as text."""
        return key_text([row[each] for each in self.key_fields])

    def tag(self, key: str) -> str:
        """Return the tag of a row."""
        return f"{self.mapping.tag}:{key}"

    def source(self, key: str) -> str:
        """Return what the metadata of its events say of the row."""
        return f"{self.label}/{key}"

    def loaded(self, row: Row, run: int, proved: int | None = None) -> Iterator[tuple[int | None, NewEvent]]:
        """Yield the events of a loaded row, each with the moment by which it is sorted: facts, then the opening.

        The opening is as of the latest moment that the row names, or that its history proves (`proved`). A row that is
        marked as deleted is removed after it.
        """
        key = self.key(row)
        latest = None if self._moment is None else self._moment.of(row)
        if proved is not None:
            latest = proved if latest is None else max(latest, proved)
        for clock, type in self._dates:
            moment = clock.of(row)
            if moment is not None:
                latest = moment if latest is None else max(latest, moment)
                data = {each: row[each] for each in (*self.key_fields, clock.field)}
                origin = Origin("column", "fact", self.source(key), run=run)
                yield moment, self._event(type, data, row, key, moment, origin, "")
        evidence: Evidence = "row" if latest is None else "column"
        origin = Origin(evidence, "open", self.source(key), run=run)
        yield latest, self._event(self.mapping.opening, row, row, key, latest, origin, "")
        if self._is_removed(row) and self.mapping.removed:
            data = {each: row[each] for each in self._with_key(row, self._soft_fields())}
            origin = Origin(evidence, "fact", self.source(key), run=run)
            yield latest, self._event(self.mapping.removed, data, row, key, latest, origin, "soft")

    def proved(
        self, operation: str, before: Row, after: Row, moment: int | None, source: str, who: str | None, run: int
    ) -> NewEvent | None:
        """Return the event of a change that a history proves; None for one that events say nothing of."""
        own, key = self.mapping, self.key(after)
        if operation == "insert":
            type, data = own.created, {name: value for name, value in after.items() if value is not None}
        elif operation == "delete":
            type, data = own.removed, {each: after[each] for each in self.key_fields}
        else:
            names = [own.field(each) for each in self.codec.differing(before, after) if each not in own.no_fact]
            type = self._type_of_change(before, after, names) if names else ""
            data = {each: after[each] for each in self._with_key(after, names)}
        if not type:
            return None
        origin = Origin("history", "fact", self.source(key), run=run, actor=who)
        return self._event(type, data, after, key, moment, origin, source)

    def opened(self, row: Row, about: Circumstances) -> NewEvent:
        """Return the event of a row that was inserted, or that was missing."""
        key = self.key(row)
        return self._event(
            self.mapping.opening, row, row, key, about.at, self._origin("open", key, about), _mark(about)
        )

    def changed(self, before: Row, after: Row, about: Circumstances) -> NewEvent | None:
        """Return the event of a change; None if nothing differs that the events have."""
        names = self.differing(before, after)
        if not names:
            return None
        key = self.key(after)
        data = {each: after[each] for each in self._with_key(after, names)}
        type = self._type_of_change(before, after, names)
        return self._event(type, data, after, key, about.at, self._origin("change", key, about), _mark(about))

    def removed(self, row: Row, about: Circumstances) -> NewEvent:
        """Return the event of a row that was deleted."""
        key, type = self.key(row), self.mapping.removed or self.mapping.changed or self.mapping.opening
        data = {each: row[each] for each in self.key_fields}
        return self._event(type, data, row, key, about.at, self._origin("remove", key, about), _mark(about))

    def differing(self, some: Row, other: Row) -> list[str]:
        """Return the fields in which two rows differ, each by the equality of its type."""
        return [self.mapping.field(each) for each in self.codec.differing(some, other)]

    def _origin(self, op: Effect, key: str, about: Circumstances) -> Origin:
        return Origin(about.evidence, op, self.source(key), about.mark, about.run, about.transaction, about.part)

    def _event(
        self, type: str, data: Row, row: Row, key: str, moment: int | None, origin: Origin, occasion: str
    ) -> NewEvent:
        begin = self._began if moment is None else moment
        identity = event_id(begin, self._name, self.label, key, type, origin.op, occasion)
        tags = {self.tag(key)}
        for each in self._references:
            if (found := each.tag(row)) is not None:
                tags.add(found)
        try:
            return check_new(NewEvent(identity, type, 1, _encode(data), tuple(sorted(tags)), moment, _encode(origin)))
        except UnicodeEncodeError:
            raise ValueNotExact(
                f"The row {key} of {self.label} has text that is no Unicode.",
                "Correct the row, or drop the column.",
                table=self.label,
                key=key,
            ) from None

    def _with_key(self, row: Row, names: Sequence[str]) -> Iterator[str]:
        wanted = {*self.key_fields, *names}
        return (each for each in row if each in wanted)

    def _type_of_change(self, before: Row, after: Row, names: Sequence[str]) -> str:
        own = self.mapping
        if own.removed and self._is_removed(after) and not self._is_removed(before):
            return own.removed
        if own.transition is not None and (field := own.field(own.transition.column)) in names:
            value = after[field]
            return own.transition.types.get(value if isinstance(value, str) else _encode(value).decode(), own.changed)
        for clock, type in self._dates:
            if clock.field in names and after[clock.field] is not None:
                return type
        return own.changed or own.opening

    def _soft_fields(self) -> list[str]:
        soft = self.mapping.soft_delete
        return [] if soft is None else [self.mapping.field(soft.column)]

    def _is_removed(self, row: Row) -> bool:
        soft = self.mapping.soft_delete
        if soft is None:
            return False
        value = row.get(self.mapping.field(soft.column))
        if soft.when in ("set", "nonzero"):
            return value is not None and (soft.when == "set" or value not in (0, "0", ""))
        return value is not None and (value if isinstance(value, str) else _encode(value).decode()) == soft.when


class _Clock:
    """A column that says when something occurred."""

    def __init__(self, own: TableMapping, moment: Moment) -> None:
        self.field, self._unit = own.field(moment.column), moment.unit
        try:
            self._zone = ZoneInfo(moment.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidInput(f"{moment.zone!r} is no time zone.", "Write a name such as Europe/Berlin.") from None

    def of(self, row: Row) -> int | None:
        """Return the moment in µs since 1970 UTC; None if the row has none, or one that is no moment."""
        value = row.get(self.field)
        if value is None:
            return None
        try:
            if self._unit in _UNITS:
                return int(float(value) * _UNITS[self._unit]) if isinstance(value, str) else value * _UNITS[self._unit]
            if self._unit == "roundup":
                found = _roundup(value)
            else:
                found = datetime.fromisoformat(value)
            return to_micros(found if found.tzinfo is not None else found.replace(tzinfo=self._zone))
        except (ValueError, TypeError, OverflowError, InvalidInput):
            return None


class _Reference:
    """Columns that hold the key of a row of another table."""

    def __init__(self, own: TableMapping, reference: Any, migration: Migration) -> None:
        self._fields = [own.field(each) for each in reference.columns]
        self._type_field = None if reference.type_column is None else own.field(reference.type_column)
        tables: Mapping[str, TableMapping] = migration.migrated
        self._tag = None
        if reference.table in tables:
            target = tables[reference.table]
            if not reference.to or tuple(reference.to) == target.key:
                self._tag = target.tag
        self._tags = {value: tables[label].tag for value, label in reference.types.items() if label in tables}

    def tag(self, row: Row) -> str | None:
        """Return the tag of the row that a row refers to; None if it refers to none, or its table is not migrated."""
        tag = self._tag if self._type_field is None else self._tags.get(str(row.get(self._type_field)))
        values = [row.get(each) for each in self._fields]
        return None if tag is None or None in values else f"{tag}:{key_text(values)}"


def _mark(about: Circumstances) -> str:
    return f"{about.mark}" if about.mark is not None else f"run {about.run}"


def _zone_of(own: TableMapping) -> str:
    return own.occurred.zone if own.occurred is not None else "UTC"


def _roundup(value: Any) -> datetime:
    """Return the moment of a text such as `2026-11-29.12:30:00` or `20261129123000.123`."""
    text = str(value)
    whole, _, fraction = text.partition(".")
    if len(whole) == 14 and whole.isdigit():
        found = datetime.strptime(whole + "+0000", "%Y%m%d%H%M%S%z")
        return found + timedelta(seconds=float(f"0.{fraction or 0}"))
    return datetime.strptime(text + "+0000", "%Y-%m-%d.%H:%M:%S%z")
