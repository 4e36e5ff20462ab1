"""Room: values as people read them on a terminal: payloads, sizes, times.

Knows: that what a store holds may be anything, control characters included. Does not know: tables, stores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec

from eventfold.cli.lines import is_json, moment_text
from eventfold.core.envelope import from_micros
from eventfold.core.event import Recorded

if TYPE_CHECKING:
    from rich.text import Text

SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.:/@#%~")


def printable(text: str) -> str:
    """The text with every control character written out, so that it cannot drive a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def value_text(value: Any) -> str:
    """Any value in one line: text and numbers as they are, the fields of an object as pairs, the rest as JSON."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return printable(value) if value else '""'
    if isinstance(value, datetime):
        return moment_text(value).replace(".000000Z", "Z") if value.utcoffset() is not None else value.isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    plain = builtin(value)
    if isinstance(plain, dict) and plain:
        return pairs_text(cast("dict[str, Any]", plain)).plain
    return printable(json.dumps(plain, ensure_ascii=False))


def builtin(value: Any) -> Any:
    """A value as JSON can hold it; what has no JSON form as its repr."""
    try:
        return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)
    except (TypeError, ValueError, RecursionError):
        if isinstance(value, Mapping):
            pairs = cast("Mapping[Any, Any]", value).items()
            return {each if isinstance(each, str) else repr(each): builtin(item) for each, item in pairs}
        return repr(value)


def data_text(recorded: Recorded[Any], *, whole: bool = False) -> Text:
    """A payload in one line, `field=value …`; fields that its tags tell already are left out, unless it is `whole`."""
    from rich.text import Text

    stored = recorded.stored
    if stored.codec != "json" or stored.key is not None or not is_json(stored.data):
        return Text(f"{len(stored.data):,} bytes of {printable(stored.codec)}", style="dim")
    data = msgspec.json.decode(stored.data)
    if not isinstance(data, dict):
        return Text(value_text(data))
    tagged = {tag.partition(":")[2] for tag in recorded.tags}
    fields = cast("dict[str, Any]", data)
    return pairs_text({k: v for k, v in fields.items() if whole or not (isinstance(v, str) and v in tagged)})


def pairs_text(pairs: Mapping[str, Any]) -> Text:
    """`name=value` for each, in one line; text with spaces in quotes."""
    from rich.text import Text

    shown = Text()
    for name, value in pairs.items():
        if shown:
            shown.append("  ")
        shown.append(f"{printable(name)}=", style="dim")
        shown.append(_word(value))
    return shown


def _word(value: Any) -> str:
    if isinstance(value, str) and set(value) <= PLAIN:
        return value_text(value)
    return printable(json.dumps(value, ensure_ascii=False))


def size_text(size: int) -> str:
    """A number of bytes as people say it: 1.4 MiB."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{size:,} bytes" if not unit else f"{amount:,.1f} {SIZES[unit]}"


def clock_text(micros: int) -> str:
    """The time of day of µs since 1970, in UTC: 10:15:00."""
    return from_micros(micros).strftime("%H:%M:%S")


def date_text(micros: int) -> str:
    """The date of µs since 1970, in UTC."""
    return from_micros(micros).date().isoformat()


def minute_text(micros: int) -> str:
    """Date and time of day of µs since 1970, in UTC, to the minute."""
    return from_micros(micros).strftime("%Y-%m-%d %H:%M")


def second_text(micros: int) -> str:
    """Date and time of day of µs since 1970, in UTC, to the second."""
    return from_micros(micros).strftime("%Y-%m-%d %H:%M:%S")


def counted(number: int, what: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
