"""One event as the conditions of a filter look at it: its payload and metadata are decoded when they are first asked.

Knows: the envelope, JSON, paths. Does not know: conditions, queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import InvalidOperation
from typing import Any, cast

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import is_nested_deeper
from eventfold.core.tags import in_utc
from eventfold.search.values import Number

Step = str | int | None  # the name of a field, the number of an element, or None: every element
_STEP = re.compile(r"(?P<name>[^.\[\]]+)(?P<elements>(?:\[[0-9]*\])*)")
_ELEMENT = re.compile(r"\[([0-9]{0,9})\]")


class Undecodable:
    """What a payload is that cannot be looked into: it is encrypted, or it is no JSON."""


UNDECODABLE = Undecodable()


def _number(text: str) -> Any:
    try:
        number = Number(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        return text
    number.text = text
    return number


_decode = msgspec.json.Decoder(float_hook=_number).decode


def decode_json(data: bytes) -> Any:
    """JSON as Python values, with exact numbers; UNDECODABLE if it is none, or nested too deeply."""
    if is_nested_deeper(data):
        return UNDECODABLE
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return UNDECODABLE


class Subject:
    """An event, and what was decoded of it."""

    __slots__ = ("_data", "_metadata", "_tags", "_utc_tags", "stored", "was_undecodable")

    def __init__(self, stored: StoredEvent) -> None:
        self.stored = stored
        self.was_undecodable = False  # a condition asked for a payload that cannot be looked into
        self._data: Any = _UNSET
        self._metadata: Any = _UNSET
        self._tags: Sequence[str] | None = None
        self._utc_tags: Sequence[str] | None = None

    @property
    def tags(self) -> Sequence[str]:
        """Its tags as they were written."""
        if self._tags is None:
            self._tags = self.stored.tag_set
        return self._tags

    @property
    def utc_tags(self) -> Sequence[str]:
        """Its tags, with moments in UTC."""
        if self._utc_tags is None:
            self._utc_tags = tuple(map(in_utc, self.tags))
        return self._utc_tags

    @property
    def is_undecodable(self) -> bool:
        """Whether its payload cannot be looked into."""
        return self.data is UNDECODABLE

    @property
    def data(self) -> Any:
        """Its payload."""
        if self._data is _UNSET:
            stored = self.stored
            is_open = stored.codec == "json" and stored.key is None
            self._data = decode_json(stored.data) if is_open else UNDECODABLE
        if self._data is UNDECODABLE:
            self.was_undecodable = True
        return self._data

    @property
    def metadata(self) -> Any:
        """Its metadata; an empty object if it has none."""
        if self._metadata is _UNSET:
            self._metadata = decode_json(self.stored.metadata) if self.stored.metadata else {}
        return self._metadata


_UNSET = object()


def parse_path(text: str) -> tuple[Step, ...] | None:
    """The steps of a path such as `items[].sku`, `lines[0].price`; None if the text is no path."""
    steps: list[Step] = []
    at = 0
    while found := _STEP.match(text, at):
        steps.append(found["name"])
        steps += [int(number) if number else None for number in _ELEMENT.findall(found["elements"])]
        at = found.end()
        if at == len(text):
            return tuple(steps)
        if text[at] != ".":
            return None
        at += 1
    return None


def values_at(value: Any, path: Sequence[Step]) -> Iterator[Any]:
    """The values at a path: those of every element where it meets an array; texts, numbers, booleans and null only."""
    if len(path) == 1 and isinstance(value, dict):  # most paths: looked up at once
        of_name = cast("dict[Step, Any]", value)
        if path[0] not in of_name:
            return
        reached = [of_name[path[0]]]
    else:
        reached = _found_at(value, path)
    for found in reached:
        if isinstance(found, list):
            yield from (each for each in _elements(cast("list[Any]", found)) if not isinstance(each, dict))
        elif not isinstance(found, dict):
            yield found


def has_value(value: Any, path: Sequence[Step]) -> bool:
    """Whether there is a value at a path that is not null: also an object, or an empty array."""
    return any(found is not None for found in _found_at(value, path))


def _found_at(value: Any, path: Sequence[Step]) -> list[Any]:
    found = [value]
    for step in path:
        reached: list[Any] = []
        for each in found:
            if isinstance(step, str):
                parts = _elements(cast("list[Any]", each)) if isinstance(each, list) else (each,)
                objects = (cast("dict[str, Any]", part) for part in parts if isinstance(part, dict))
                reached += [part[step] for part in objects if step in part]
            elif isinstance(each, list):
                elements = cast("list[Any]", each)
                reached += elements if step is None else elements[step : step + 1]
        found = reached
        if not found:
            break
    return [each for each in found if not isinstance(each, Undecodable)]


def _elements(values: list[Any]) -> Iterator[Any]:
    """The elements of an array, and those of arrays in it."""
    for value in values:
        if isinstance(value, list):
            yield from _elements(cast("list[Any]", value))
        else:
            yield value


def leaves(value: Any) -> Iterator[Any]:
    """Every text, number, boolean and name of a field in a JSON value."""
    if isinstance(value, dict):
        for name, part in cast("dict[str, Any]", value).items():
            yield name
            yield from leaves(part)
    elif isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from leaves(part)
    else:
        yield value
