"""How much of the tail is merged at a time, and of the index compacted, and when.

Knows: numbers of events and postings. Does not know: how they are merged.
"""

from __future__ import annotations

SLICE_POSTINGS = 512  # at least so many after an append that merges or compacts: about half a millisecond
KEEPS_UP = 1.3  # or so many for each posting that the append's own events will need
CATCHES_UP = 1.6  # or so many while the tail is long
COMPACTS = 4.0  # or so many copied: a posting is copied once for each class of runs
LONG_BACKLOG = 2  # merges
IDLE_POSTINGS = 1_024  # at once while the process is idle: about 1 ms
RETRY_S, LONGEST_RETRY_S = 1.0, 64.0  # after a failed slice, doubled with each further failure


def slice_postings(events: int, postings_per_event: float, backlog: int) -> int:
    """How many postings an append of so many events merges; 0 events: an idle process. `backlog`: merges that are due.

    Bounded by the append itself, however long the tail is: a long tail is merged by more appends, not by longer ones.
    """
    if not events:
        return IDLE_POSTINGS
    factor = CATCHES_UP if backlog > LONG_BACKLOG else KEEPS_UP
    return max(SLICE_POSTINGS, int(factor * events * postings_per_event))


def compaction_postings(events: int, postings_per_event: float) -> int:
    """How many postings an append of so many events copies while a compaction is due."""
    return max(SLICE_POSTINGS, int(COMPACTS * events * postings_per_event))


def retry_after(failures: int) -> float:
    """How many seconds no slice is merged after so many failures in a row."""
    return min(LONGEST_RETRY_S, RETRY_S * 2 ** (failures - 1))
