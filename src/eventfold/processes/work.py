"""What can be run: found at MODULE:NAME, told apart, and processes and effects as subscriptions of the read side.

The read side keeps their checkpoints, leases and parked events. Knows: how a subscription is declared. Does not know:
how an address is imported (projections/catalog.py does), how a subscription is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from eventfold.concurrency import run
from eventfold.core.event import Recorded
from eventfold.errors import InvalidProcess, ProjectionChanged
from eventfold.log.context import Log
from eventfold.processes.classes import Process
from eventfold.processes.definition import Key, key_text, process_definition
from eventfold.processes.effects import Effect, RetryPolicy
from eventfold.processes.reaction import MAX_ACTIONS, ProcessWorker
from eventfold.projections import catalog
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.definition import ProjectionLike, SubscriptionSpec
from eventfold.projections.definition import projection_definition as kept_plan
from eventfold.projections.generations import register

ProcessOrEffect = type[Process] | Effect
Work = ProjectionLike | ProcessOrEffect


def load(address: str) -> list[Work]:
    """All that can be run at MODULE:NAME: one, or a list; MODULE alone: all it declares. Raises InvalidProjection."""
    return catalog.load(address, _declaring_module, "a projection, subscription, process or effect")


def definitions(found: Any, log: Log) -> list[ProjectionLike]:
    """The read side's classes for a class, an effect or an address MODULE:NAME. Raises InvalidProjection."""
    kept, reacting = partition_work(load(found) if isinstance(found, str) else [found])
    return [*kept, *(as_subscription(each, log) for each in reacting)]


def _declaring_module(found: Any) -> str | None:
    """The module that declares something that can be run; None for anything else."""
    if isinstance(found, Effect):
        return found.code.partition(":")[0]
    if isinstance(found, type) and issubclass(found, Process) and found is not Process:
        return found.__module__
    return catalog.declaring_module(found)


def name_of(work: ProcessOrEffect) -> str:
    """The name under which it is kept."""
    return work.name if isinstance(work, Effect) else process_definition(work).name


def policy_of(work: ProcessOrEffect) -> RetryPolicy:
    """How often it is tried again, and when."""
    if isinstance(work, Effect):
        return work.policy
    return RetryPolicy(process_definition(work).attempts, 0.25, 60.0)


def as_subscription(work: ProcessOrEffect, log: Log) -> SubscriptionSpec:
    """A process or an effect, as the read side runs it."""
    if isinstance(work, Effect):
        return SubscriptionSpec(
            work.name, work.code, work.events, work.start, work.partitions, work.call_with, _key_of(work.keys_of)
        )
    definition = process_definition(work)
    worker = ProcessWorker(definition, log)

    def handle(recorded: Recorded[Any]) -> None:
        run(worker.react(recorded))

    return SubscriptionSpec(
        definition.name,
        f"{work.__module__}:{work.__qualname__}",
        definition.events,
        definition.start,
        definition.partitions,
        handle,
        _key_of(definition.keys_of),
        MAX_ACTIONS,
    )


def _key_of(keys: Callable[[Any], list[Key]]) -> Callable[[Any], list[tuple[str]]]:
    """The keys of an event for the read side: each of one field, since a key is identified by its values as text."""
    return lambda event: [(key_text(each),) for each in keys(event)]


def partition_work(work: Sequence[Work]) -> tuple[list[ProjectionLike], list[ProcessOrEffect]]:
    """What is kept up to date, and what reacts. Raises InvalidProcess where there is nothing, or two of a name."""
    reacting: list[ProcessOrEffect] = []
    kept: list[ProjectionLike] = []
    for each in work:
        if isinstance(each, Effect) or (isinstance(each, type) and issubclass(each, Process)):
            reacting.append(each)
        else:
            kept.append(each)
    names = [name_of(each) for each in reacting] + [kept_plan(each).name for each in kept]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not names:
        raise InvalidProcess(
            "There is nothing to run." if twice is None else f"Two of what is to be run are called {twice}.",
            "Name a projection, a process or an effect." if twice is None else "Give one another name (name=…).",
        )
    return kept, reacting


def register_all(admin: ProjectionAdmin, work: Sequence[ProcessOrEffect]) -> list[SubscriptionSpec]:
    """Processes and effects as subscriptions. Changed code is accepted: nothing was made by it but progress."""
    target = admin.catalog.target_at()
    subscriptions: list[SubscriptionSpec] = []
    for each in work:
        made = as_subscription(each, admin.log)
        try:
            with warnings.catch_warnings():
                if not isinstance(each, Effect):  # of events that timers will record there are none yet
                    warnings.simplefilter("ignore", UserWarning)
                run(register(kept_plan(made), admin.log, target))
        except ProjectionChanged:
            admin.accept(made)
        subscriptions.append(made)
    return subscriptions
