"""What an engine's check of its own log reports, and what must hold between an event and the one before it.

Knows: places of events, times, append boundaries. Does not know: how an engine keeps them, what is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from eventfold.core.envelope import StoredEvent

Progress = Callable[[int, int], None]  # events compared, events in all


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it was written: `what` in one sentence, `position` of the event where there is one."""

    what: str
    position: int | None = None


def placement_problems(before: StoredEvent | None, event: StoredEvent) -> Iterator[Problem]:
    """An event against the one before it: whole appends one after the other, and time that never steps back."""
    if before is not None:
        if event.time < before.time:
            yield Problem("It was recorded earlier than the event before it.", event.position)
        if event.first != before.first and event.position != before.last + 1:
            yield Problem(f"The append that begins at {before.first} is not whole.", event.position)
    if not event.first <= event.position <= event.last:
        yield Problem("It lies outside the append it was part of.", event.position)
