"""The names of a store in a cluster: its stream, its subjects, its buckets, and what its metadata are called.

Knows: which names NATS accepts. Does not know: connections.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from eventfold.errors import InvalidUrl

MAX_STORE_CHARACTERS = 100
STORE_ID, EPOCH, CREATED, FORMAT = "eventfold-store", "eventfold-epoch", "eventfold-created", "eventfold-format"
FORMAT_NUMBER = 1  # of the messages in the stream
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_BYTES_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class StoreNames(msgspec.Struct, frozen=True):
    """What belongs to one store, by its name in the address."""

    store: str

    @property
    def stream(self) -> str:
        """The stream with the events."""
        return f"EF_{self.store}"

    @property
    def subjects(self) -> str:
        """The subjects of the stream: one for each type of event."""
        return f"ef.{self.store}.>"

    @property
    def heads(self) -> str:
        """The subject on which writers announce the position of each commit. It is not stored."""
        return f"ef-head.{self.store}"

    @property
    def appends(self) -> str:
        """The beginning of the subjects on which writers take appends of other processes."""
        return f"ef-append.{self.store}"

    def bucket(self, name: str) -> str:
        """A bucket beside the stream: locks, snapshots, keys, index."""
        return f"{self.stream}_{name}"

    def subject(self, type: str) -> bytes:
        """The subject of events of a type."""
        return _subject(self.store, type)


def check_store_name(name: str) -> str:
    """Return the name of a store if a stream can have it. Raises InvalidUrl."""
    if _PLAIN.fullmatch(name) is None or len(name) > MAX_STORE_CHARACTERS:
        raise InvalidUrl(
            f"{name!r} cannot be the name of a store in a NATS cluster.",
            f"Use 1 to {MAX_STORE_CHARACTERS} letters, digits, - and _.",
            store=name,
        )
    return name


@lru_cache(4_096)
def _subject(store: str, type: str) -> bytes:
    """A subject whose last token is the type; bytes that no token has are written as = and two hex digits."""
    token = "".join(chr(each) if each in _BYTES_KEPT else f"={each:02X}" for each in type.encode())
    return f"ef.{store}.{token}".encode()
