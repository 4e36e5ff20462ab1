"""Server-Sent Events: the bytes of events, notices, comments and of the time after which a client connects again.

The `id:` of an event is the text of the cursor after it, so that a client resumes by `Last-Event-ID`, and the store
verifies where it resumes.
Knows: the format text/event-stream, the data of each notice. Does not know: the log, connections.
"""

from __future__ import annotations

import random

import msgspec

RETRY_MS = 2_000  # after which a client connects again; up to a quarter more or less, so that not all come at once
HEARTBEAT = b":\n\n"
_encode = msgspec.json.Encoder().encode


class CaughtUp(msgspec.Struct, frozen=True):
    """`event: caught-up`: everything up to `position` was sent; what follows was appended later."""

    position: int


class Dropped(msgspec.Struct, frozen=True):
    """`event: dropped`: the server ends this stream. `cursor` is where to resume: all events up to it were sent."""

    code: str
    title: str
    detail: str
    cursor: str


class Bye(msgspec.Struct, frozen=True):
    """`event: bye`: the server ends this stream on purpose. Connect again after `retry_ms` milliseconds."""

    code: str
    title: str
    retry_ms: int


def event_frame(cursor: str, line: bytes) -> bytes:
    """An event: its cursor, and its JSON without line breaks."""
    return b"id: %b\nevent: event\ndata: %b\n\n" % (cursor.encode(), line)


def opening() -> bytes:
    """The first bytes of a stream: a comment, and when to connect again if the connection breaks."""
    return b": eventfold\nretry: %d\n\n" % random.randint(RETRY_MS * 3 // 4, RETRY_MS * 5 // 4)  # noqa: S311 no secret


def caught_up(position: int, cursor: str) -> bytes:
    """The notice that everything there was has been sent."""
    return b"id: %b\nevent: caught-up\ndata: %b\n\n" % (cursor.encode(), _encode(CaughtUp(position)))


def moved(cursor: str) -> bytes:
    """A heartbeat that also moves the client's `Last-Event-ID` past events that it did not ask for."""
    return b":\nid: %b\n\n" % cursor.encode()


def dropped(notice: Dropped) -> bytes:
    """The notice that a stream is ended because it cannot be continued. The client resumes at once, by its cursor."""
    return b"event: dropped\ndata: %b\n\n" % _encode(notice)


def bye(code: str, title: str, spread_s: float) -> bytes:
    """The notice that the server ends a stream. Clients connect again at random moments within `spread_s` seconds."""
    retry_ms = random.randint(min(RETRY_MS, int(spread_s * 1000)) // 2, int(spread_s * 1000))  # noqa: S311
    return b"retry: %d\nevent: bye\ndata: %b\n\n" % (retry_ms, _encode(Bye(code, title, retry_ms)))
