"""What a filter over events means, evaluated directly and slowly: clause by clause, over every event.

Shares only the grammar with eventfold.search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

from eventfold.core.envelope import StoredEvent
from eventfold.search.grammar import Clause, Group, Node, Not, Value, Word

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")
METADATA = {"actor": "actor", "correlation": "correlation_id", "cause": "causation_id"}


@dataclass
class Facts:
    """One event as plain values."""

    stored: StoredEvent
    data: Any = None
    is_open: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: StoredEvent) -> Facts:
        """Decode an event."""
        try:
            data = json.loads(stored.data, parse_float=Decimal) if stored.codec == "json" and not stored.key else None
            is_open = stored.codec == "json" and not stored.key
        except ValueError:
            data, is_open = None, False
        return cls(stored, data, is_open, json.loads(stored.metadata) if stored.metadata else {})


def is_match(node: Node, event: Facts) -> bool:
    """Whether an event satisfies a tree."""
    match node:
        case Not():
            return not is_match(node.part, event)
        case Group():
            return (all if node.operator == "and" else any)(is_match(part, event) for part in node.parts)
        case Word():
            return word(node, event)
        case Clause():
            return clause(node, event)


def word(node: Word, event: Facts) -> bool:
    """A word is a position, or a part of a text of the payload."""
    if not node.quoted and node.text.isdigit():
        return event.stored.position == int(node.text)
    return any(node.text.casefold() in text(each).casefold() for each in parts(event.data)) if event.is_open else False


def parts(value: Any) -> Iterator[Any]:
    """Every name and value in a JSON value."""
    if isinstance(value, dict):
        for name, each in cast("dict[str, Any]", value).items():
            yield name
            yield from parts(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from parts(each)
    else:
        yield value


def text(value: Any) -> str:
    """A value as JSON writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def clause(node: Clause, event: Facts) -> bool:
    """Whether an event satisfies a clause."""
    stored = event.stored
    root, dot, path = node.key.partition(".")
    if node.key in METADATA:
        root, dot, path = "meta", ".", METADATA[node.key]
    if dot and root in ("data", "meta"):
        values = (
            list(at_path(event.metadata if root == "meta" else event.data, path))
            if root == "meta" or event.is_open
            else []
        )
        return compared(node, [each for each in values if not isinstance(each, dict)])
    if node.key == "type":
        return compared(node, [stored.type], as_text=True)
    if node.key == "tag":
        return compared(node, list(stored.tag_set), as_text=True)
    if node.key == "pos":
        return compared(node, [stored.position])
    if node.key == "version":
        return compared(node, [stored.version])
    if node.key == "append":
        return stored.first <= int(node.values[0].text) <= stored.last
    if node.key in ("since", "until", "occurred"):
        return timed(node, event)
    if node.key == "has":
        found = any(has(value.text, event) for value in node.values)
        return found is (node.operator != "!=")
    if node.key == "is":
        found = any(state(value.text, event) for value in node.values)
        return found is (node.operator != "!=")
    prefix = f"{node.key}:"
    values = [tag.removeprefix(prefix) for tag in stored.tag_set if tag.startswith(prefix)]
    as_text = node.operator in (":", "=", "!=") and not any(".." in value.text for value in node.values)
    return compared(node, values, as_text=as_text)


def at_path(value: Any, path: str) -> Iterator[Any]:
    """The values at a path."""
    found = [value]
    for name, elements in re.findall(r"([^.\[\]]+)((?:\[\d*\])*)", path):
        found = [each[name] for one in found for each in flat(one) if isinstance(each, dict) and name in each]
        for number in re.findall(r"\[(\d*)\]", elements):
            if number:
                found = [each[int(number)] for each in found if isinstance(each, list) and int(number) < len(each)]
            else:
                found = [element for each in found if isinstance(each, list) for element in each]
    for each in found:
        yield from flat(each)


def flat(value: Any) -> Iterator[Any]:
    """The elements of nested arrays; another value itself."""
    if isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from flat(each)
    else:
        yield value


