"""How much of the tail is merged at a time, and when.

Knows: numbers of events and entries. Does not know: how they are merged.
"""

from __future__ import annotations

SLICE_ENTRIES = 256  # at least so many after an append that merges
KEEPS_UP = 1.3  # or so many for each entry that the append's own events will need
CATCHES_UP = 1.6  # or so many while the tail is long
LONG_BACKLOG = 2  # merges
IDLE_ENTRIES = 1_024  # at once while the process is idle: about 2 ms
RETRY_S, LONGEST_RETRY_S = 1.0, 64.0  # after a failed slice, doubled with each further failure


def slice_entries(events: int, entries_per_event: float, backlog: int) -> int:
    """How many entries an append of so many events merges. `backlog`: merges that are due.

    Bounded by the append itself, however long the tail is: a long tail is merged by more appends, not by longer ones.
    """
    factor = CATCHES_UP if backlog > LONG_BACKLOG else KEEPS_UP
    return max(SLICE_ENTRIES, int(factor * events * entries_per_event))


def retry_after(failures: int) -> float:
    """How many seconds no slice is merged after so many failures in a row."""
    return min(LONGEST_RETRY_S, RETRY_S * 2 ** (failures - 1))
