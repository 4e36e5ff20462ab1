"""The mapping of tables to events: what migration.toml says, as plain data; read, checked, completed.

Knows: the file's terms. Does not know: databases, how a guess is made (evidence.py), how the file is written.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from eventfold.errors import InvalidInput, MappingIncomplete
from eventfold.migrate.connection import Dialect
from eventfold.migrate.kinds import Kind
from eventfold.migrate.names import field_name
from eventfold.migrate.reflection import Schema, Table

FORMAT = 1
FILE_NAME = "migration.toml"
MAX_KEY_BYTES = 160  # of a key as text; a longer one is replaced by a digest, since a tag has at most 255 bytes
MAX_NAMED = 20  # of what is missing, in a message
Role = Literal["entity", "part", "join", "reference", "history", "ignored", "undecided"]
Unit = Literal["text", "s", "ms", "us", "roundup"]
Treatment = Literal["keep", "hide", "drop", "undecided"]


class Moment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A column that says when something occurred. `zone`: of times without one. `unit`: of whole numbers."""

    column: str
    zone: str = "UTC"
    unit: Unit = "text"


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Columns that hold the key of a row of another table; an event of this row has that row's tag as well.

    A generic foreign key has `type_column`, and `types`: its values, and the label of the table that each stands for.
    """

    columns: tuple[str, ...]
    table: str = ""
    to: tuple[str, ...] = ()  # the columns that are referred to; its key, if empty
    type_column: str | None = None
    types: dict[str, str] = {}


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A column of few values, such as a status: a change to a value is an event of a type of its own."""

    column: str
    types: dict[str, str]


