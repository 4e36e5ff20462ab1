"""Effects, what is done outside the log about an event: a plain function, or a signed POST, at least once for each.

Knows: functions, annotations, policies; what is said about an event. Does not know: the log, how far it has come, what
the function does, HTTP and signatures (webhooks.py does).
"""

from __future__ import annotations

import inspect
import random
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from eventfold.core.annotations import EventHint, event_classes, resolving_annotations
from eventfold.core.event import Recorded, hint_for_generic, is_event_class
from eventfold.core.renamed import refuse_old_keywords
from eventfold.core.tags import fields_by_tag, tag_values
from eventfold.errors import InvalidProcess
from eventfold.processes.actions import class_of
from eventfold.processes.classes import Start
from eventfold.processes.definition import check_name

HOUR_S = 3600.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often an event is tried (`attempts`), and how long is waited in between: `first_delay` seconds, then four
    times as long with each attempt, up to `max_delay`; each spread by chance, so that what failed together does not
    come back together.
    """

    attempts: int = 8
    first_delay: float = 1.0
    max_delay: float = HOUR_S

    def pause(self, attempts: int) -> float:
        """Seconds to wait after so many attempts."""
        return min(self.first_delay * 4.0 ** min(attempts - 1, 30), self.max_delay) * random.uniform(0.75, 1.25)  # noqa: S311 (not a secret)


class Effect(msgspec.Struct, frozen=True):
    """A function to be called for events. Calling it calls the function, so it can be tested as it is."""

    function: Callable[[Any], Any]
    name: str
    events: tuple[type, ...]
    recorded: bool
    start: Start
    policy: RetryPolicy
    key: str | None
    partitions: int
    code: str

    def __call__(self, event: Any) -> Any:
        """Do it, now."""
        return self.function(event)

    def call_with(self, recorded: Recorded[Any]) -> None:
        """Do it about one event."""
        done = self.function(recorded if self.recorded else recorded.event)
        if hasattr(done, "__await__"):
            if hasattr(done, "close"):
                done.close()  # or Python would warn that it was never awaited
            raise InvalidProcess(
                f"The effect {self.name} is asynchronous, and effects run in threads.", "Make it a plain function."
            )

    def keys_of(self, event: Any) -> list[tuple[Any, ...]]:
        """What an event is about: those about the same wait for each other, others go on."""
        values = [
            f"{key}:{text}"
            for key, fields in fields_by_tag(class_of(event)).items()
            if self.key in (None, key)
            for field in fields
            for text in tag_values(getattr(event, field))
        ]
        return [(" ".join(sorted(set(values))),)]


@refuse_old_keywords
def effect(
    *,
    start: Start,
    name: str | None = None,
    attempts: int = 8,
    first_delay: float = 1.0,
    max_delay: float = HOUR_S,
    key: str | None = None,
    partitions: int = 1,
) -> Callable[[Callable[[Any], Any]], Effect]:
    """Declares a function of one event as an effect: `@effect(start="now")`, above `def send(event: Paid) -> None`.

    The function is called at least once for every event its annotation names (`Paid`, a union, or `ef.Recorded[Paid]`,
    whose `id` is the same every time: use it as key where it does something). `start` "now" or "beginning"; there is no
    default. Where it raises, it is tried again after `first_delay` seconds, four times as long with every attempt up to
    `max_delay`, `attempts` times; then the event is parked until an operator retries or skips it. Events with the same
    tags (or the same tag `key`) wait for each other, others go on. `partitions`: how many are done at the same time.
    """

    def declare(function: Callable[[Any], Any]) -> Effect:
        events, _, recorded = _event_classes_of(function, sys._getframe(1).f_locals)  # pyright: ignore[reportPrivateUsage]
        code = f"{function.__module__}:{function.__qualname__}"
        return build_effect(
            function,
            name or function.__name__,
            events,
            recorded,
            start,
            RetryPolicy(attempts, first_delay, max_delay),
            key,
            partitions,
            code,
        )

    return declare


def build_effect(
    function: Callable[[Any], Any],
    name: str,
    events: tuple[type, ...],
    recorded: bool,
    start: Start,
    policy: RetryPolicy,
    key: str | None,
    partitions: int,
    code: str,
) -> Effect:
    """An effect, checked. Raises InvalidProcess."""
    check_name(name, "an effect")
    if start not in ("now", "beginning"):
        raise InvalidProcess(f"The effect {name} starts at {start!r}.", 'Say start="now" or start="beginning".')
    if policy.attempts < 1 or partitions < 1 or policy.first_delay < 0 or policy.max_delay < 0:
        raise InvalidProcess(f"The effect {name} has no attempt, no partition or a negative pause.", "Give 1 or more.")
    for event in events:
        if not is_event_class(event):
            raise InvalidProcess(
                f"The effect {name} takes {event!r}, which is no event class.",
                hint_for_generic(event) or "Name event classes.",
            )
    if not events:
        raise InvalidProcess(f"The effect {name} takes no events.", "Name event classes.")
    return Effect(function, name, events, recorded, start, policy, key, partitions, code)


def _event_classes_of(function: Callable[[Any], Any], scope: dict[str, Any]) -> EventHint:
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 1 or inspect.iscoroutinefunction(function):
        raise InvalidProcess(
            f"The effect {function.__qualname__} is no plain function of one event.",
            "Write def send(event: Paid) -> None.",
        )
    with resolving_annotations(function.__qualname__, InvalidProcess):
        hint = typing.get_type_hints(function, None, scope).get(parameters[0])
    return event_classes(hint, partial(_refuse, function.__qualname__), recorded=True)


def _refuse(name: str, what: str, remedy: str | None) -> InvalidProcess:
    return InvalidProcess(f"The effect {name} {what}.", remedy or "Annotate it: def send(event: Paid) -> None.")


@refuse_old_keywords
def webhook(
    url: str,
    *events: type,
    secret: str | Sequence[str],
    start: Start,
    name: str,
    timeout: float = 15.0,
    attempts: int = 8,
    first_delay: float = 5.0,
    max_delay: float = 10 * HOUR_S,
    key: str | None = None,
    partitions: int = 1,
    headers: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Effect:
    """An effect that POSTs events to `url`, signed with `secret` (`whsec_…`; several while one replaces another).

    The body is `{"type", "timestamp", "data"}`; `webhook-id` is the event's id, the same at every attempt. Delivered is
    what is answered by 2xx within `timeout` seconds; redirects are not followed. See `effect` for the rest.
    Raises InvalidProcess on an address or a secret that is none.
    """
    from eventfold.webhooks import accepted, is_address, key_of, post, sign  # here: HTTP is for those who post

    secrets = [key_of(each) for each in ([secret] if isinstance(secret, str) else secret)]
    if not is_address(url) or not secrets:
        raise InvalidProcess(
            f"The webhook {name} has no address to post to, or no secret.", "Give https://HOST/PATH and secret=…."
        )

    def deliver(recorded: Recorded[Any]) -> None:
        body = body_of(recorded)
        signed = sign(str(recorded.id), int(clock()), body, secrets)
        given = {"content-type": "application/json", **(headers or {}), **signed}
        accepted(url, post(url, body, given, timeout, str(recorded.id)), str(recorded.id))

    return build_effect(
        deliver,
        name,
        events,
        True,
        start,
        RetryPolicy(attempts, first_delay, max_delay),
        key,
        partitions,
        f"{__name__}:{name}",
    )


def body_of(recorded: Recorded[Any]) -> bytes:
    """What is posted about an event."""
    moment = recorded.occurred or recorded.time
    data = msgspec.Raw(recorded.stored.data) if recorded.stored.codec == "json" else recorded.event
    return msgspec.json.encode({"type": recorded.type, "timestamp": moment, "data": data})
