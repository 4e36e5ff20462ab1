"""Values as text for people: payloads, sizes, times, and changes as lines `field  before → after`.

Knows: that a store may hold any text, control characters included. Does not know: tables, stores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import UUID

import msgspec

from eventfold.cli.output import COLUMN_GAP
from eventfold.core.envelope import from_micros
from eventfold.core.event import Recorded
from eventfold.core.event_json import format_datetime, is_json
from eventfold.core.json_values import to_json_value
from eventfold.core.state import ABSENT, Change

if TYPE_CHECKING:
    from rich.text import Text

SIZE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
UNQUOTED_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.:/@#%~")


def escape_control(text: str) -> str:
    """The text with control characters escaped, so that it cannot control the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape_character(c) for c in text)


def _escape_character(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def format_value(value: Any) -> str:
    """Any value in one line: text and numbers unchanged, the fields of an object as pairs, others as JSON."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return escape_control(value) if value else '""'
    if isinstance(value, datetime):
        return format_datetime(value).replace(".000000Z", "Z") if value.utcoffset() is not None else value.isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    plain = to_json_value(value)
    if isinstance(plain, dict) and plain:
        return format_pairs(cast("dict[str, Any]", plain)).plain
    return escape_control(json.dumps(plain, ensure_ascii=False))


def format_payload(recorded: Recorded[Any], *, whole: bool = False) -> Text:
    """A payload in one line, `field=value …`, without fields that are also tags unless `whole`."""
    from rich.text import Text

    stored = recorded.stored
    if stored.codec != "json" or stored.key is not None or not is_json(stored.data):
        return Text(f"{len(stored.data):,} bytes of {escape_control(stored.codec)}", style="dim")
    data = msgspec.json.decode(stored.data)
    if not isinstance(data, dict):
        return Text(format_value(data))
    tagged = {tag.partition(":")[2] for tag in recorded.tags}
    fields = cast("dict[str, Any]", data)
    return format_pairs({k: v for k, v in fields.items() if whole or not (isinstance(v, str) and v in tagged)})


def format_pairs(pairs: Mapping[str, Any]) -> Text:
    """Pairs as `name=value` in one line; text with spaces is quoted."""
    from rich.text import Text

    shown = Text()
    for name, value in pairs.items():
        if shown:
            shown.append("  ")
        shown.append(f"{escape_control(name)}=", style="dim")
        shown.append(_format_pair_value(value))
    return shown


def _format_pair_value(value: Any) -> str:
    if isinstance(value, str) and set(value) <= UNQUOTED_CHARACTERS:
        return format_value(value)
    return escape_control(json.dumps(value, ensure_ascii=False))


def format_size(size: int) -> str:
    """A number of bytes with a unit: 1.4 MiB."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(SIZE_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{size:,} bytes" if not unit else f"{amount:,.1f} {SIZE_UNITS[unit]}"


def format_time_of_day(micros: int) -> str:
    """The time of day of µs since 1970, in UTC: 10:15:00."""
    return from_micros(micros).strftime("%H:%M:%S")


def format_date(micros: int) -> str:
    """The date of µs since 1970, in UTC."""
    return from_micros(micros).date().isoformat()


def format_minute(micros: int) -> str:
    """Date and time of day of µs since 1970, in UTC, to the minute."""
    return from_micros(micros).strftime("%Y-%m-%d %H:%M")


def format_second(micros: int) -> str:
    """Date and time of day of µs since 1970, in UTC, to the second."""
    return from_micros(micros).strftime("%Y-%m-%d %H:%M:%S")


MAX_NAME_WIDTH = 32  # cells for the name of a field, unless output is wide


class ChangeLine(NamedTuple):
    """A line of output: its depth, the name of a field, its change as text."""

    depth: int
    name: str
    text: str


def change_to_json(change: Change) -> dict[str, Any]:
    """A change in JSON: `before` and `after`, without the one that was absent."""
    pairs = (("before", change.before), ("after", change.after))
    return {name: to_json_value(value) for name, value in pairs if value is not ABSENT}


def change_lines(changes: Mapping[str, Change]) -> Iterator[ChangeLine]:
    """Changes as lines, in their order; a changed object gets a line for each of its fields."""
    for name, change in changes.items():
        inner = _changed_fields(change)
        if inner is None:
            yield ChangeLine(0, escape_control(name), format_change(change))
        else:
            yield ChangeLine(0, escape_control(name), "")
            for key, each in inner.items():
                yield ChangeLine(1, escape_control(key), format_change(each))


def _changed_fields(change: Change) -> dict[str, Change] | None:
    """The changed fields of an object; None for other values, and for a removed object."""
    before, after = (None if value is ABSENT else to_json_value(value) for value in change)
    if not isinstance(after, dict) or not after or not (change.before is ABSENT or isinstance(before, dict)):
        return None
    old, new = cast("dict[str, Any]", before or {}), cast("dict[str, Any]", after)
    pairs = {key: Change(old.get(key, ABSENT), new.get(key, ABSENT)) for key in dict.fromkeys([*old, *new])}
    return {key: pair for key, pair in pairs.items() if pair.before != pair.after}


def format_change(change: Change) -> str:
    """A change as text: before → after."""
    if change.before is ABSENT:
        return format_value(change.after)
    after = "(removed)" if change.after is ABSENT else format_value(change.after)
    return f"{format_value(change.before)} → {after}"


def name_width(lines: list[ChangeLine], wide: bool) -> int:
    """The width of the column of names."""
    longest = max((len(line.name) + 2 * line.depth for line in lines if line.text), default=0)
    return longest if wide else min(longest, MAX_NAME_WIDTH)


def render_change_lines(lines: list[ChangeLine], indent: int, width: int) -> Iterator[Text]:
    """The lines as text; names are truncated at `width` cells where a value follows."""
    from rich.text import Text

    for line in lines:
        name = Text(line.name)
        if line.text:
            name.truncate(width - 2 * line.depth, overflow="ellipsis", pad=True)
        yield Text(" " * (indent + 2 * line.depth)) + name + " " * COLUMN_GAP + line.text
