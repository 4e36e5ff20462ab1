"""Finding what is to be run by its address, MODULE:NAME: read models, subscriptions, processes, effects.

Knows: what can be run. Does not know: how it is imported (projections/catalog.py does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventfold.processes.classes import Process
from eventfold.processes.effects import Effect
from eventfold.projections import catalog

if TYPE_CHECKING:
    from eventfold.log.context import Log
    from eventfold.processes.runner import Work
    from eventfold.projections.definition import ProjectionLike

# What runs processes is imported when something is run: a store that runs nothing does not pay for its import.


def load(address: str) -> list[Work]:
    """All that can be run at MODULE:NAME: one, or a list; MODULE alone: all it declares. Raises InvalidProjection."""
    return catalog.load(address, _declaring_module, "a projection, subscription, process or effect")


def definitions(found: Any, log: Log) -> list[ProjectionLike]:
    """The read side's classes for a class, an effect or an address MODULE:NAME. Raises InvalidProjection."""
    from eventfold.processes.runner import partition_work
    from eventfold.processes.subscription import as_subscription

    kept, reacting = partition_work(load(found) if isinstance(found, str) else [found])
    return [*kept, *(as_subscription(each, log) for each in reacting)]


def _declaring_module(found: Any) -> str | None:
    """The module that declares something that can be run; None for anything else."""
    if isinstance(found, Effect):
        return found.code.partition(":")[0]
    if isinstance(found, type) and issubclass(found, Process) and found is not Process:
        return found.__module__
    return catalog.declaring_module(found)
