"""What the log keeps of a job: that it has begun, and how it ended. A job that has not ended goes on after a restart.

Knows: the events. Does not know: who runs a job.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from eventfold.core.event import Event, Recorded
from eventfold.core.query import Query

BEGUN, ENDED = "$job-begun", "$job-ended"
JOB_EVENTS = Query.of(types=[BEGUN, ENDED])
Kind = Literal["rebuild", "verify"]
Outcome = Literal["done", "failed", "stopped"]


class JobBegun(Event, type="$job-begun"):
    """A job has begun. `projection` "": of the whole store. `head`: the position at which it began.

    `rows`: whether a verification compares rows. `at`: the position as of which a read model is built; None: the head.
    `switch`: whether the generation that was built is made the live one.
    """

    job: str
    kind: Kind
    projection: str = ""
    head: int = 0
    rows: bool = False
    at: int | None = None
    switch: bool = False


class JobEnded(Event, type="$job-ended"):
    """A job has ended: `verdict` is one sentence. `proved`: the result of a verification."""

    job: str
    outcome: Outcome
    verdict: str
    proved: bool | None = None


class JobInLog(msgspec.Struct):
    """A job as the log has it; `ended` None: it has not ended."""

    begun: Recorded[JobBegun]
    ended: Recorded[JobEnded] | None = None


def tag_of(job: str) -> str:
    """The tag of the events of a job."""
    return f"$job:{job}"
