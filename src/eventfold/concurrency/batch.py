"""One batch of waiting appends, committed, with an outcome for each whatever happens.

Knows: the port's append. Does not know: who waits, or how.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

from eventfold.concurrency.run import run
from eventfold.errors import EventfoldError
from eventfold.ports.messages import AppendRequest, Outcome

MAX_BATCH_REQUESTS = 512  # requests in one commit: beyond it, waiting grows and fsyncs saved do not


class Appends(Protocol):
    """The part of an engine that combining needs."""

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        ...


Door = Callable[[Callable[[], object]], bool]  # of a queue: calls what it is given, which enters, or says no


def at_once(put: Callable[[], object]) -> bool:
    """A door that is always open."""
    put()
    return True


def certain(outcome: Outcome | None) -> Outcome:
    """What came of a request for which the door was open."""
    assert outcome is not None
    return outcome


def counted(outcomes: list[Outcome], requests: Sequence[AppendRequest]) -> list[Outcome]:
    """As many outcomes as requests; anything else is a bug of the engine, and nobody may be left without one."""
    if len(outcomes) != len(requests):
        raise RuntimeError(f"an engine gave {len(outcomes)} outcomes to {len(requests)} requests")
    return outcomes


def commit_batch(engine: Appends, requests: list[AppendRequest]) -> list[Outcome]:
    """Commit one batch, so that whatever goes wrong becomes every request's outcome.

    An interrupt (Ctrl-C) that hits the leader belongs to the leader alone: the batch is asked again first,
    which is safe since ids are the same, and then the interrupt goes on.
    """
    try:
        return counted(run(engine.append_many(requests)), requests)
    except EventfoldError as error:
        return [copy.copy(error) for _ in requests]  # each is raised, and gets its traceback, somewhere else
