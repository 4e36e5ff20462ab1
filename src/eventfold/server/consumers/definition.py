"""What a consumer is: which events it gets, what keeps their order, and how often one is delivered.

Knows: the definition and its limits, names. Does not know: progress, HTTP.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.errors import InvalidInput

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
KIND = "consumer"  # of its record in the target

Milliseconds = Annotated[int, Meta(ge=0, le=86_400_000)]


class ConsumerDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A consumer. `query`, `filter` and `key` cannot be changed later; the others can.

    `key`            the key of the tags that keep an order, such as "account": of the events with one tag
                     `account:…`, the next is delivered when the one before it is acknowledged. An event that has
                     several waits for all of them, one that has none for no other. "": no order is kept.
    `max_in_flight`  how many events are delivered and neither acknowledged nor rejected at a time, by all workers.
    `lease_seconds`  after so long without an acknowledgement an event is delivered again.
    `attempts`       after so many deliveries an event is parked, and later ones of its key wait behind it.
    """

    query: Query = Query()
    filter: str = ""
    key: Annotated[str, Meta(max_length=200)] = ""
    max_in_flight: Annotated[int, Meta(ge=1, le=1_000)] = 100
    lease_seconds: Annotated[float, Meta(ge=0.1, le=43_200)] = 30.0
    attempts: Annotated[int, Meta(ge=1, le=1_000)] = 5

    def keys_of(self, stored: StoredEvent) -> tuple[str, ...]:
        """The tags of an event that keep its order; for an event without one a text that no other event has."""
        prefix = f"{self.key}:"
        found = tuple(tag for tag in stored.tag_set if tag.startswith(prefix)) if self.key else ()
        return found or (f"(event {stored.position} alone)",)


def check_consumer_name(name: str) -> str:
    """Return a name that a consumer can have. Raises InvalidInput."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:60]!r} cannot be the name of a consumer.",
            "Use up to 40 small letters, digits, underscores and hyphens, a letter first.",
        )
    return name
