"""Processes and effects as subscriptions of the read side, which keeps checkpoints, leases, parked events.

Knows: how a subscription is declared. Does not know: how one is run.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from eventfold.concurrency import run
from eventfold.core.class_data import set_class_data
from eventfold.core.event import Recorded
from eventfold.log.context import Log
from eventfold.processes.classes import Process, Start
from eventfold.processes.definition import ProcessDefinition, key_text, process_definition
from eventfold.processes.effects import Effect, RetryPolicy
from eventfold.processes.reaction import MAX_ACTIONS, ProcessWorker
from eventfold.projections.classes import RECORDED, Subscription

ProcessOrEffect = type[Process] | Effect


def name_of(work: ProcessOrEffect) -> str:
    """The name under which it is kept."""
    return work.name if isinstance(work, Effect) else process_definition(work).name


def policy_of(work: ProcessOrEffect) -> RetryPolicy:
    """How often it is tried again, and when."""
    if isinstance(work, Effect):
        return work.policy
    return RetryPolicy(process_definition(work).attempts, 0.25, 60.0)


def as_subscription(work: ProcessOrEffect, log: Log) -> Subscription:
    """Something to be done about events, as the read side runs it: an instance of a class made for it."""
    if isinstance(work, Effect):
        module, _, place = work.code.partition(":")
        return _subscription(work, work.name, (module, place), work.call_with, work.keys_of)
    plan = process_definition(work)
    reacting = ProcessWorker(plan, log)

    def take(recorded: Recorded[Any]) -> None:
        run(reacting.react(recorded))

    return _subscription(plan, plan.name, (work.__module__, work.__qualname__), take, plan.keys_of)


def _subscription(
    work: ProcessDefinition | Effect,
    name: str,
    place: tuple[str, str],
    take: Callable[[Recorded[Any]], None],
    keys: Callable[[Any], list[tuple[Any, ...]]],
) -> Subscription:
    start: Start = work.start

    def body(namespace: dict[str, Any]) -> None:
        def handle(self: Any, event: Any) -> None:
            take(event)

        set_class_data(handle, RECORDED, work.events)

        def key(event: Any) -> Any:
            # One field a key, whatever its size: the read side tells a key by its values' text.
            return [(key_text(each),) for each in keys(event)]

        namespace.update(__module__=place[0], __qualname__=place[1], handle=handle, key=staticmethod(key))
        namespace["at_once"] = MAX_ACTIONS if isinstance(work, ProcessDefinition) else 1

    # One attempt at a time: what comes after a failure waits for its key only, never for all of them.
    terms = {"name": name, "start": start, "on_error": "park", "attempts": 1, "partitions": work.partitions}
    made = types.new_class(place[1].rpartition(".")[2], (Subscription,), terms, body)
    return made()
