"""Events that decisions wrote, as rows: which row of which table, what is done to it, with which values.

Such an event has no metadata of a migration. Its type says what it does, its fields hold the key, and its tag names the
row, so that the row's events are found by it. Values are brought to the form in which the column holds them. What an
event does not say and the database makes (a generated column, a hash of a hidden one) is unknown, not NULL.

Knows: mapping, codecs. Does not know: statements (reverse_rows.py), stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.errors import InvalidInput, MappingIncomplete
from eventfold.migrate.events import Row, TableEvents
from eventfold.migrate.kinds import scale_of
from eventfold.migrate.table_codec import TableCodec

Does = Literal["open", "change", "remove"]


class Target(msgspec.Struct, frozen=True):
    """What an event type does to a row of which table."""

    label: str
    effect: Does


class Decided(msgspec.Struct, frozen=True):
    """One event of a decision. `identity`: the values of the key; `values`: by field.

    Hidden and generated columns are left out. A removal that only marks the row is a change.
    """

    label: str
    key: str
    identity: tuple[Any, ...]
    effect: Does
    values: Row


def targets_of(tables: Mapping[str, TableEvents]) -> dict[str, list[Target]]:
    """Return what each event type of the mapping does."""
    found: dict[str, list[Target]] = {}
    for label, events in tables.items():
        own = events.mapping
        changes = [own.changed, *own.dates.values(), *(own.transition.types.values() if own.transition else ())]
        pairs: list[tuple[str, Does]] = [(own.created, "open"), (own.opening, "open"), (own.removed, "remove")]
        for name in dict.fromkeys(changes):
            pairs.append((name, "change"))  # noqa: PERF401 - a list would have a wider type
        for name, effect in pairs:
            if name:
                found.setdefault(name, []).append(Target(label, effect))
    return found


class DecidedEvents:
    """Reads events of decisions. `tables`: by label."""

    def __init__(self, tables: Mapping[str, TableEvents]) -> None:
        self._tables, self._targets = tables, targets_of(tables)
        self._generated = {
            label: frozenset(each.mapping.field(c.name) for c in each.codec.table.columns if c.is_generated)
            for label, each in tables.items()
        }

    @property
    def types(self) -> tuple[str, ...]:
        """The event types of these tables."""
        return tuple(self._targets)

    def read(self, event: StoredEvent) -> Decided:
        """Return what an event does.

        Raises InvalidInput if it does not say which row it is of, MappingIncomplete for a field that is no column.
        """
        data: Row = msgspec.json.decode(event.data)
        target = self._target(event, data)
        table = self._tables[target.label]
        codec = table.codec
        by_field = dict(zip(codec.fields, codec.columns, strict=True))
        unknown = [field for field in data if field not in by_field]
        if unknown:
            raise MappingIncomplete(
                f"The event at position {event.position} ({event.type}) has the field {unknown[0]}, and no column of "
                f"{table.label} is mapped to it.",
                "Add the column to the table and to keep in migration.toml, or leave the field out of that event.",
                missing=[f"{table.label}.{field}" for field in unknown],
            )
        values = {
            field: as_held(codec, by_field[field], value)
            for field, value in data.items()
            if not codec.is_hidden(by_field[field]) and field not in self._generated[table.label]
        }
        soft = table.mapping.soft_delete
        is_soft = target.effect == "remove" and soft is not None and table.mapping.field(soft.column) in values
        identity = tuple(values[field] for field in table.key_fields)
        return Decided(target.label, table.key(values), identity, "change" if is_soft else target.effect, values)

    def folded(self, row: Row | None, decided: Decided) -> Row | None:
        """Return a row after an event; what the database makes of it is unknown then, and left out."""
        if decided.effect == "remove":
            return None
        kept = {} if decided.effect == "open" else row or {}
        generated = self._generated[decided.label]
        return {field: value for field, value in kept.items() if field not in generated} | decided.values

    def _target(self, event: StoredEvent, data: Row) -> Target:
        found = [each for each in self._targets[event.type] if self._is_of(each.label, event, data)]
        if len(found) != 1:
            labels = ", ".join(dict.fromkeys(each.label for each in self._targets[event.type]))
            raise InvalidInput(
                f"The event at position {event.position} ({event.type}) does not say which row of {labels} it is of.",
                "An event that is written back has the fields of the key, and the tag of the row.",
                position=event.position,
            )
        return found[0]

    def _is_of(self, label: str, event: StoredEvent, data: Row) -> bool:
        table = self._tables[label]
        if not all(field in data for field in table.key_fields):
            return False
        codec = table.codec
        held = {
            table.mapping.field(name): as_held(codec, name, data[table.mapping.field(name)])
            for name in table.mapping.key
        }
        return table.tag(table.key(held)) in event.tags


def as_held(codec: TableCodec, column: str, value: Any) -> Any:
    """Return a value as the column holds it: a decimal with its digits, a time in UTC. What it cannot hold stays."""
    if not isinstance(value, str):
        return value
    match codec.codecs[column].kind:
        case "decimal":
            scale = scale_of(codec.table.column(column).type)
            return value if scale is None else _scaled(value, scale)
        case "moment":
            return _in_utc(value)
        case _:
            return value


def _scaled(text: str, scale: int) -> str:
    try:
        number = Decimal(text)
        scaled = number.quantize(Decimal(1).scaleb(-scale))
    except InvalidOperation:
        return text
    return format(scaled, "f") if scaled == number else text


def _in_utc(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    if found.tzinfo is None:
        return text
    return found.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
