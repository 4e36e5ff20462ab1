"""What an engine's integrity check reports, and what must hold between an event and the one before it.

Knows: positions, times, append boundaries. Does not know: how an engine stores them, which data is redundant there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from eventfold.core.envelope import StoredEvent

Progress = Callable[[int, int], None]  # events compared, events in all


class Problem(msgspec.Struct, frozen=True):
    """A difference between the log and what was written: `what` as one sentence, `position` of the event if known."""

    what: str
    position: int | None = None


def placement_problems(before: StoredEvent | None, event: StoredEvent) -> Iterator[Problem]:
    """Yield what is wrong between an event and the one before it: appends must be whole, times must not decrease."""
    if before is not None:
        if event.time < before.time:
            yield Problem("It was recorded earlier than the event before it.", event.position)
        if event.first != before.first and event.position != before.last + 1:
            yield Problem(f"The append that begins at {before.first} is not whole.", event.position)
    if not event.first <= event.position <= event.last:
        yield Problem("It lies outside the append it was part of.", event.position)
