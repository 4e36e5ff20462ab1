"""What a reader asks for, and the one meaning of "matches".

Knows: types, tags, positions. Does not know: bytes, classes, databases. Engines may answer a query in
any way they like, as long as it selects what `Query.matches` selects.
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
SCANNED_ITEMS = 32  # alternatives that are tried one after the other; more are looked up


class Item(msgspec.Struct, frozen=True):
    """One alternative of a query: any of `types` (none given: any type) and all of `tags`."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@refuse_old_attributes("Query")
class Query(msgspec.Struct, frozen=True):
    """Which events are meant, after the specification at dcb.events: any of its items must match.

    A tag whose value is a moment means that moment, in whatever time zone an event has it.

    `Query()` means every event; no query means no event. Build one by keywords, and join alternatives with `|`:

    >>> Query.of(types=["Opened", "Closed"], tags=["account:a-1"])
    Query(Opened or Closed; account:a-1)
    >>> Query.of(tags="account:a-1") | Query.of(types="BankClosed")
    Query(account:a-1 | BankClosed)
    """

    items: tuple[Item, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an item that names nothing: beside others it would make everything of them. Raises InvalidQuery."""
        for item in self.items:
            if not item.types and not item.tags:
                raise InvalidQuery("An item of the query names no type and no tag.", "For every event use Query().")

    def count_names(self) -> int:
        """How many types and tags its items name, all counted."""
        return sum(len(item.types) + len(item.tags) for item in self.items)

    @classmethod
    def of(cls, types: Kind | Iterable[Kind] = (), tags: str | Iterable[str] = ()) -> Query:
        """Events of any of these types (event classes or stored names) that carry all of these tags.

        No types: of any type; no tags: whatever tags they carry; so neither, also as empty lists, means every event.
        Raises InvalidQuery on a name no event could have.
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
            raise InvalidQuery(f"A query cannot ask for this. {error.what}", error.remedy, **error.fields) from None
        return cls((item,)) if item.types or item.tags else cls()

    @classmethod
    def any_of(cls, items: Iterable[Item]) -> Query:
        """The union of items; an item that means everything makes the whole query mean everything.

        Raises InvalidQuery where there are none: a list that came out empty would mean every event.
        """
        kept = tuple(dict.fromkeys(items))
        if not kept:
            raise InvalidQuery(
                "A query was made of no items, and one of these would have to match.",
                "Give at least one item; for every event use Query().",
            )
        return cls() if any(not item.types and not item.tags for item in kept) else cls(kept)

    def __or__(self, other: Query) -> Query:
        """Events that either query means. Everything or anything is everything."""
        if not self.items or not other.items:
            return Query()
        return Query(tuple(dict.fromkeys(self.items + other.items)))

    def matches(self, type: str, tags: Sequence[str] | frozenset[str] | set[str]) -> bool:
        """Whether an event of this type with these tags is meant. This is the definition."""
        if not self.items or any(
            (not item.types or type in item.types) and all(tag in tags for tag in item.tags) for item in self.items
        ):
            return True
        if not self.names_moments():
            return False
        known = set(map(in_utc, tags))
        return any(
            (not item.types or type in item.types) and all(in_utc(tag) in known for tag in item.tags)
            for item in self.items
        )

    def names_moments(self) -> bool:
        """Whether a tag of it is a moment, which events may have in other time zones."""
        return any(is_moment(tag) for item in self.items for tag in item.tags)

    def matches_all(self, types: Sequence[str], tags: Sequence[str]) -> bool:
        """Whether all of some events are meant; the tags of each joined by newlines. Far faster than `matches`."""
        if not self.items:
            return True
        if len(self.items) > 1 or self.names_moments():
            matches = Matcher(self).matches
            return all(matches(type, joined.split("\n")) for type, joined in set(zip(types, tags, strict=True)))
        item = next(iter(self.items))
        if item.types and not set(types).issubset(item.types):
            return False
        # No event carries a tag twice, so each carries this one if it is there as often as there are events.
        text = "\n\n".join(tags) if item.tags else ""
        return all(f"\n{text}\n".count(f"\n{tag}\n") == len(tags) for tag in item.tags)

    def __repr__(self) -> str:
        def show(item: Item) -> str:
            return "; ".join(filter(None, (" or ".join(item.types), " and ".join(item.tags))))

        return f"Query({' | '.join(map(show, self.items)) or 'everything'})"


def with_spellings(query: Query, others: Callable[[str], Iterable[str]]) -> Query:
    """The query with every spelling of its moments as an alternative: `others` gives those of a tag that is in UTC.

    For engines, whose indexes know tags as they were written.
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
    """The query, if a store can be asked it. Raises InvalidQuery, naming the limit, where it has too many names."""
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
    """`Query.matches` for many events: where there are many items, those that an event may match are looked up."""

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


class ConditionClause(msgspec.Struct, frozen=True):
    """A piece of an append condition: no event matching `query` may stand after position `after`.

    `behind` the id of an event that must be in the log, or in an earlier request of the same call: nothing up to
    it, inclusive, is looked at either. So a decision can be built on one whose position nobody knows yet.
    """

    query: Query
    after: int = 0
    after_event: bytes | None = None


def _too_many(what: str, of: str, most: int) -> InvalidQuery:
    return InvalidQuery(
        f"{what}, and a query may have {most:,} {of}.",
        "Ask in several queries, or tag the events by what these have in common.",
        limit=most,
    )


def _several(names: Any) -> list[Any]:
    if isinstance(names, (str, type)) or hint_for_generic(names) is not None:
        return [names]
    try:
        return list(names)
    except TypeError:
        what = f"{names!r} is no name, nor several."
        raise InvalidQuery(what, "Give text, an event class, or a list of them.") from None


def _names(kind: Kind) -> tuple[str, ...]:
    kind = without_parameters(kind)
    if isinstance(kind, type):
        return stored_names_of(kind)
    if (instead := hint_for_generic(kind)) is not None:
        raise InvalidQuery(f"A query cannot ask for {kind!r}.", instead)
    return (kind,)


class Cursor(msgspec.Struct, frozen=True):
    """How far a reader has come: kept as opaque text, verified when it is used again.

    `position` is scanned through, inclusive; `event_id` is the hex id of the event there (empty at 0).
    A store that was restored or replaced has another event there, and the reader is told so.
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
        """A cursor from its text. Raises CursorMismatch if it is not one."""
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
                f"{str(text)[:60]!r} is no cursor.", "Pass the text that a follower or receipt gave, unchanged."
            ) from error
