"""What the columns of a table suggest: when something occurred, states, soft deletes, personal data, forms of times.

Knows: names, sampled values. Does not know: other tables, roles of tables.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from eventfold.migrate.connection import Connection, Dialect
from eventfold.migrate.kinds import Kind, caution, kind_of
from eventfold.migrate.mapping import ColumnDetail, Moment, SoftDelete, Transition, Unit
from eventfold.migrate.names import (
    CREATED,
    DELETED,
    STATUS,
    UPDATED,
    dated_event,
    field_name,
    past_event,
    personal_data,
)
from eventfold.migrate.reflection import Column, Table
from eventfold.migrate.samples import Sample, states
from eventfold.migrate.values import MOMENT, codec_of

TIMES: tuple[Kind, ...] = ("date", "datetime", "moment")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[a-z]{2,}", re.IGNORECASE)
ROUNDUP_DATE = re.compile(r"\d{14}\.\d{3}")
FEW_STATES = 12
MEASURED = (
    "a personal attribute",
    "where a person is",
    "a telephone number",
    "a payment detail",
)  # personal data that may be numbers or dates
# The least and greatest whole number that is a time since 2000 in each unit.
UNITS: tuple[tuple[Unit, int, int], ...] = (
    ("s", 946_684_800, 4_102_444_800),
    ("ms", 946_684_800_000, 4_102_444_800_000),
    ("us", 946_684_800_000_000, 4_102_444_800_000_000),
)
FORMS = tuple(
    f"YYYY-MM-DD{separator}hh:mm:ss{fraction}{suffix}"
    for suffix in ("", "Z", "+00:00")
    for separator in (" ", "T")
    for fraction in ("[.ffffff]", ".ffffff", "", ".fff", "[.fff]")
)


class ColumnEvidence(msgspec.Struct, kw_only=True):
    """What was found of the columns of one table, with the reasons as sentences."""

    occurred: Moment | None = None
    dates: dict[str, str] = {}
    transition: Transition | None = None
    soft_delete: SoftDelete | None = None
    no_fact: list[str] = []
    personal: dict[str, str] = {}
    details: dict[str, ColumnDetail] = {}
    because: list[str] = []
    cautions: dict[str, str] = {}


def read_columns(connection: Connection, table: Table, found: Sample, entity: str) -> ColumnEvidence:
    """Return what the columns suggest. `entity`: the name of the class, for the names of events."""
    evidence = ColumnEvidence()
    _details(connection.dialect, table, found, evidence)
    _times(connection.dialect, table, found, entity, evidence)
    _states(connection, table, entity, evidence)
    for column in table.columns:
        if DELETED.fullmatch(column.name.lower()):
            evidence.soft_delete = _soft_delete(connection.dialect, column)
            evidence.because.append(f"{column.name} marks rows as deleted")
        kind = kind_in(connection.dialect, column, evidence.details)
        if (what := _personal(table, column, kind, found)) is not None:
            evidence.personal[column.name] = what
    return evidence


def kind_in(dialect: Dialect, column: Column, details: dict[str, ColumnDetail]) -> Kind:
    """Return the kind of a column, as its detail says or as its type does."""
    detail = details.get(column.name)
    return (detail.kind if detail else None) or kind_of(dialect, column)


def _details(dialect: Dialect, table: Table, found: Sample, evidence: ColumnEvidence) -> None:
    """Find the kind of columns whose values do not fit their type, the form of times in SQLite, and names of fields."""
    taken: set[str] = set()
    for column in table.columns:
        kind = kind_of(dialect, column)
        values = found.values.get(column.name, [])
        detail = ColumnDetail()
        if dialect == "sqlite":
            detail = _sqlite_detail(column, kind, values)
        elif (reason := _misfit(dialect, column, kind, None, values)) is not None:
            detail = ColumnDetail(kind="text", because=f"a value does not fit the kind {kind}: {reason}")
        name = field_name(column.name, taken)
        taken.add(name)
        if name != field_name(column.name):
            detail = msgspec.structs.replace(detail, name=name)
        if detail != ColumnDetail():
            evidence.details[column.name] = detail
        if said := caution(dialect, column, detail.kind or kind):
            evidence.cautions[column.name] = said
        if detail.kind is not None and detail.because:
            evidence.cautions[column.name] = detail.because


def _sqlite_detail(column: Column, kind: Kind, values: list[Any]) -> ColumnDetail:
    if kind in ("datetime", "moment") and values and _misfit("sqlite", column, kind, None, values) is not None:
        for form in FORMS:
            if _misfit("sqlite", column, kind, form, values) is None:
                return ColumnDetail(form=form, because="as all sampled values are written")
    reason = _misfit("sqlite", column, kind, None, values)
    if reason is None:
        return ColumnDetail()
    return ColumnDetail(
        kind="any", because=f"SQLite checks no types, and a value does not fit the kind {kind}: {reason}"
    )


def _misfit(dialect: Dialect, column: Column, kind: Kind, form: str | None, values: list[Any]) -> str | None:
    codec = codec_of(dialect, column, kind, form)
    for value in values:
        try:
            codec.to_json(value)
        except ValueError as error:
            return str(error)
    return None


# ---------------------------------------------------------------------------------------- times


def _times(dialect: Dialect, table: Table, found: Sample, entity: str, evidence: ColumnEvidence) -> None:
    created: list[tuple[int, Moment]] = []
    for column in table.columns:
        name = column.name.lower()
        kind = kind_in(dialect, column, evidence.details)
        unit = _unit(kind, found.values.get(column.name, []))
        if UPDATED.fullmatch(name) and (unit is not None or kind in ("integer", "text")):
            evidence.no_fact.append(column.name)
            evidence.because.append(
                f"{column.name} says when or how often the row was changed, which is no fact of its own"
            )
            continue
        if unit is None or column.name in table.key:
            continue
        if CREATED.fullmatch(name) or name == "time":
            created.append((0 if re.search("creat|placed|insert", name) else 1, Moment(column=column.name, unit=unit)))
        elif (event := dated_event(entity, name)) is not None and not DELETED.fullmatch(name):
            evidence.dates = evidence.dates | {column.name: event}
            evidence.because.append(f"{column.name} is the time at which something happened: {event}")
    if created:
        evidence.occurred = min(created, key=lambda pair: pair[0])[1]
        measured = "" if evidence.occurred.unit == "text" else f", as a whole number ({evidence.occurred.unit})"
        evidence.because.append(f"{evidence.occurred.column} says when the row was made{measured}")


def _unit(kind: Kind, values: list[Any]) -> Unit | None:
    """Return in which unit a column holds times; None if it does not."""
    if kind in TIMES:
        return "text"
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) == len(values):
        if all(map(ROUNDUP_DATE.fullmatch, texts)):
            return "roundup"
        return "text" if all(map(MOMENT.fullmatch, texts)) else None
    numbers = [value for value in values if type(value) is int and value]
    if not numbers or len(numbers) < len([value for value in values if value]):
        return None
    return next((unit for unit, least, most in UNITS if all(least <= n <= most for n in numbers)), None)


def moment_of(value: Any, moment: Moment) -> datetime | None:
    """Return when something occurred, from the JSON of a column; None if the column has no time.

    Raises ValueError for a value that is no time.
    """
    from zoneinfo import ZoneInfo

    if value in (None, "", 0):
        return None
    if moment.unit == "text":
        found = datetime.fromisoformat(str(value))
    elif moment.unit == "roundup":
        found = datetime.strptime(str(value) + "000", "%Y%m%d%H%M%S.%f").replace(tzinfo=UTC)
    else:
        factor = {"s": 1_000_000, "ms": 1000, "us": 1}[moment.unit]
        seconds, micros = divmod(int(value) * factor, 1_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC if moment.zone == "UTC" else ZoneInfo(moment.zone))
    return found.astimezone(UTC)


# ---------------------------------------------------------------------------------------- states


def _states(connection: Connection, table: Table, entity: str, evidence: ColumnEvidence) -> None:
    if "SELECT" not in table.rights:
        return
    foreign = {name for key in table.foreign_keys for name in key.columns}
    ranked = sorted(table.columns, key=lambda each: (each.name.lower() not in ("status", "state"), each.name))
    for column in ranked:
        kind = kind_in(connection.dialect, column, evidence.details)
        if not STATUS.fullmatch(column.name.lower()) or column.name in foreign or kind not in ("text", "enum"):
            continue
        values = list(column.values) or states(connection, table, column.name)
        texts = [str(value) for value in values or () if value != ""]
        if not texts or len(texts) > FEW_STATES:
            continue
        types: dict[str, str] = {}
        for text in texts:
            event = past_event(entity, text)
            if event in types.values() or event == entity:
                break
            types[text] = event
        if len(types) == len(texts):
            evidence.transition = Transition(column=column.name, types=types)
            evidence.because.append(
                f"{column.name} has {len(texts)} values: a change to one of them is an event of its own"
            )
            return


def _soft_delete(dialect: Dialect, column: Column) -> SoftDelete:
    kind = kind_of(dialect, column)
    if kind == "boolean":
        return SoftDelete(column=column.name, when="true")
    return SoftDelete(column=column.name, when="nonzero" if kind == "integer" else "set")


# ---------------------------------------------------------------------------------------- personal data


def _personal(table: Table, column: Column, kind: Kind, found: Sample) -> str | None:
    """Return why a column may hold personal data: its name suggests so, or its sampled values do."""
    foreign = {name for key in table.foreign_keys for name in key.columns}
    if column.name in foreign or column.name in table.key:
        return None
    by_name = None if kind in ("boolean", "interval") else personal_data(column.name, table.label)
    measured = kind in (*TIMES, "time", "float", "decimal", "integer")
    if by_name is not None and (not measured or by_name in MEASURED):
        return f"its name suggests {by_name}"
    texts = [value for value in found.values.get(column.name, []) if isinstance(value, str) and value]
    share = sum(1 for each in texts if EMAIL.fullmatch(each))
    if texts and share * 2 >= len(texts):
        return f"{share} of {len(texts)} sampled values are e-mail addresses"
    return None
