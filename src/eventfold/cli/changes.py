"""Room: what changed, in lines: a field, before → after; an object that changed, field by field under its name.

Knows: how changes are read by people and by programs. Does not know: what was folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from eventfold.cli.screen import GAP
from eventfold.cli.shown import builtin, printable, value_text
from eventfold.core.state import ABSENT, Change

if TYPE_CHECKING:
    from rich.text import Text

MOST_NAME = 32  # columns for the name of a field, where the terminal is the limit


class Said(NamedTuple):
    """A line to be: how deep it stands, the name of a field, what is said of it."""

    depth: int
    name: str
    text: str


def change_json(change: Change) -> dict[str, Any]:
    """A change in JSON: `before` and `after`; the one that was absent is left out."""
    pairs = (("before", change.before), ("after", change.after))
    return {name: builtin(value) for name, value in pairs if value is not ABSENT}


def said(changes: Mapping[str, Change]) -> Iterator[Said]:
    """Changes as lines to be, in their order."""
    for name, change in changes.items():
        inner = _fields(change)
        if inner is None:
            yield Said(0, printable(name), change_text(change))
        else:
            yield Said(0, printable(name), "")
            for key, each in inner.items():
                yield Said(1, printable(key), change_text(each))


def _fields(change: Change) -> dict[str, Change] | None:
    """The changed fields of an object; None where it is none, or is gone."""
    before, after = (None if value is ABSENT else builtin(value) for value in change)
    if not isinstance(after, dict) or not after or not (change.before is ABSENT or isinstance(before, dict)):
        return None
    old, new = cast("dict[str, Any]", before or {}), cast("dict[str, Any]", after)
    pairs = {key: Change(old.get(key, ABSENT), new.get(key, ABSENT)) for key in dict.fromkeys([*old, *new])}
    return {key: pair for key, pair in pairs.items() if pair.before != pair.after}


def change_text(change: Change) -> str:
    """A change in words: before → after."""
    if change.before is ABSENT:
        return value_text(change.after)
    after = "(gone)" if change.after is ABSENT else value_text(change.after)
    return f"{value_text(change.before)} → {after}"


def name_width(lines: list[Said], wide: bool) -> int:
    """How wide the names of some lines are."""
    longest = max((len(line.name) + 2 * line.depth for line in lines if line.text), default=0)
    return longest if wide else min(longest, MOST_NAME)


def drawn(lines: list[Said], indent: int, width: int) -> Iterator[Text]:
    """The lines, their names cut at `width` columns where something is said beside them."""
    from rich.text import Text

    for line in lines:
        name = Text(line.name)
        if line.text:
            name.truncate(width - 2 * line.depth, overflow="ellipsis", pad=True)
        yield Text(" " * (indent + 2 * line.depth)) + name + " " * GAP + line.text
