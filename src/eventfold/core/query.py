"""Queries, append conditions and cursors. `Query.matches` defines which events a query selects.

An engine may implement queries in any way that selects the same events. Knows: types, tags, positions. Does not know:
bytes, databases.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from eventfold.core.event import hint_for_generic, stored_names_of, without_parameters
from eventfold.core.renamed import refuse_old_attributes
from eventfold.core.tags import check_name, in_utc, is_moment
from eventfold.errors import CursorMismatch, InvalidEvent, InvalidQuery

Kind = str | type
MAX_ITEMS = 50_000  # alternatives of one query
MAX_TYPES = 100_000  # types of one alternative
MAX_NAMES = 1_000_000  # types and tags of all alternatives of one query together
SCANNED_ITEMS = 32  # up to this number of alternatives are tried one after the other; more are found by an index


class Item(msgspec.Struct, frozen=True, gc=False):
    """One alternative of a query: any of `types` (empty: any type) and all of `tags`."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@refuse_old_attributes("Query")
class Query(msgspec.Struct, frozen=True, gc=False):
    """Selects events as the specification at dcb.events defines: an event matches if any item of the query matches.

    A tag whose value is a moment matches that moment in any time zone. `Query()` matches every event. Build one by
    keywords, and join alternatives with `|`:

    >>> Query.of(types=["Opened", "Closed"], tags=["account:a-1"])
    Query(Opened or Closed; account:a-1)
    >>> Query.of(tags="account:a-1") | Query.of(types="BankClosed")
    Query(account:a-1 | BankClosed)
    """

    items: tuple[Item, ...] = ()

    def __post_init__(self) -> None:
        """Raise InvalidQuery on an item without types and tags: it would make the whole query match every event."""
        for item in self.items:
            if not item.types and not item.tags:
                raise InvalidQuery("An item of the query has no type and no tag.", "For every event use Query().")

    def count_names(self) -> int:
        """Return the number of types and tags in all its items."""
        return sum(len(item.types) + len(item.tags) for item in self.items)

    @classmethod
    def of(cls, types: Kind | Iterable[Kind] = (), tags: str | Iterable[str] = ()) -> Query:
        """Return a query for events of any of these types (event classes or stored names) with all of these tags.

        Without types, events of any type match; without tags, events with any tags; so without both, also as empty
        lists, every event. Raises InvalidQuery on a name that no event can have.
        """
        try:
            kinds = [_names(kind) for kind in _several(types)]
            if () in kinds:  # ef.Event itself is among them: any type
                kinds = []
            item = Item(
                tuple(check_name("type", t, reserved=True) for names in kinds for t in names),
                tuple(sorted({check_name("tag", t, reserved=True) for t in _several(tags)})),
            )
        except InvalidEvent as error:
            raise InvalidQuery(f"No event can match this query. {error.what}", error.remedy, **error.fields) from None
        return cls((item,)) if item.types or item.tags else cls()

    @classmethod
    def any_of(cls, items: Iterable[Item]) -> Query:
        """Return the query of these items; an item without types and tags makes it match every event.

        Raises InvalidQuery if there are no items, since a query without items matches every event.
        """
        kept = tuple(dict.fromkeys(items))
        if not kept:
            raise InvalidQuery(
                "A query was built from no items, so no event could match it.",
                "Give at least one item; for every event use Query().",
            )
        return cls() if any(not item.types and not item.tags for item in kept) else cls(kept)

    def __or__(self, other: Query) -> Query:
        """Return a query for the events that match either query."""
        if not self.items or not other.items:
            return Query()
        return Query(tuple(dict.fromkeys(self.items + other.items)))

    def matches(self, type: str, tags: Sequence[str] | frozenset[str] | set[str]) -> bool:
        """Whether an event of this type with these tags matches. This is the definition."""
        for item in self.items:  # loops, not any(…): they are evaluated for every event of a decision
            if not item.types or type in item.types:
                for tag in item.tags:
                    if tag not in tags:
                        break
                else:
                    return True
        if not self.items:
            return True
        if not self.names_moments():
            return False
        known = set(map(in_utc, tags))
        return any(
            (not item.types or type in item.types) and all(in_utc(tag) in known for tag in item.tags)
            for item in self.items
        )

    def names_moments(self) -> bool:
        """Whether the value of one of its tags is a moment, which events may have in other time zones."""
        for item in self.items:  # a loop, not any(…): it is evaluated for every condition
            for tag in item.tags:
                if "T" in tag and is_moment(tag):
                    return True
        return False

    def matches_all(self, types: Sequence[str], tags: Sequence[str]) -> bool:
        """Whether all these events match; the tags of each are joined by newlines. Far faster than `matches`."""
        if not self.items:
            return True
        if len(self.items) > 1 or self.names_moments():
            matches = Matcher(self).matches
            return all(matches(type, joined.split("\n")) for type, joined in set(zip(types, tags, strict=True)))
        item = next(iter(self.items))
        if item.types and not set(types).issubset(item.types):
            return False
        # No event has a tag twice, so every event has this one if the text has it as often as there are events.
        text = "\n\n".join(tags) if item.tags else ""
        return all(f"\n{text}\n".count(f"\n{tag}\n") == len(tags) for tag in item.tags)

    def __repr__(self) -> str:
        def show(item: Item) -> str:
            return "; ".join(filter(None, (" or ".join(item.types), " and ".join(item.tags))))

        return f"Query({' | '.join(map(show, self.items)) or 'everything'})"


