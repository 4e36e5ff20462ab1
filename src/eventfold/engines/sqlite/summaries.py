"""Which types and tags the log has: how many events have each, the first and the last position of them.

Knows: the index and the tail. Does not know: what is cached between calls (the engine does).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from heapq import merge
from typing import Any

import apsw

from eventfold.core.tags import next_key, tag_key
from eventfold.engines.sqlite import runs
from eventfold.engines.sqlite.errors import inconsistency_error
from eventfold.engines.sqlite.queries import NameLookup
from eventfold.engines.sqlite.read import Names
from eventfold.engines.sqlite.tail import Segment, refuse_damage, tag_stretch, type_stretch
from eventfold.errors import Unreadable
from eventfold.ports.messages import TagCount, TypeCount

# The index returns names in order, the table returns the name of an id: both must agree.
_IDS = """SELECT name, id, (SELECT name FROM tag WHERE id = t.id)
    FROM tag t WHERE name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?"""
_NAMES = """SELECT name, (SELECT name FROM tag WHERE id = t.id)
    FROM tag t WHERE name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?"""
_NEXT_TAG = """SELECT name, (SELECT name FROM tag WHERE id = t.id)
    FROM tag t WHERE name >= ? AND name < ? ORDER BY name LIMIT 1"""
_LAST = "SELECT ifnull(max(position), 0) FROM event"
_ALL_TAGS = """SELECT (SELECT count(*) FROM tag)
    + (SELECT count(*) FROM json_each(?) u WHERE NOT EXISTS (SELECT 1 FROM tag WHERE name = u.value))"""


def count_types(names: NameLookup, known: Mapping[str, TypeCount], through: int, until: int) -> dict[str, TypeCount]:
    """The types of the index tables up to `until`, given those counted up to `through` before."""
    found: dict[str, TypeCount] = {}
    numbers: list[Any] = names.connection.execute("SELECT id FROM type").fetchall()
    for (number,) in numbers:
        name = names.types.name(names.connection, number)
        more = runs.stretch(names.connection, -number, through, until)
        before = known.get(name)
        if before is not None:
            last = more.last if more else before.last
            found[name] = TypeCount(name, before.count + (more.events if more else 0), before.first, last)
        elif more is not None:
            found[name] = TypeCount(name, more.events, more.first, more.last)
    return found


def types_with_tail(indexed: Mapping[str, TypeCount], segments: Sequence[Segment], head: int) -> list[TypeCount]:
    """All types up to `head`, sorted by name: those of the index tables and of the tail."""
    refuse_damage(segments, 0, head)
    found = dict(indexed)
    for name in {name for segment in segments for name in list(segment.by_type)}:
        tail = type_stretch(segments, name, head)
        if tail is not None:
            before = found.get(name)
            found[name] = TypeCount(
                name, tail.events + (before.count if before else 0), before.first if before else tail.first, tail.last
            )
    return sorted(found.values(), key=lambda each: each.type)


def count_tags(names: NameLookup, prefix: str, limit: int, after: str, head: int) -> list[TagCount]:
    """Tags that begin with a prefix, in order, after a tag."""
    refuse_damage(names.segments, 0, head)
    until = min(names.indexed, head)
    indexed: dict[str, TagCount] = {}
    rows: list[Any] = names.connection.execute(_IDS, (prefix, prefix + "\U0010ffff", after, limit)).fetchall()
    for name, number, again in rows:
        if name != again:
            raise inconsistency_error(f"the tags {name!r} and {again!r} have the same id")
        indexed[name] = TagCount(name, *(runs.stretch(names.connection, number, 0, until) or (0, 0, 0)))
    new = {tag for each in names.segments for tag in list(each.by_tag) if tag.startswith(prefix) and tag > after}
    last_fetched = max(indexed) if indexed and len(indexed) == limit else None
    found: list[TagCount] = []
    for name in merge(indexed, sorted(new.difference(indexed))):
        if len(found) == limit or (last_fetched is not None and name > last_fetched):
            break
        before, tail = indexed.get(name), tag_stretch(names.segments, name, head)
        count = (before.count if before else 0) + (tail.events if tail else 0)
        if not count:
            if before is None or names.connection.execute(_LAST).get > head:
                continue  # of an event after `head`
            raise inconsistency_error(f"the tag {name!r} has no events")
        first = before.first if before and before.count else tail.first if tail else 0
        last = tail.last if tail else before.last if before else 0
        found.append(TagCount(name, count, first, last))
    return found


def list_tags(names: NameLookup, prefix: str, limit: int, after: str) -> list[str]:
    """Tags that begin with a prefix, in order, after a tag, without counts: none of their events is looked up."""
    limit = max(0, limit)
    refuse_damage(names.segments, 0, names.segments[-1].end)
    found = {tag for each in names.segments for tag in list(each.by_tag) if tag.startswith(prefix) and tag > after}
    for name, again in names.connection.execute(_NAMES, (prefix, prefix + "\U0010ffff", after, limit)):
        if name != again:
            raise inconsistency_error(f"the tags {name!r} and {again!r} have the same id")
        found.add(name)
    return sorted(found)[:limit]


def list_tag_keys(names: NameLookup, prefix: str, limit: int, after: str) -> list[str]:
    """Keys of tags that begin with a prefix, in order, after a key. One step along the index of names for each."""
    refuse_damage(names.segments, 0, names.segments[-1].end)
    found = {
        key
        for segment in names.segments
        for tag in list(segment.by_tag)
        if tag.startswith(prefix) and (key := tag_key(tag)) > after
    }
    low, end = max(prefix, next_key(after)), prefix + "\U0010ffff"
    for _ in range(limit):
        row = names.connection.execute(_NEXT_TAG, (low, end)).fetchone()
        if row is None:
            break
        name, again = row
        if name != again or name < low:
            raise inconsistency_error(f"the index of tags returns {name!r} for {again!r}, after {low!r}")
        found.add(key := tag_key(name))
        low = next_key(key)
    return sorted(found)[: max(0, limit)]


def count_all_tags(names: Names, connection: apsw.Connection, head: int) -> int:
    """How many tags the log has."""
    with suppress(Unreadable):  # a damaged event: reads report it
        segments = names.tail.covering(connection, head)
        new = list({tag for segment in segments for tag in list(segment.by_tag)})
        return connection.execute(_ALL_TAGS, (json.dumps(new),)).get
    return connection.execute("SELECT count(*) FROM tag").get
