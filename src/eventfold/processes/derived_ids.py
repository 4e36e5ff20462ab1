"""Ids that come out the same however often they are made, so that whatever is repeated is recognised.

Knows: UUIDs (RFC 9562). Does not know: what they are given to.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID


def derived_id(time: int, *parts: object) -> UUID:
    """An id made from its parts: a UUIDv8 that begins, as ids in a log do, with a time (µs since 1970 UTC)."""
    digest = sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    millis = max(0, min(time // 1000, 2**48 - 1))
    return UUID(
        bytes=millis.to_bytes(6) + bytes((0x80 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F)) + digest[3:10]
    )


def command_id(process: str, trigger: UUID, key: str, index: int) -> str:
    """The request key of what a process asks for, as number `index`, about one event, for one instance."""
    return f"{process}:{derived_id(0, process, trigger, key, index).hex}"
