"""Lines of JSON as events to append, one by one, in batches, or all for one append.

Knows: how long a line may be, how many events an append may have. Does not know: its keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO

from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent
from eventfold.core.event_json import parse_line
from eventfold.errors import InvalidEvent, InvalidInput
from eventfold.ports.messages import PAGE_BYTES

MAX_LINE_BYTES = 16 * 2**20  # an event of up to 1 MB, even if each of its characters is escaped


def read_events(source: IO[bytes]) -> Iterator[NewEvent]:
    """Parse lines as events; blank lines are skipped. Raises InvalidEvent with the number of the line."""
    number = 0
    while line := source.readline(MAX_LINE_BYTES):
        number += 1
        text = line.strip()
        if not text:
            continue
        if len(line) == MAX_LINE_BYTES:
            raise InvalidEvent(
                f"Line {number} is longer than {MAX_LINE_BYTES:,} bytes.",
                "Write one event per line.",
                line=number,
            )
        try:
            yield parse_line(text)
        except InvalidEvent as error:
            raise InvalidEvent(f"Line {number} cannot be appended. {error.what}", error.remedy, line=number) from error


def read_batches(source: IO[bytes], size: int) -> Iterator[list[NewEvent]]:
    """Parse lines as events, in batches of `size`, or fewer if they are large.

    A batch that contains an invalid line is not yielded.
    """
    batch, held = list[NewEvent](), 0
    for event in read_events(source):
        batch.append(event)
        held += len(event.data)
        if len(batch) == size or held >= PAGE_BYTES:
            yield batch
            batch, held = list[NewEvent](), 0
    if batch:
        yield batch


def read_all_events(source: IO[bytes]) -> list[NewEvent]:
    """Parse all lines, for one append. Raises InvalidInput if there are none or too many."""
    events = list(islice(read_events(source), MAX_EVENTS_PER_APPEND + 1))
    if not events:
        raise InvalidInput("The input has no events.", "Pipe JSON lines in, as `eventfold read --json` writes them.")
    if len(events) > MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"The input has more than {MAX_EVENTS_PER_APPEND:,} events, the limit of one append.",
            "Omit --atomic to write them in several appends.",
        )
    return events
