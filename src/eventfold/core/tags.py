"""Tags: which texts are valid, which fields of an event class are tags, and how their values are written as text.

One moment has many spellings, `12:00+02:00` and `10:00+00:00`: new tags have it in UTC, and tags of older events are
compared as moments. Text, integers, UUIDs, dates and enums have one spelling each.
Knows: type hints, values, ISO 8601. Does not know: events, queries.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin
from uuid import UUID

import msgspec

from eventfold.errors import InvalidEvent, InvalidInput

MAX_NAME_BYTES = 255  # a tag, a type name, a request key


def check_name(kind: str, name: str, *, reserved: bool = False, error: type[InvalidInput] = InvalidEvent) -> str:
    """Return a tag, type name or request key if every engine can store it: 1 to 255 bytes, printable, not `$…`.

    `reserved` allows names that start with `$`. Raises `error`, which names the reason.
    """
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME_BYTES and name.isascii() and name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance]
        if reserved or name[0] != "$":
            return name  # most names, without encoding them
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise error(f"The {kind} {name!r} is not text.", f"Use 1 to {MAX_NAME_BYTES} bytes of printable text.")
    if not name or not name.isprintable() or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        what = "is empty" if not name else "has a control character" if not name.isprintable() else "is too long"
        raise error(
            f"The {kind} {name[:80]!r} {what}.",
            f"Use 1 to {MAX_NAME_BYTES} bytes of printable text.",
            name=name[:300],
        )
    if not reserved and name[0] == "$":
        raise error(
            f"The {kind} {name!r} starts with '$', which is reserved for eventfold.",
            "Choose a name that starts with another character.",
            name=name,
        )
    return name


class TagField(msgspec.Struct, frozen=True):
    """The mark that makes a field a tag. `key` is the tag's key; None means the name of the field."""

    key: str | None = None


def tag(key: str | None = None) -> TagField:
    """Mark a field as a tag with another key than its name: ``Annotated[str, ef.tag("account")]``.

    Raises InvalidEvent on an invalid key.
    """
    if key is not None:
        check_name("tag key", key)
    return TagField(key)


if TYPE_CHECKING:
    from typing_extensions import TypeVar as _DefaultTypeVar

    _V = _DefaultTypeVar("_V", default=str)
else:
    _V = TypeVar("_V", bound=str)
Tag = Annotated[_V, TagField()]


def tag_fields(hints: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a class that are tags, as field -> tag key, from its type hints (with extras)."""
    found: dict[str, str] = {}
    for field, hint in hints.items():
        mark = _tag_mark(hint)
        if mark is not None:
            found[field] = mark.key or field
    return found


def fields_by_tag(cls: type) -> dict[str, list[str]]:
    """Return the fields of an event class by tag key. Raises NameError if a hint cannot be resolved."""
    found: dict[str, list[str]] = {}
    for field, key in tag_fields(typing.get_type_hints(cls, include_extras=True)).items():
        found.setdefault(key, []).append(field)
    return found


def _tag_mark(hint: Any) -> TagField | None:
    origin = get_origin(hint)
    if origin is Annotated:
        for extra in hint.__metadata__:
            if isinstance(extra, TagField):
                return extra
        return _tag_mark(hint.__origin__)
    if origin in (Union, types.UnionType):
        return next((m for arg in get_args(hint) if (m := _tag_mark(arg)) is not None), None)
    return None


def tag_values(value: Any) -> Iterator[str]:
    """Iterate over the texts after `key:` for a tag field's value: none for None, several for a collection.

    An empty text is a value as any other: logs have such tags.
    """
    if isinstance(value, str) and not isinstance(value, Enum):
        yield value
    elif value is None:
        return
    elif isinstance(value, (tuple, list, set, frozenset)):
        for each in value:  # pyright: ignore[reportUnknownVariableType]
            yield from tag_values(each)
    elif isinstance(value, Enum):  # by its value: its name, or `K.A`, would change with the code
        yield from tag_values(value.value)
    elif isinstance(value, (int, UUID)) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, datetime):
        yield moment_text(value)
    elif isinstance(value, date):
        yield value.isoformat()
    else:
        raise InvalidEvent(
            f"{value!r} cannot be a tag.", "Tags are text, integers, UUIDs, dates or enums, or collections of these."
        )


def tag_key(tag: str) -> str:
    """Return the key of a tag, with its colon: "account:" of "account:a-1". A tag without a colon is its own key."""
    key, colon, _ = tag.partition(":")
    return key + colon


def next_key(key: str) -> str:
    """Return a text, in code point order greater than every tag of a key, and not than any of the next; "" for ""."""
    return key[:-1] + ";" if key.endswith(":") else key and key + "\1"


_MOMENT = re.compile(
    r"([^:]+:)(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))", re.ASCII
)


def moment_text(value: datetime) -> str:
    """Return a datetime as the value of a tag: in UTC, or unchanged if it has no time zone and so names no moment."""
    if value.utcoffset() is None:
        return value.isoformat()
    try:
        return value.astimezone(UTC).isoformat()
    except OverflowError:  # within a day of the first or last possible datetime
        return value.isoformat()


def is_moment(tag: str) -> bool:
    """Whether the value of a tag is a moment, in any time zone."""
    return "T" in tag and _in_utc(tag) is not None


def in_utc(tag: str) -> str:
    """Return a tag with its moment in UTC; a tag of another kind unchanged."""
    return (_in_utc(tag) or tag) if "T" in tag else tag


def same_tags(some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether the tags of two events are the same, in any spelling of their moments."""
    return set(map(in_utc, some)) == set(map(in_utc, others))


@lru_cache(8_192)
def _in_utc(tag: str) -> str | None:
    found = _MOMENT.fullmatch(tag)
    if found is None:
        return None
    try:
        return found[1] + moment_text(datetime.fromisoformat(found[2]))
    except ValueError:  # the 30th of February
        return None
