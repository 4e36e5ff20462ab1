"""What every implementation of the service `replica` checks in the same way.

Knows: events, append requests, verdicts. Does not know: how a copy is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.errors import EventfoldError
from eventfold.ports.messages import AppendRequest
from eventfold.ports.refusals import not_whole_appends


def keys_of_repeats(
    requests: Sequence[AppendRequest], verdicts: Sequence[Receipt | EventfoldError | None], assigned: Mapping[str, int]
) -> list[tuple[str, int]]:
    """Return those of the keys that `requests` are assigned that no accepted request has."""
    accepted = {request.key for request, verdict in zip(requests, verdicts, strict=True) if verdict is None}
    return [(key, first) for key, first in assigned.items() if key not in accepted]


def check_whole_appends(events: Sequence[StoredEvent]) -> None:
    """Raises InvalidInput unless the events are whole appends at consecutive positions."""
    expected = next_start = events[0].position if events else 0
    offset = size = 0
    for event in events:
        if expected == next_start:
            offset, size = 0, event.size
            next_start += size
        if event.position != expected or event.offset != offset or event.size != size:
            raise not_whole_appends(event.position)
        expected += 1
        offset += 1
    if expected != next_start:
        raise not_whole_appends(expected - 1)
