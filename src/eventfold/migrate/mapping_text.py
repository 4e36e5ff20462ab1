"""migration.toml as text for people to edit: a table for each table of the source, with the evidence for each guess.

Knows: the file's terms, TOML. Does not know: how a guess is made.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from eventfold.migrate.mapping import Mapping, TableMapping

WIDTH = 110  # of a line; longer lists have a line for each value
HEAD = """\
# How the tables of the source become events. Edit it: a later run of inspect shows what differs, and changes nothing.
#
# is:         entity, part (of another), join, reference, history, ignored; undecided stops the load
# because:    the evidence for the guess
# keep, hide, drop: what is done with each column; hide replaces it by a keyed hash; undecided stops the load
# no_fact:    columns whose change alone is no event
"""
DIGEST = re.compile(r"^# written by eventfold, digest ([0-9a-f]{16})\n", re.MULTILINE)


def mapping_text(mapping: Mapping) -> str:
    """Return the file."""
    lines = [HEAD]
    lines += [
        f"format = {mapping.format}",
        f"source = {_text(mapping.source)}",
        f"dialect = {_text(mapping.dialect)}",
        f"fingerprint = {_text(mapping.fingerprint)}",
    ]
    if mapping.hide_key:
        lines.append(f"hide_key = {_text(mapping.hide_key)}")
    for label, table in mapping.tables.items():
        lines += ["", f"[tables.{_key(label)}]"]
        lines += _table(table)
        lines += _columns(label, table)
    body = "\n".join(lines) + "\n"
    return f"# written by eventfold, digest {digest(body)}\n{body}"


def digest(body: str) -> str:
    """Return a digest of a file without its first line."""
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def is_edited(text: str) -> bool:
    """Whether a file differs from what eventfold wrote: its digest does not fit."""
    found = DIGEST.match(text)
    return found is None or digest(text[found.end() :]) != found[1]


def _table(table: TableMapping) -> list[str]:
    lines = [f'is = "{table.role}"']
    for name, value in msgspec.to_builtins(table).items():
        if name in ("is", "columns") or value in ("", (), [], {}, None):
            continue
        lines += _entry(name, value)
    return lines


def _columns(label: str, table: TableMapping) -> list[str]:
    lines: list[str] = []
    for column, detail in table.columns.items():
        lines += ["", f"[tables.{_key(label)}.columns.{_key(column)}]"]
        for name, value in msgspec.to_builtins(detail).items():
            lines += _entry(name, value)
    return lines


def _entry(name: str, value: Any) -> list[str]:
    short = f"{name} = {_value(value)}"
    if len(short) <= WIDTH or not isinstance(value, (list, tuple)):
        return [short]
    values = cast("Sequence[Any]", value)
    if all(isinstance(each, str) and len(each) < 40 for each in values):
        return _wrapped(name, [_text(str(each)) for each in values])
    return [f"{name} = [", *(f"    {_value(each)}," for each in values), "]"]


def _wrapped(name: str, texts: list[str]) -> list[str]:
    lines, line = [f"{name} = ["], "   "
    for text in texts:
        if len(line) + len(text) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return [*lines, line, "]"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return "{ " + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in pairs) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, cast("Sequence[Any]", value))) + "]"
    return str(value) if isinstance(value, int) else _text(str(value))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    """Return a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
