"""The difference between the expected and the found values of a test, as text.

Knows: events, rows, actions as plain values. Does not know: where they come from. A file of its own because scenarios
and process scenarios share it.
"""

from __future__ import annotations

from typing import Any, cast

from eventfold.core.event import Draft


def difference(wanted: list[Any], found: list[Any], words: str = "the events differ (- expected, + written):") -> str:
    """Compare two lists line by line; for two values of one class, list the fields that differ."""
    lines = [words]
    for index in range(max(len(wanted), len(found))):
        a = wanted[index] if index < len(wanted) else None
        b = found[index] if index < len(found) else None
        if a == b:
            lines.append(f"  {a!r}")
            continue
        if a is not None:
            lines.append(f"- {a!r}")
        if b is not None:
            lines.append(f"+ {b!r}")
            lines += _fields(a, b)
    return "\n".join(lines)


def _fields(a: Any, b: Any) -> list[str]:
    if a is None or type(a) is not type(b):
        return []
    if isinstance(a, Draft) and type(cast("Any", a).event) is type(b.event):
        own = [line for line in _fields_of_one_class(a, b) if not line.startswith("    event: ")]
        return _fields(cast("Any", a).event, b.event) + own
    return _fields_of_one_class(a, b)


def _fields_of_one_class(a: Any, b: Any) -> list[str]:
    names = cast("tuple[str, ...]", getattr(a, "__struct_fields__", ()) or tuple(getattr(a, "__dict__", ())))
    return [f"    {n}: {getattr(a, n)!r} → {getattr(b, n)!r}" for n in names if getattr(a, n) != getattr(b, n)]


def describe_events(events: list[Any]) -> str:
    """Events in one line."""
    return ", ".join(map(repr, events)) or "nothing was written"