def with_spellings(query: Query, others: Callable[[str], Iterable[str]]) -> Query:
    """Return the query with every spelling of its moments as an alternative.

    `others` returns the further spellings of a tag in UTC. For engines, whose indexes have tags as they were written.
    """
    if not query.names_moments():
        return query
    items: dict[Item, None] = {}
    for item in query.items:
        alternatives: list[tuple[str, ...]] = [()]
        for tag in item.tags:
            texts = dict.fromkeys((tag, utc := in_utc(tag), *others(utc)) if is_moment(tag) else (tag,))
            alternatives = [tags + (text,) for tags in alternatives for text in texts]
        items.update((Item(item.types, tags), None) for tags in alternatives)
    return Query(tuple(items))


def check_limits(query: Query) -> Query:
    """Return the query if it is within the limits. Raises InvalidQuery, which names the limit that it exceeds."""
    names = 0
    for item in query.items:
        if len(item.types) > MAX_TYPES:
            raise _too_many(f"An item of the query names {len(item.types):,} types", "types in an item", MAX_TYPES)
        names += len(item.types) + len(item.tags)
    if len(query.items) > MAX_ITEMS:
        raise _too_many(f"The query has {len(query.items):,} items", "items", MAX_ITEMS)
    if names > MAX_NAMES:
        raise _too_many(f"The items of the query name {names:,} types and tags", "names in all its items", MAX_NAMES)
    return query


class Matcher:
    """`Query.matches` for many events: if the query has many items, those that may match are found by an index."""

    def __init__(self, query: Query) -> None:
        self.matches: Callable[[str, Sequence[str] | frozenset[str]], bool] = query.matches
        if len(query.items) <= SCANNED_ITEMS and query.count_names() <= SCANNED_ITEMS * SCANNED_ITEMS:
            return
        self._moments = query.names_moments()
        self._types: set[str] = set()  # of items without tags
        self._by_tag: dict[str, list[tuple[frozenset[str], tuple[str, ...]]]] = {}
        sets: dict[tuple[str, ...], frozenset[str]] = {}  # most items name the same types
        for item in query.items:
            if not item.tags:
                self._types.update(item.types)
                continue
            types = sets.get(item.types)
            if types is None:
                types = sets[item.types] = frozenset(item.types)
            tags = tuple(map(in_utc, item.tags)) if self._moments else item.tags
            self._by_tag.setdefault(tags[0], []).append((types, tags[1:]))
        self.matches = self._look_up

    def _look_up(self, type: str, tags: Sequence[str] | frozenset[str] | set[str]) -> bool:
        if type in self._types:
            return True
        tags = set(map(in_utc, tags)) if self._moments else tags
        return any(
            (not types or type in types) and all(other in tags for other in others)
            for tag in tags
            for types, others in self._by_tag.get(tag, ())
        )


class ConditionClause(msgspec.Struct, frozen=True, gc=False):
    """A part of an append condition: the log has no event after position `after` (exclusive) that matches `query`.

    `after_event` is the id of an event that must be in the log, or in an earlier request of the same call: events up to
    it, inclusive, are ignored, too. So a decision can depend on an append whose position is not assigned yet.
    """

    query: Query
    after: int = 0
    after_event: bytes | None = None


def _too_many(what: str, of: str, most: int) -> InvalidQuery:
    return InvalidQuery(
        f"{what}, and a query may have {most:,} {of}.",
        "Use several queries, or give the events a tag that stands for all of these.",
        limit=most,
    )


def _several(names: Any) -> list[Any]:
    if isinstance(names, (str, type)) or hint_for_generic(names) is not None:
        return [names]
    try:
        return list(names)
    except TypeError:
        what = f"{names!r} is neither a name nor a list of names."
        raise InvalidQuery(what, "Give text, an event class, or a list of them.") from None


def _names(kind: Kind) -> tuple[str, ...]:
    kind = without_parameters(kind)
    if isinstance(kind, type):
        return stored_names_of(kind)
    if (instead := hint_for_generic(kind)) is not None:
        raise InvalidQuery(f"A query cannot select events by {kind!r}.", instead)
    return (kind,)


class Cursor(msgspec.Struct, frozen=True):
    """The position that a reader has reached: stored as opaque text, and verified when it is used again.

    Events up to `position`, inclusive, were read; `event_id` is the hex id of the event there (empty at 0). A store
    that was restored or replaced has another event there: then using the cursor raises CursorMismatch.
    """

    store: str
    epoch: int
    position: int
    event_id: str

    def __str__(self) -> str:
        raw = f"{self.store}.{self.epoch}.{self.position}.{self.event_id}"
        return "efc1_" + base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor for its text. Raises CursorMismatch if the text is not a cursor."""
        try:
            if not isinstance(text, str) or not text.startswith("efc1_"):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(text)
            body = text[5:]
            store, epoch, position, event_id = (
                base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode().split(".")
            )
            return cls(store, int(epoch), int(position), event_id)
        except (ValueError, binascii.Error) as error:
            raise CursorMismatch(
                f"{str(text)[:60]!r} is not a cursor.", "Pass the text of a cursor of a follower or store, unchanged."
            ) from error
