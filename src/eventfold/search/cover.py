"""Which events the index of a log is asked for: alternatives of types, tags and positions, and how they are combined.

A cover of a condition has every event that satisfies the condition; an exact one has no other.
Knows: queries, sets. Does not know: clauses, events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

from eventfold.core.query import Item, Query

LAST_POSITION = 2**63 - 1
MAX_ALTERNATIVES = 64  # after distribution of "and" over "or"; more become a scan
MAX_ITEMS = 5_000  # of the query of one segment: an alternative has one for each combination of its tags


class Alternative(NamedTuple):
    """Any of `types` (None: any type), a tag of each of `groups`, and a position in (after, until]."""

    types: frozenset[str] | None = None
    groups: frozenset[frozenset[str]] = frozenset()
    after: int = 0
    until: int = LAST_POSITION


Cover = tuple[Alternative, ...]
EVERYTHING: Cover = (Alternative(),)


class Segment(NamedTuple):
    """A part of the log, the positions in (after, until], and the query by which it is read."""

    after: int
    until: int
    query: Query


def of_types(names: Iterable[str]) -> Cover:
    """The events of any of some types."""
    found = frozenset(names)
    return (Alternative(types=found),) if found else ()


def of_tags(names: Iterable[str]) -> Cover:
    """The events with any of some tags."""
    found = frozenset(names)
    return (Alternative(groups=frozenset((found,))),) if found else ()


def of_positions(spans: Iterable[tuple[int, int]]) -> Cover:
    """The events at the positions of any of some spans (after, until]."""
    return tuple(Alternative(after=max(0, low), until=high) for low, high in spans if max(0, low) < high)


def of_query(query: Query) -> Cover:
    """The events that match a query."""
    return either(
        [
            (Alternative(frozenset(item.types) or None, frozenset(frozenset((tag,)) for tag in item.tags)),)
            for item in query.items
        ]
        or [EVERYTHING]
    )


def both(one: Cover, other: Cover) -> Cover | None:
    """The events in both covers; None if that would be too many alternatives."""
    if len(one) * len(other) > MAX_ALTERNATIVES:
        return None
    found = (_intersection(a, b) for a in one for b in other)
    return _merged(each for each in found if each is not None)


def either(covers: Sequence[Cover]) -> Cover:
    """The events in any of some covers. It may have more than MAX_ALTERNATIVES."""
    return _merged(each for cover in covers for each in cover)


def segments_of(cover: Cover) -> tuple[tuple[Segment, ...], bool]:
    """The parts of the log to read, ascending, each with its query; whether they have exactly the cover's events."""
    bounds = sorted({bound for each in cover for bound in (each.after, each.until)})
    found: list[Segment] = []
    is_exact = True
    for after, until in pairwise(bounds):
        there = [each for each in cover if each.after <= after and until <= each.until]
        if not there:
            continue
        query, as_is = _query_of(there)
        is_exact = is_exact and as_is
        if found and found[-1].until == after and found[-1].query == query:
            found[-1] = Segment(found[-1].after, until, query)
        else:
            found.append(Segment(after, until, query))
    return tuple(found), is_exact


def _intersection(a: Alternative, b: Alternative) -> Alternative | None:
    types = b.types if a.types is None else a.types if b.types is None else a.types & b.types
    after, until = max(a.after, b.after), min(a.until, b.until)
    if after >= until or (types is not None and not types):
        return None
    return Alternative(types, a.groups | b.groups, after, until)


def _merged(alternatives: Iterable[Alternative]) -> Cover:
    """The same events by fewer alternatives: types, or tags, of those that differ in nothing else are joined."""
    by_rest: dict[tuple[frozenset[frozenset[str]], int, int], frozenset[str] | None] = {}
    for each in alternatives:
        rest = (each.groups, each.after, each.until)
        before = by_rest.get(rest, each.types)
        by_rest[rest] = None if before is None or each.types is None else before | each.types
    by_tags: dict[tuple[frozenset[str] | None, int, int], frozenset[str]] = {}
    found: dict[Alternative, None] = {}
    for (groups, after, until), types in by_rest.items():
        if len(groups) == 1:
            by_tags[types, after, until] = by_tags.get((types, after, until), frozenset()) | next(iter(groups))
        else:
            found[Alternative(types, groups, after, until)] = None
    found.update((Alternative(types, frozenset((tags,)), *span), None) for (types, *span), tags in by_tags.items())
    return EVERYTHING if EVERYTHING[0] in found else tuple(found)


def _query_of(alternatives: Sequence[Alternative]) -> tuple[Query, bool]:
    """The query that has the events of any of these, and whether it has no others."""
    is_exact, most = True, MAX_ITEMS // len(alternatives)
    items: dict[Item, None] = {}
    for each in alternatives:
        groups = sorted(each.groups, key=len)
        while prod(map(len, groups)) > max(1, most):
            groups.pop()
            is_exact = False
        types = () if each.types is None else tuple(sorted(each.types))
        if not types and not groups:
            return Query(), is_exact
        items.update((Item(types, tuple(sorted(set(tags)))), None) for tags in product(*groups))
    return Query(tuple(sorted(items, key=lambda item: (item.tags, item.types)))), is_exact
