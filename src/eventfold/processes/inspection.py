"""The instances of processes and effects for operators: which are stuck and why, which wait and for what.

Knows: timers and parked events; with the class, states. Does not know: terminals, runners.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import from_micros
from eventfold.core.json_values import decode
from eventfold.core.questions import question_of
from eventfold.core.state import state_definition_of
from eventfold.log.lookups import tag_names_of
from eventfold.log.read import load
from eventfold.processes.classes import Process
from eventfold.processes.definition import key_text, process_definition
from eventfold.processes.retries import first_parked_by_key, live_checkpoints
from eventfold.processes.timers import TimerQueue
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.failures import StopReason

InstanceState = Literal["stuck", "waiting", "running", "finished"]
PAGE = 1_000  # tags
ORDER: tuple[InstanceState, ...] = ("stuck", "waiting", "running", "finished")


class Instance(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance of a process, or one key of an effect.

    `state` "stuck": the event at `position` failed `attempts` times with `error`, and `behind` later events wait for
    it; it may be tried again. "waiting": for `timers` timers; the next one records an event of the type `timer`
    at `due` (an ISO time in UTC).
    """

    process: str
    key: str
    state: InstanceState
    timer: str = ""
    due: str = ""
    timers: int = 0
    position: int = 0
    error: str = ""
    attempts: int = 0
    behind: int = 0


def names(admin: ProjectionAdmin) -> list[str]:
    """Return the names of all processes and effects that a store has timers or records of, sorted."""
    with_timers, after = set[str](), ""
    while tags := run(tag_names_of(admin.log, "$process:", PAGE, after)):
        with_timers.update(tag.partition(":")[2] for tag in tags)
        after = tags[-1]
    return sorted(with_timers | {each.name for each in admin.catalog.target_at().records() if each.kind == "effects"})


def stuck(admin: ProjectionAdmin, name: str) -> list[Instance]:
    """Return the stuck instances, by position: for each key the event that the others wait for."""
    target = admin.catalog.target_at()
    if target.record(name) is None:
        return []
    stopped = [
        Instance(
            name, "", "stuck", position=reason.position, error=f"all of it: {reason.error}", attempts=reason.attempts
        )
        for checkpoint in live_checkpoints(target, name)
        if checkpoint.stopped
        for reason in [decode(checkpoint.stopped, StopReason)]
    ]
    entries = [entry for entry in admin.parked(name) if entry.state != "skipped"]
    return stopped + [
        Instance(
            name,
            entry.key,
            "stuck",
            position=entry.position,
            error=entry.error,
            attempts=entry.attempts,
            behind=sum(entry.key == each.key for each in entries) - 1,
        )
        for entry in first_parked_by_key(entries)
    ]


def waiting(admin: ProjectionAdmin, name: str) -> list[Instance]:
    """Return the instances that wait for a timer, ordered by their next timer."""
    queue = TimerQueue(name, admin.log)
    run(queue.catch_up())
    first: dict[str, Instance] = {}
    for each in queue.waiting:
        fact = each.fact
        instance = first.get(fact.key)
        if instance is None:
            due = from_micros(fact.due).isoformat().replace("+00:00", "Z")
            first[fact.key] = Instance(name, fact.key, "waiting", timer=fact.type, due=due, timers=1)
        else:
            first[fact.key] = msgspec.structs.replace(instance, timers=instance.timers + 1)
    return list(first.values())


def list_instances(admin: ProjectionAdmin, name: str) -> list[Instance]:
    """Return the stuck instances, then the waiting ones."""
    failed = stuck(admin, name)
    keys = {each.key for each in failed}
    return [*failed, *(each for each in waiting(admin, name) if each.key not in keys)]


def list_all_instances(admin: ProjectionAdmin, cls: type[Process], questions: Iterable[Process]) -> list[Instance]:
    """Return the same for one class, and in addition which of these instances are running or finished."""
    name = process_definition(cls).name
    by_key = {each.key: each for each in list_instances(admin, name)}
    for question in questions:
        key = key_text(state_definition_of(cls).key(question)[1:])
        instance = by_key.get(key)
        if instance is not None and instance.state == "stuck":
            continue
        if not run(admin.log.engine.count(question.query())):
            continue
        state, _ = run(load(admin.log, question))
        if state.done():
            by_key[key] = msgspec.structs.replace(instance or Instance(name, key, "finished"), state="finished")
        elif instance is None:
            by_key[key] = Instance(name, key, "running")
    return sorted(by_key.values(), key=lambda each: ORDER.index(each.state))


def possible_questions(admin: ProjectionAdmin, cls: type[Process]) -> Iterator[Process]:
    """Return the possible instances, from the values of the tag; none if the question has several fields."""
    if not state_definition_of(cls).question:
        yield cls()
    if len(state_definition_of(cls).question) != 1:
        return
    prefix, after = f"{process_definition(cls).tags[0]}:", ""
    while tags := run(tag_names_of(admin.log, prefix, PAGE, after)):
        for tag in tags:
            yield from questions_with(cls, tag.removeprefix(prefix))
        after = tags[-1]


def questions_with(cls: type[Process], key: str) -> list[Process]:
    """Return the question of a key as text, in a list; [] if it has several fields. Raises InvalidState."""
    fields = state_definition_of(cls).question
    if len(fields) > 1 or bool(fields) != bool(key):
        return []
    question = question_of(cls, dict.fromkeys(fields, key), f"Give a value for {', '.join(fields)}.")
    return [question] if isinstance(question, cls) else []
