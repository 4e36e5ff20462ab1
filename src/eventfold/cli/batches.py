"""Room: JSON lines on the input, as batches of events; a line that is none is named by its number.

Knows: how long a line may be. Does not know: what becomes of the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO

from eventfold.cli.lines import event_of
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent
from eventfold.errors import InvalidEvent, InvalidInput
from eventfold.ports.engine import PAGE_BYTES

LONGEST = 16 * 2**20  # bytes: an event below 1 MB, however wastefully its characters are escaped


def events_in(source: IO[bytes]) -> Iterator[NewEvent]:
    """The events of some lines; blank lines are passed over. Raises InvalidEvent, which names the line."""
    number = 0
    while line := source.readline(LONGEST):
        number += 1
        text = line.strip()
        if not text:
            continue
        if len(line) == LONGEST:
            raise InvalidEvent(
                f"Line {number} is longer than {LONGEST:,} bytes.", "Give each event a line of its own.", line=number
            )
        try:
            yield event_of(text)
        except InvalidEvent as error:
            raise InvalidEvent(f"Line {number} cannot be appended. {error.what}", error.now, line=number) from error


def batches(source: IO[bytes], size: int) -> Iterator[list[NewEvent]]:
    """The events of some lines, so many at a time, fewer where they are large.

    A batch with a bad line in it is not given at all.
    """
    batch, held = list[NewEvent](), 0
    for event in events_in(source):
        batch.append(event)
        held += len(event.data)
        if len(batch) == size or held >= PAGE_BYTES:
            yield batch
            batch, held = list[NewEvent](), 0
    if batch:
        yield batch


def read_all(source: IO[bytes]) -> list[NewEvent]:
    """The events of all lines, for one append. Raises InvalidInput if there are none, or too many."""
    events = list(islice(events_in(source), MAX_EVENTS_PER_APPEND + 1))
    if not events:
        raise InvalidInput("The input holds no events.", "Pipe JSON lines in, as `eventfold read --json` writes them.")
    if len(events) > MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"The input holds more than {MAX_EVENTS_PER_APPEND:,} events, and one append takes no more.",
            "Leave --atomic out: then they are written in appends of up to 1,000.",
        )
    return events
