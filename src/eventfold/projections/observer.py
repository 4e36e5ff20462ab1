"""An observer of the work on read models, subscriptions, processes and effects: for traces, or measurements of a user.

Knows: at which points it is called. Does not know: what it does there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from eventfold.core.envelope import StoredEvent
from eventfold.log.context import Log
from eventfold.ports.target import Checkpoint
from eventfold.projections.definition import ProjectionDefinition, ProjectionLike


class Committed(Protocol):
    """What has been committed of a partition."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint; None if the lease was lost."""
        ...


class Observer(Protocol):
    """Sees the work of one administration: `admin.observed_by(observer)`. Its methods must not raise."""

    def log(self, log: Log) -> Log:
        """Return the log that the work uses, with what the observer puts around it."""
        ...

    def definition(self, projection: ProjectionLike, definition: ProjectionDefinition) -> ProjectionDefinition:
        """Return the definition to run, with what the observer puts around its handlers."""
        ...

    def page(
        self, definition: ProjectionDefinition, events: Sequence[StoredEvent], lease: Committed
    ) -> AbstractContextManager[None]:
        """Return what to enter while events of a page, one or more, are folded or handled, and committed.

        Handlers with SQL may handle only the first of the events: afterwards `lease` has the checkpoint.
        """
        ...