class SoftDelete(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A column that marks a row as deleted: `when` it is "set", "nonzero", or has this value ("0", "1", "true", …)."""

    column: str
    when: str = "set"


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A history table: of which package, and of which table it tells the past."""

    package: str
    of: str = ""


class ColumnDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is particular about a column: its kind if it differs from that of its type, the form of its times in SQLite.

    `name`: the field's name in events. `domain`: hidden columns of one domain have the same hash for the same value.
    """

    kind: Kind | None = None
    form: str | None = None
    name: str | None = None
    domain: str | None = None
    because: str | None = None


class TableMapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a table is, and which events its rows become.

    Each of its columns is in exactly one of `keep`, `hide`, `drop` and `undecided`. `no_fact`: kept columns whose
    change alone is no event, such as updated_at. `dates`: columns that say when something occurred, and the event type
    for it, such as shipped_at = "OrderShipped".
    """

    role: Role = msgspec.field(name="is", default="undecided")
    because: tuple[str, ...] = ()
    name: str = ""  # of the entity, as a class: Order
    tag: str = ""  # the key of its tag: order
    key: tuple[str, ...] = ()
    of: str = ""  # of a part: the label of the table that it belongs to
    references: tuple[Reference, ...] = ()
    created: str = ""  # of a row whose birth a history proves
    opening: str = ""
    changed: str = ""
    removed: str = ""
    occurred: Moment | None = None
    dates: dict[str, str] = {}
    transition: Transition | None = None
    soft_delete: SoftDelete | None = None
    history: History | None = None
    keep: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    no_fact: tuple[str, ...] = ()
    columns: dict[str, ColumnDetail] = {}

    @property
    def is_migrated(self) -> bool:
        """Whether rows of this table become events."""
        return self.role in ("entity", "part", "join", "reference")

    @property
    def carried(self) -> tuple[str, ...]:
        """The columns whose values, or hashes of them, are in events."""
        return (*self.keep, *self.hide)

    def field(self, column: str) -> str:
        """Return the name of the field that holds a column."""
        detail = self.columns.get(column)
        return (detail.name if detail else None) or field_name(column)

    def detail(self, column: str) -> ColumnDetail:
        """Return what is particular about a column."""
        return self.columns.get(column) or ColumnDetail()

    def treatment(self, column: str) -> Treatment | None:
        """Return what is done with a column; None if nothing says so."""
        places: tuple[tuple[Treatment, tuple[str, ...]], ...] = (
            ("keep", self.keep), ("hide", self.hide), ("drop", self.drop), ("undecided", self.undecided),
        )  # fmt: skip
        return next((name for name, columns in places if column in columns), None)


class Mapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The content of migration.toml."""

    format: int = FORMAT
    source: str = ""  # the address, without a password
    dialect: Dialect = "sqlite"
    fingerprint: str = ""  # of the schema that was inspected
    hide_key: str = ""  # where the key of hidden columns is: "env:NAME" or "file:PATH"
    tables: dict[str, TableMapping] = {}

    def table(self, label: str) -> TableMapping:
        """Return the mapping of a table. Raises MappingIncomplete."""
        found = self.tables.get(label)
        if found is None:
            raise _incomplete([f"the table {label}"])
        return found

    @property
    def migrated(self) -> dict[str, TableMapping]:
        """The tables whose rows become events."""
        return {label: each for label, each in self.tables.items() if each.is_migrated}


def read_mapping(path: Path) -> Mapping:
    """Read migration.toml. Raises InvalidInput, which names the place."""
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist.", "Run eventfold migrate inspect first.", path=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}.", "Correct it.", path=str(path)) from error
    return parse_mapping(content, str(path))


def parse_mapping(content: dict[str, Any], where: str = FILE_NAME) -> Mapping:
    """Return the mapping that parsed TOML describes. Raises InvalidInput, which names the place."""
    try:
        found = msgspec.convert(content, Mapping)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{where} is not valid: {error}.", "Correct it; the reference lists its names.") from None
    if found.format != FORMAT:
        raise InvalidInput(
            f"{where} has the format {found.format}, and this eventfold knows {FORMAT}.", "Install a newer eventfold."
        )
    return found


def missing(mapping: Mapping, schema: Schema) -> list[str]:
    """Return what is not mapped or not decided, each by its name, in the order of the source's tables."""
    found: list[str] = []
    for table in schema.tables:
        own = mapping.tables.get(table.label)
        if own is None or own.role == "undecided":
            found.append(f"the table {table.label}")
        elif own.is_migrated:
            found += [f"the column {table.label}.{name}" for name in _open_columns(own, table)]
    return found


def _open_columns(own: TableMapping, table: Table) -> Iterator[str]:
    for column in table.columns:
        if own.treatment(column.name) in (None, "undecided") and not column.is_generated:
            yield column.name


def contradictions(mapping: Mapping, schema: Schema) -> list[str]:
    """Return what the mapping says that cannot be: a name that the source does not have, a column in two lists."""
    by_label = {table.label: table for table in schema.tables}
    found: list[str] = []
    for label, own in mapping.migrated.items():
        table = by_label.get(label)
        if table is None:
            found.append(f"{label} is no table of the source")
            continue
        names = {column.name for column in table.columns}
        listed = [*own.keep, *own.hide, *own.drop, *own.undecided]
        found += [f"{label}.{name} is in two lists" for name in sorted({n for n in listed if listed.count(n) > 1})]
        found += [f"{label} has no column {name}" for name in sorted(_named_columns(own) - names)]
        if not own.key:
            found.append(f"{label} has no key: name the columns that identify a row")
        found += [f"{label}.{name} is part of the key, and is dropped" for name in own.key if name in own.drop]
        for column in (
            own.occurred.column if own.occurred else None,
            own.transition.column if own.transition else None,
        ):
            if column is not None and column not in own.keep:
                found.append(f"{label}.{column} is used, and is not kept")
        found += [
            f"{label} is a part of {own.of}, which is not migrated"
            for _ in "."
            if own.of and own.of not in mapping.migrated
        ]
        found += [f"{label} has no {what}" for what, text in (("opening", own.opening), ("tag", own.tag)) if not text]
    types = [each.opening for each in mapping.migrated.values() if each.opening]
    found += [f"two tables have the opening {name}" for name in sorted({n for n in types if types.count(n) > 1})]
    return found


def _named_columns(own: TableMapping) -> set[str]:
    used = {*own.keep, *own.hide, *own.drop, *own.undecided, *own.key, *own.no_fact, *own.dates, *own.columns}
    used |= {name for each in own.references for name in (*each.columns, *filter(None, [each.type_column]))}
    used |= {each.column for each in (own.occurred, own.transition, own.soft_delete) if each is not None}
    return used


def require_complete(mapping: Mapping, schema: Schema) -> None:
    """Raise MappingIncomplete or InvalidInput unless every table and column is decided, and what is said can be."""
    if wrong := contradictions(mapping, schema):
        raise InvalidInput(f"{FILE_NAME} cannot be used: {'; '.join(wrong[:MAX_NAMED])}.", "Correct it.", wrong=wrong)
    if open_ := missing(mapping, schema):
        raise _incomplete(open_)


def _incomplete(names: Sequence[str]) -> MappingIncomplete:
    shown = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
    return MappingIncomplete(
        f"{FILE_NAME} does not decide {shown}.",
        "Write what each table is, and put each column into keep, hide or drop; eventfold migrate inspect shows them.",
        missing=list(names),
    )


def key_text(values: Iterable[Any]) -> str:
    """Return a key as the text after the colon of a tag: its values as JSON gives them, joined by "/".

    In a key of several columns "%" and "/" within a value are written as in URLs. A key that is too long for a tag, or
    has characters that a tag may not have, is replaced by a digest of it.
    """
    parts = [_part(each) for each in values]
    if len(parts) == 1 and len(parts[0]) <= MAX_KEY_BYTES and parts[0].isascii() and parts[0].isalnum():
        return parts[0]
    text = parts[0] if len(parts) == 1 else "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES or not text.isprintable() or text != text.strip():
        return "sha256-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text


def _part(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
