"""Room: what a reader asks for, and the one meaning of "matches".

Knows: types, tags, positions. Does not know: bytes, classes, databases. Engines may answer a query in
any way they like, as long as it selects what `Query.matches` selects.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence

import msgspec

from eventfold.errors import CursorMismatch, InvalidQuery
from eventfold.record import check_name


class Item(msgspec.Struct, frozen=True):
    """One alternative of a query: any of `types` (none given: any type) and all of `tags`."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Query(msgspec.Struct, frozen=True):
    """Which events are meant, after the specification at dcb.events: any of its items must match.

    `Query()` means every event. Build one by keywords, and join alternatives with `|`:

    >>> Query.of(types=["Opened", "Closed"], tags=["account:a-1"])
    Query(Opened or Closed; account:a-1)
    >>> Query.of(tags="account:a-1") | Query.of(types="BankClosed")
    Query(account:a-1 | BankClosed)
    """

    items: tuple[Item, ...] = ()

    @classmethod
    def of(cls, types: str | Iterable[str] = (), tags: str | Iterable[str] = ()) -> Query:
        """Events of any of these types (type names) that carry all of these tags.

        Raises InvalidQuery on a name no event could have.
        """
        try:
            item = Item(
                tuple(check_name("type", t, reserved=True) for t in _several(types)),
                tuple(sorted({check_name("tag", t, reserved=True) for t in _several(tags)})),
            )
        except Exception as error:
            raise InvalidQuery(
                f"A query was given {getattr(error, 'what', error)}", "Ask by names that events can have."
            ) from error
        return cls((item,)) if item.types or item.tags else cls()

    def __or__(self, other: Query) -> Query:
        """Events that either query means. Everything or anything is everything."""
        if not self.items or not other.items:
            return Query()
        return Query(tuple(dict.fromkeys(self.items + other.items)))

    def matches(self, type: str, tags: Sequence[str] | frozenset[str] | set[str]) -> bool:
        """Whether an event of this type with these tags is meant. This is the definition."""
        if not self.items:
            return True
        return any(
            (not item.types or type in item.types) and all(tag in tags for tag in item.tags) for item in self.items
        )

    def __repr__(self) -> str:
        def show(item: Item) -> str:
            return "; ".join(filter(None, (" or ".join(item.types), " and ".join(item.tags))))

        return f"Query({' | '.join(map(show, self.items)) or 'everything'})"


class Clause(msgspec.Struct, frozen=True):
    """A piece of an append condition: no event matching `query` may stand after position `after`."""

    query: Query
    after: int = 0


def _several(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


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
            if not text.startswith("efc1_"):
                raise ValueError(text)
            body = text[5:]
            store, epoch, position, event_id = (
                base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode().split(".")
            )
            return cls(store, int(epoch), int(position), event_id)
        except (ValueError, binascii.Error) as error:
            raise CursorMismatch(
                f"{text[:60]!r} is no cursor.", "Pass the text that a follower or receipt gave, unchanged."
            ) from error
