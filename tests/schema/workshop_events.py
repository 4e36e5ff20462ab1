"""The events of a small application, in a module of their own."""

from __future__ import annotations

import eventfold as ef


class JobTaken(ef.Event, type="workshop-job-taken"):
    """A worker | something took a job."""

    job: ef.Tag


class JobFinished(ef.Event, type="workshop-job-finished"):
    """It is done."""

    job: ef.Tag
    tools: list[str] = []


class JobOverdue(ef.Event, type="workshop-job-overdue"):
    """It should have been done."""

    job: ef.Tag
