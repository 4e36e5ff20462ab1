"""A small application with one of everything that may have to do with an event, for the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import eventfold as ef
from eventfold.processes import after, decide, effect
from tests.schema import workshop_events
from tests.schema.workshop_events import JobFinished, JobTaken


class Job(ef.Aggregate):
    """Decides by methods."""

    job: ef.Tag
    open: bool = False

    def take(self) -> None:
        """Records."""
        self.record(JobTaken(self.job))

    def evolve(self, event: JobTaken | JobFinished) -> None:
        """Folds."""
        self.open = isinstance(event, JobTaken)


def finish(job: Job) -> list[ef.Event]:
    """Decides, by a module's name."""
    return [workshop_events.JobFinished(job.job)] if job.open else []


def give_up(job: Job) -> JobFinished | None:
    """Decides, as its annotation says."""
    made = JobFinished
    return made(job.job) if job.open else None


class Jobs(ef.Projection):
    """Keeps rows."""

    job: str
    open: bool = True

    def evolve(self, event: JobTaken | JobFinished) -> None:
        """Projects."""
        self.open = isinstance(event, JobTaken)


class JobCounts(ef.SqlProjection):
    """Keeps rows by SQL."""

    tables = {"job_counts": "n integer"}  # noqa: RUF012

    def taken(self, event: JobTaken, tx: ef.Transaction) -> None:
        """Projects."""


class Caller(ef.Subscription, start="now"):
    """Calls a customer."""

    def finished(self, event: JobFinished) -> None:
        """Reacts."""


class Supervision(ef.Process, start="now"):
    """Looks after jobs that take too long."""

    job: ef.Tag

    def evolve(self, event: JobTaken) -> None:
        """Folds."""

    def react(self, event: JobTaken | workshop_events.JobOverdue) -> Iterator[Any]:
        """Reacts, and has an event recorded later."""
        match event:
            case JobTaken():
                yield after(workshop_events.JobOverdue(self.job), days=1)
            case workshop_events.JobOverdue():
                yield decide(finish, Job(self.job))


@effect(start="now")
def bill(event: JobFinished) -> None:
    """Reacts."""
