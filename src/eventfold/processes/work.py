"""What `run` accepts: projections, subscriptions, processes, effects, and work that is made of these (parts.py).

Processes and effects become subscriptions.

So the runner of `projections` runs them, and keeps their checkpoints, leases and parked events.
Knows: how a subscription is declared. Does not know: how an address is imported (projections/catalog.py does), how a
subscription is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from eventfold.concurrency import run
from eventfold.core.event import Recorded
from eventfold.errors import EventfoldError, InvalidProcess, ProgressUnknown, ProjectionChanged
from eventfold.log.context import Log
from eventfold.processes.classes import Process
from eventfold.processes.definition import Key, key_text, process_definition
from eventfold.processes.effects import Effect, RetryPolicy
from eventfold.processes.parts import Composite, expand, is_composite, module_of
from eventfold.processes.reaction import MAX_ACTIONS, ProcessWorker
from eventfold.projections import catalog
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.definition import ProjectionLike, SubscriptionSpec, projection_definition
from eventfold.projections.generations import register

ProcessOrEffect = type[Process] | Effect
Part = ProjectionLike | ProcessOrEffect
Work = Part | Composite


def load(address: str) -> list[Work]:
    """Return what can be run at MODULE:NAME (one, or a list), or all that MODULE declares. Raises InvalidProjection."""
    return catalog.load(address, _declaring_module, "a projection, subscription, process, effect, alert or delivery")


def definitions(source: Any, log: Log) -> list[ProjectionLike]:
    """Return the projections and subscriptions for a class, an effect or an address MODULE:NAME.

    Raises InvalidProjection, InvalidProcess.
    """
    plain, _ = expand(load(source) if isinstance(source, str) else [source])
    projections, reacting = partition_work(plain)
    return [*projections, *(as_subscription(each, log) for each in reacting)]


def _declaring_module(found: Any) -> str | None:
    """Return the module that declares a class or an effect that can be run; None for anything else."""
    if isinstance(found, Effect):
        return found.code.partition(":")[0]
    if is_composite(found) or (isinstance(found, type) and issubclass(found, Process) and found is not Process):
        return module_of(found)
    return catalog.declaring_module(found)


def name_of(work: ProcessOrEffect) -> str:
    """Return the name of a process or an effect."""
    return work.name if isinstance(work, Effect) else process_definition(work).name


def policy_of(work: ProcessOrEffect) -> RetryPolicy:
    """Return the retry policy of a process or an effect."""
    if isinstance(work, Effect):
        return work.policy
    return RetryPolicy(process_definition(work).attempts, 0.25, 60.0)


def as_subscription(work: ProcessOrEffect, log: Log) -> SubscriptionSpec:
    """Return a process or an effect as a subscription."""
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
    """Return the function for a subscription's keys: each is one text, since keys are compared as text."""
    return lambda event: [(key_text(each),) for each in keys(event)]


def partition_work(work: Sequence[Part]) -> tuple[list[ProjectionLike], list[ProcessOrEffect]]:
    """Separate projections and subscriptions from processes and effects, in this order. None is made of parts.

    Raises InvalidProcess if there is nothing, or if two have the same name.
    """
    reacting: list[ProcessOrEffect] = []
    projections: list[ProjectionLike] = []
    for each in work:
        if isinstance(each, Effect) or (isinstance(each, type) and issubclass(each, Process)):
            reacting.append(each)
        else:
            projections.append(each)
    names = [name_of(each) for each in reacting] + [projection_definition(each).name for each in projections]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not names:
        raise InvalidProcess(
            "There is nothing to run." if twice is None else f"Two of the things to run are named {twice}.",
            "Give a projection, a process or an effect." if twice is None else "Give one another name (name=…).",
        )
    return projections, reacting


def register_all(
    admin: ProjectionAdmin, work: Sequence[ProcessOrEffect], refused: dict[str, EventfoldError] | None = None
) -> dict[ProcessOrEffect, SubscriptionSpec]:
    """Register processes and effects as subscriptions, and return these.

    Changed code is accepted: a subscription has no rows that the earlier code made. `refused`: if given, one whose
    progress is unknown is added to it, by name, and left out.
    """
    subscriptions: dict[ProcessOrEffect, SubscriptionSpec] = {}
    for each in work:
        target, subscription = admin.catalog.target_at(), as_subscription(each, admin.log)
        try:
            with warnings.catch_warnings():
                if not isinstance(each, Effect):  # the events that its timers record may not be in the log yet
                    warnings.simplefilter("ignore", UserWarning)
                run(register(projection_definition(subscription), admin.log, target))
        except ProjectionChanged:
            admin.accept(subscription)
        except ProgressUnknown as error:
            if refused is None:
                raise
            refused[name_of(each)] = error
            continue
        subscriptions[each] = subscription
    return subscriptions
