"""The views of all live readers of a store, found by the types and tags of an event.

Knows: which views may match an event. Does not know: the log, connections.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventfold.core.envelope import StoredEvent
from eventfold.server.live.reader import Reader
from eventfold.server.live.view import View


class Feed:
    """The readers of one view."""

    __slots__ = ("matches", "readers", "view")

    def __init__(self, view: View) -> None:
        self.view, self.readers = view, set[Reader]()
        self.matches = view.predicate()


class Feeds:
    """The feeds of a store. A feed is filed under a tag or the types of each alternative of its query.

    So an event is compared with the feeds that name one of its tags or its type, and with those that name neither, not
    with those of every other reader.
    """

    def __init__(self) -> None:
        self._by_view: dict[View, Feed] = {}
        self._by_tag: dict[str, set[Feed]] = {}
        self._by_type: dict[str, set[Feed]] = {}
        self._others: set[Feed] = set()

    def __len__(self) -> int:
        return len(self._by_view)

    def readers(self) -> list[Reader]:
        """Every reader."""
        return [reader for feed in self._by_view.values() for reader in feed.readers]

    def add(self, reader: Reader) -> None:
        """Add a reader to the feed of its view."""
        feed = self._by_view.get(reader.view)
        if feed is None:
            feed = self._by_view[reader.view] = Feed(reader.view)
            if _is_unindexed(feed):
                self._others.add(feed)
            for index, name in self._entries(feed):
                index.setdefault(name, set()).add(feed)
        feed.readers.add(reader)

    def remove(self, reader: Reader) -> None:
        """Remove a reader, and its feed with the last one."""
        feed = self._by_view.get(reader.view)
        if feed is None:
            return
        feed.readers.discard(reader)
        if feed.readers:
            return
        del self._by_view[reader.view]
        self._others.discard(feed)
        for index, name in self._entries(feed):
            filed = index.get(name, set())  # several alternatives may name the same tag
            filed.discard(feed)
            if not filed:
                index.pop(name, None)

    def matching(self, stored: StoredEvent) -> list[Feed]:
        """The feeds that show an event."""
        found = set(self._others)
        found.update(self._by_type.get(stored.type, ()))
        if self._by_tag:
            for tag in stored.tag_set:
                found.update(self._by_tag.get(tag, ()))
        return [feed for feed in found if feed.matches(stored)]

    def _entries(self, feed: Feed) -> Iterable[tuple[dict[str, set[Feed]], str]]:
        for item in () if _is_unindexed(feed) else feed.view.query.items:
            if item.tags:
                yield self._by_tag, item.tags[0]
            else:
                for name in item.types:
                    yield self._by_type, name


def _is_unindexed(feed: Feed) -> bool:
    """Whether every event is compared with a feed: an event may have the moment of a tag in another time zone."""
    return not feed.view.query.items or feed.view.query.names_moments()