def compared(node: Clause, found: list[Any], *, as_text: bool = False) -> bool:
    """Whether any value satisfies the comparison; for !=, whether there are values and none is equal."""
    if node.operator == "!=":
        return bool(found) and not any(equal(value, each, as_text) for value in node.values for each in found)
    if node.operator in (":", "="):
        return any(equal(value, each, as_text) for value in node.values for each in found)
    if node.operator == "~":
        return any(value.text.casefold() in text(each).casefold() for value in node.values for each in found)
    return any(ordered(node.operator, node.values[0], each) for each in found)


def equal(value: Value, found: Any, as_text: bool) -> bool:
    """Whether a value is equal, in the range, or begins so."""
    if found is None:
        return value.text == "null" and not value.quoted
    if not value.quoted and not as_text and ".." in value.text:
        low, high = value.text.split("..", 1)
        return ordered(">=", Value(low), found) and ordered("<=", Value(high), found)
    if not value.quoted and value.text.endswith("*"):
        return text(found).startswith(value.text[:-1])
    if as_text or value.quoted:
        if as_text and MOMENT.fullmatch(value.text) and MOMENT.fullmatch(text(found)):
            return datetime.fromisoformat(value.text) == datetime.fromisoformat(text(found))
        return text(found) == value.text
    one, first, last = comparable(value, found)
    return one is not None and bool(first <= one <= last)


def ordered(operator: str, value: Value, found: Any) -> bool:
    """Whether a value is above or below."""
    if found is None:
        return False
    one, first, last = comparable(value, found)
    if one is None:
        return False
    return {"<": one < first, "<=": one <= last, ">": one > last, ">=": one >= first}[operator]


def comparable(value: Value, found: Any) -> tuple[Any, Any, Any]:
    """An event's value (None: no order) and the first and last that the filter's stands for: numbers, moments, text."""
    if not value.quoted:
        if NUMBER.fullmatch(value.text):
            is_number = not isinstance(found, bool) and NUMBER.fullmatch(text(found))
            number = Decimal(value.text)
            return Decimal(text(found)) if is_number else None, number, number
        if bounds := bounds_of(value.text):
            own = bounds_of(found) if isinstance(found, str) else None
            return own and own[0], *bounds
    return text(found), value.text, value.text


def bounds_of(written: str) -> tuple[datetime, datetime] | None:
    """The first and the last moment of a day or a moment; None if it is neither."""
    if DAY.fullmatch(written):
        day = datetime.fromisoformat(written).replace(tzinfo=UTC)
        return day, day + timedelta(days=1) - timedelta(microseconds=1)
    if MOMENT.fullmatch(written):
        moment = datetime.fromisoformat(written)
        return moment, moment
    return None


def timed(node: Clause, event: Facts) -> bool:
    """The clauses since, until and occurred."""
    stored = event.stored
    micros = stored.occurred if node.key == "occurred" and stored.occurred is not None else stored.time
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    found: list[bool] = []
    for value in node.values:
        low, _, high = value.text.partition("..")
        first, last = bounds_of(low), bounds_of(high or low)
        assert first is not None, value
        assert last is not None, value
        if node.key == "since":
            return moment >= first[0]
        if node.key == "until":
            return moment <= last[1]
        match node.operator:
            case "<":
                found.append(moment < first[0])
            case "<=":
                found.append(moment <= last[1])
            case ">":
                found.append(moment > last[1])
            case ">=":
                found.append(moment >= first[0])
            case _:
                found.append(first[0] <= moment <= last[1])
    return any(found) is (node.operator != "!=")


def has(name: str, event: Facts) -> bool:
    """Whether an event has a field, a time of occurrence, or a tag of a key."""
    root, dot, path = name.partition(".")
    if name in METADATA:
        root, dot, path = "meta", ".", METADATA[name]
    if name == "occurred":
        return event.stored.occurred is not None
    if not dot:
        return any(tag == name or tag.startswith(f"{name}:") for tag in event.stored.tag_set)
    value = event.metadata if root == "meta" else event.data
    found = [value]
    for step in path.replace("[]", "").split("."):
        found = [each[step] for one in found for each in flat(one) if isinstance(each, dict) and step in each]
    if path.endswith("[]"):
        found = [each for one in found if isinstance(one, list) for each in one]
    return any(each is not None for each in found)


def state(name: str, event: Facts) -> bool:
    """The values of is:."""
    return {
        "undecodable": not event.is_open,
        "encrypted": event.stored.key is not None,
        "internal": event.stored.type.startswith("$"),
    }[name]
