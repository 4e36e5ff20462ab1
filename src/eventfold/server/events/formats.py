"""Events as responses: a page of JSON, and streams of NDJSON and Arrow.

A stream that fails after its beginning is recognisable: the last line of NDJSON is `{"error": problem}`, and an Arrow
stream ends within a message.
Knows: media types, what a caller may see of an event. Does not know: which events are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
from starlette.responses import Response

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_lines import encode_lines
from eventfold.core.event_rows import EventRows
from eventfold.errors import EventfoldError
from eventfold.server.call import Call
from eventfold.server.events import arrow
from eventfold.server.events.pages import FoundPage
from eventfold.server.problems import Problem, problem_of
from eventfold.server.route import JSON, NDJSON
from eventfold.server.scopes import Caller
from eventfold.server.visibility import may_read_payload, redact_stored

ARROW = "application/vnd.apache.arrow.stream"
STREAMS = (NDJSON, ARROW)
Encode = Callable[[Sequence[StoredEvent]], bytes]
PART_BYTES = 512 * 1024  # of payloads and metadata that are encoded at a time
_encode = msgspec.json.Encoder().encode
_logger = logging.getLogger("eventfold.server")
STOPPING = Problem(
    status=503,
    code="server-stopping",
    title="The server is being stopped.",
    detail="Continue after the last event of this stream, with another server or later.",
)
FAILED = Problem(
    status=500,
    code="internal-error",
    title="The server failed while it read the events.",
    detail="Continue after the last event of this stream. The server's log says more.",
)


class Pages(Protocol):
    """A read, page by page."""

    async def next_stored(self) -> Sequence[StoredEvent] | None:
        """Return the next events; None at the end."""
        ...


class PageEnd(msgspec.Struct, omit_defaults=True):
    """What follows the events of a page. See EventsPage."""

    more: bool
    next: int
    head: int
    cursor: str | None = None
    looked_at: int | None = None
    undecodable: int = 0
    answered: str | None = None


def visible_part(caller: Caller, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """Return the events with what the caller may see of them."""
    return events if may_read_payload(caller) else [redact_stored(caller, each) for each in events]


def _parts(page: Sequence[StoredEvent]) -> list[Sequence[StoredEvent]]:
    """The events of a page in parts of about PART_BYTES; one part without events if there are none."""
    if isinstance(page, EventRows):  # without making its events
        sizes = [len(row[4]) + len(row[8] or b"") for row in page.rows]
    else:
        sizes = [len(each.data) + len(each.metadata or b"") for each in page]
    if sum(sizes) < PART_BYTES:
        return [page]
    found, start, size = list[Sequence[StoredEvent]](), 0, 0
    for index, each in enumerate(sizes):
        size += each
        if size >= PART_BYTES:
            found.append(page[start : index + 1])
            start, size = index + 1, 0
    return [*found, page[start:]] if start < len(page) else found


def _taken(parts: list[Sequence[StoredEvent]]) -> Iterator[Sequence[StoredEvent]]:
    """The parts in order, none of which is held once the next one is asked for."""
    parts.reverse()
    while parts:
        yield parts.pop()


def page_response(caller: Caller, page: FoundPage, head: int, cursor: object) -> Response:
    """Return a page as JSON; see EventsPage for its fields. The events are not decoded."""
    lines = encode_lines(visible_part(caller, page.events))
    text = None if cursor is None else str(cursor)
    end = _encode(PageEnd(page.more, page.next, head, text, page.looked_at, page.undecodable, page.answered))
    return Response(b'{"events":[' + lines[:-1].replace(b"\n", b",") + b"]," + end[1:], media_type=JSON)


async def begin(call: Call, reader: Pages, media: str) -> AsyncGenerator[bytes]:
    """Return the chunks of a stream. The first page is read before: what prevents the read is raised here."""
    encode: Encode = arrow.encoder() if media == ARROW else encode_lines
    first = await reader.next_stored()
    return _chunks(call, reader, first, encode, media)


async def _chunks(
    call: Call, reader: Pages, first: Sequence[StoredEvent] | None, encode: Encode, media: str
) -> AsyncGenerator[bytes]:
    if media == ARROW:
        yield arrow.beginning()
    problem: Problem | None = None
    reading: asyncio.Task[Sequence[StoredEvent] | None] | None = None
    try:
        page, first = first, None
        while page is not None and problem is None:
            *parts, last = _parts(page)
            page = None  # of a page that a slow client does not read, only what was not sent is held
            for part in _taken(parts):
                yield encode(visible_part(call.caller, part))
            reading = asyncio.create_task(reader.next_stored())  # while the client receives the last part
            yield encode(visible_part(call.caller, last))
            page = await reading
            if call.server.running.stopping.is_set() and page is not None:
                problem = STOPPING
    except EventfoldError as error:
        problem = problem_of(error)
    except Exception:
        _logger.exception("a stream of events failed")
        problem = FAILED
    finally:
        if reading is not None and not reading.done():
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
    if media == ARROW:
        yield arrow.END if problem is None else arrow.BROKEN
    elif problem is not None:
        yield _encode({"error": problem}) + b"\n"
