"""Events as messages of a stream: the payload is the event's data, one header has the rest of it and a checksum.

The header `Ef` is eight hex digits, the CRC-32 over the envelope and the payload, a space, and the envelope as a JSON
array. Metadata of more than INLINE_METADATA_BYTES follow the data in the payload, since a header has 64 KiB at most.
Knows: the format of a message. Does not know: connections, how messages are sent.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Sequence

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.errors import CorruptEvent

COMMIT_HEADER = b"Ef-Commit: "  # of the first message of a batch: a random number, by which a writer finds its own
INLINE_METADATA_BYTES = 8_192
MAX_HEADER_BYTES = 65_535  # of a message, in every NATS server
OVERHEAD_BYTES = 512  # more than the headers of a batch, of an expected sequence and of the protocol have together


class Envelope(msgspec.Struct, array_like=True, omit_defaults=True):
    """What a message says of its event beside the data. `first`: the first position of its append.

    `tags` are joined by newlines. `inline` are metadata; `outline` is the number of their bytes at the end of the
    payload. `request` is the request key of the append, at its first event only.
    """

    first: int
    offset: int
    size: int
    id: str
    type: str
    version: int
    time: int
    tags: str
    occurred: int | None = None
    inline: str | None = None
    outline: int | None = None
    request: str | None = None
    codec: str = "json"
    key: str | None = None


class Message(msgspec.Struct, gc=False):
    """An event as its message: the line of the header, and the payload."""

    header: bytes
    payload: bytes

    @property
    def size(self) -> int:
        """An upper bound of the bytes that a server counts."""
        return len(self.header) + len(self.payload) + OVERHEAD_BYTES


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode


def encode_event(event: StoredEvent, request: str | None = None) -> Message:
    """Return the message of an event. `request`: the request key of its append, at its first event."""
    inline, outline, payload = None, None, event.data
    if event.metadata is not None:
        if len(event.metadata) <= INLINE_METADATA_BYTES:
            inline = event.metadata.decode()
        else:
            outline, payload = len(event.metadata), event.data + event.metadata
    envelope = _encode(
        Envelope(
            event.position - event.offset,
            event.offset,
            event.size,
            event.id.hex(),
            event.type,
            event.version,
            event.time,
            event.tags,
            event.occurred,
            inline,
            outline,
            request,
            event.codec,
            event.key,
        )
    )
    crc = zlib.crc32(payload, zlib.crc32(envelope))
    return Message(b"Ef: %08x %b\r\n" % (crc, envelope), payload)


def decode_event(sequence: int, headers: bytes, payload: bytes) -> tuple[StoredEvent, str | None]:
    """Return the event of a message, and the request key of its append if it is the first of it.

    `headers` is the header block. Raises CorruptEvent if the message is not what was written.
    """
    start = headers.find(b"\r\nEf: ")
    end = headers.find(b"\r\n", start + 6)
    if start < 0 or end < 0:
        raise corrupt(sequence, "it has no envelope")
    line = headers[start + 6 : end]
    envelope = line[9:]
    try:
        crc = int(line[:8], 16)
        if zlib.crc32(payload, zlib.crc32(envelope)) != crc:
            raise corrupt(sequence, "its checksum does not match")
        found = _decode(envelope)
        id = binascii.unhexlify(found.id)
    except ValueError as error:  # msgspec.DecodeError and binascii.Error are ones
        raise corrupt(sequence, f"its envelope cannot be read ({error})") from error
    if found.first + found.offset != sequence:
        raise corrupt(sequence, f"it was written as position {found.first + found.offset}")
    data, metadata = payload, None
    if found.inline is not None:
        metadata = found.inline.encode()
    elif found.outline is not None:
        data, metadata = payload[: -found.outline], payload[-found.outline :]
    return (
        StoredEvent(
            sequence, id, found.type, found.version, data, found.tags, found.time, found.occurred, metadata,
            found.offset, found.size, found.codec, found.key,
        ),
        found.request,
    )  # fmt: skip


def whole_appends(events: Sequence[StoredEvent]) -> int:
    """Return how many of these events belong to appends that are complete among them."""
    if not events:
        return 0
    last = events[-1]
    return len(events) if last.offset == last.size - 1 else max(0, len(events) - last.offset - 1)


def corrupt(sequence: int, why: str) -> CorruptEvent:
    """The error of a message that is not what was written."""
    return CorruptEvent(
        f"The message at position {sequence} of the stream is damaged: {why}.",
        "Compare the nodes by eventfold cluster status; a node with a damaged store is wiped and resyncs.",
        position=sequence,
    )
