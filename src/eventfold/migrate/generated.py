"""events.py: typed event classes for the tables of a mapping, as Python code for people to edit.

Knows: mappings, schemas, how an event class is written. Does not know: files, rows.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from eventfold.migrate.kinds import annotation_of, kind_of
from eventfold.migrate.mapping import Mapping, TableMapping
from eventfold.migrate.mapping_text import digest
from eventfold.migrate.names import class_name, words_of
from eventfold.migrate.reflection import Column, Schema, Table

HEAD = '''\
"""The events of {source}, as eventfold migrate inspect proposes them. Edit it: what you change is kept.

An event of a type …Imported is a row as it was when it was loaded: what happened before is not known. An event of a
change has the key, and the columns that changed; the others are UNSET, which is not None.
"""

from __future__ import annotations

{imports}
{aliases}

'''
NUMBER = '\nNumber = float | Literal["NaN", "Infinity", "-Infinity"]  # JSON has neither NaN nor infinities\n'
OPTIONAL = " | UnsetType = UNSET"


def events_text(mapping: Mapping, schema: Schema) -> str:
    """Return the file: for each migrated table a class for each of its event types."""
    labels = {table.label for table in schema.tables}
    blocks = [
        _TableClasses(mapping, schema.table(label), own).text()
        for label, own in mapping.migrated.items()
        if label in labels
    ]
    code = "\n\n\n".join(blocks)
    aliases = NUMBER if "Number" in code else ""
    body = HEAD.format(source=mapping.source, imports=_imports(code + aliases), aliases=aliases) + code + "\n"
    return f"# written by eventfold, digest {digest(body)}\n{body}"


def _imports(code: str) -> str:
    standard: list[str] = []
    moments = [name for name in ("date", "datetime", "time") if re.search(rf"[:\[] ?{name}\b", code)]
    if moments:
        standard.append(f"from datetime import {', '.join(moments)}")
    if "Decimal" in code:
        standard.append("from decimal import Decimal")
    typing = [name for name in ("Annotated", "Any", "Literal") if re.search(rf"\b{name}\b", code)]
    if typing:
        standard.append(f"from typing import {', '.join(typing)}")
    if "UUID" in code:
        standard.append("from uuid import UUID")
    unset = ["from msgspec import UNSET, UnsetType", ""] if "UNSET" in code else []
    return "\n".join([*standard, *([""] if standard else []), *unset, "import eventfold as ef"])


class _TableClasses:
    """The classes of one table's events."""

    def __init__(self, mapping: Mapping, table: Table, own: TableMapping) -> None:
        self._mapping, self._table, self._own = mapping, table, own
        self._tags = _tags(mapping, own)
        self._columns = [each for each in table.columns if each.name in own.carried]

    def text(self) -> str:
        """Return the code: openings have every column, changes the key and what changed, removals the key."""
        own, label = self._own, self._table.label
        key = [each for each in self._columns if each.name in own.key]
        rest = [each for each in self._columns if each.name not in own.key]
        soft = [each for each in rest if own.soft_delete and each.name == own.soft_delete.column]
        blocks = [self._class(own.created, f"A row of {label} was made, as a history proves.", key, rest)]
        blocks += [self._class(own.opening, f"A row of {label} as it was when it was loaded.", self._columns)]
        for name, values in self._transitions().items():
            said = f"The column {own.transition.column if own.transition else ''} of a row of {label} became {values}."
            blocks.append(self._class(name, said, key, rest))
        for column, name in own.dates.items():
            if name in self._transitions():
                continue
            dated = [each for each in rest if each.name == column]
            blocks.append(self._class(name, f"What the column {column} of {label} is the time of.", key, dated))
        blocks.append(self._class(own.changed, f"A row of {label} was changed.", key, rest))
        blocks.append(self._class(own.removed, f"A row of {label} was deleted.", key, soft))
        return "\n\n\n".join(filter(None, blocks))

    def _transitions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for value, name in (self._own.transition.types if self._own.transition else {}).items():
            found[name] = f"{found[name]} or {value!r}" if name in found else repr(value)
        return found

    def _class(self, name: str, said: str, required: Iterable[Column], optional: Iterable[Column] = ()) -> str:
        if not name:
            return ""
        identifier = name if name.isidentifier() and not keyword.iskeyword(name) else class_name(words_of(name))
        typed = "" if identifier == name else f', type="{name}"'
        lines = [f"class {identifier}(ef.Event{typed}, kw_only=True):", f'    """{_docstring(said)}"""', ""]
        lines += [f"    {self._own.field(each.name)}: {self._annotation(each, tagged=True)}" for each in required]
        lines += [f"    {self._own.field(each.name)}: {self._annotation(each)}{OPTIONAL}" for each in optional]
        return "\n".join(lines)

    def _annotation(self, column: Column, tagged: bool = False) -> str:
        own, dialect = self._own, self._mapping.dialect
        kind = own.detail(column.name).kind or kind_of(dialect, column)
        annotation = "str" if column.name in own.hide else annotation_of(dialect, column, kind)
        if column.is_nullable and column.name not in own.key and annotation != "Any":
            annotation += " | None"
        tag = self._tags.get(column.name) if tagged else None
        return annotation if tag is None else f'Annotated[{annotation}, ef.tag("{tag}")]'


def _docstring(text: str) -> str:
    return "".join(c if c.isprintable() and c not in '"\\' else "?" for c in text)


def _tags(mapping: Mapping, own: TableMapping) -> dict[str, str]:
    """Return the columns that alone are the value of a tag: a key or a reference of one column."""
    found: dict[str, str] = {}
    for each in own.references:
        other = mapping.tables.get(each.table)
        if len(each.columns) == 1 and not each.to and each.columns[0] in own.keep and other and other.is_migrated:
            found[each.columns[0]] = other.tag
    if len(own.key) == 1 and own.key[0] in own.carried:
        found[own.key[0]] = own.tag
    return found
