"""Tallies, the arithmetic of the completeness ledger: the number of events of a set, and a checksum of which they are.

A tally is the number of events and the sum, modulo 2^128, of a hash of (position, id) of each. Sums do not depend on
order, batches or partitions, and they can be subtracted: the difference of two that differ by one event is that event's
hash, which identifies the event. Knows: hashes. Does not know: where ledgers are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from operator import itemgetter
from struct import Struct

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_rows import EventRows

MODULUS = 1 << 128
MARK_EVERY_EVENTS = 10_000  # positions between two marks of a ledger

_place = Struct(">q16s").pack
_number = int.from_bytes
_position, _id = itemgetter(0), itemgetter(1)


class Tally(msgspec.Struct, frozen=True):
    """`count` events, and `digest`, the sum of their hashes modulo 2^128."""

    count: int = 0
    digest: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, (self.digest + other.digest) % MODULUS)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.count - other.count, (self.digest - other.digest) % MODULUS)

    @property
    def hex(self) -> str:
        """The digest as 32 hex digits, as it is stored."""
        return f"{self.digest:032x}"

    @classmethod
    def of(cls, count: int, text: str) -> Tally:
        """Return a tally from its stored form: the count and the hex digits."""
        return cls(count, int(text, 16))


EMPTY_TALLY = Tally()


def event_hash(position: int, id: bytes) -> int:
    """Return the hash of one event: the first 128 bits of BLAKE2b over its position (8 bytes) and its id."""
    return _number(blake2b(_place(position, id), digest_size=16).digest())


def tally(events: Sequence[StoredEvent]) -> Tally:
    """Return the tally of some events: the sum of their `event_hash`es."""
    if isinstance(events, EventRows):
        places = map(_place, map(_position, events.rows), map(_id, events.rows))
    else:
        places = map(_place, [event.position for event in events], [event.id for event in events])
    return Tally(
        len(events), sum(map(_number, [blake2b(place, digest_size=16).digest() for place in places])) % MODULUS
    )
