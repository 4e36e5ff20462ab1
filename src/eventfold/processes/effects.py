"""Effects: functions or signed HTTP POSTs that are called at least once for every event of their classes.

Knows: functions, annotations, retry policies, the body of a webhook. Does not know: the log, an effect's progress, HTTP
and signatures (webhooks.py does).
"""

from __future__ import annotations

import inspect
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from eventfold.core.annotations import EventHint, event_classes, resolving_annotations
from eventfold.core.backoff import Backoff, with_jitter
from eventfold.core.event import Recorded, hint_for_generic, is_event_class
from eventfold.core.renamed import refuse_old_attributes, refuse_old_keywords
from eventfold.core.tags import fields_by_tag, tag_values
from eventfold.errors import InvalidProcess
from eventfold.processes.actions import class_of
from eventfold.processes.classes import Start
from eventfold.processes.definition import check_name

HOUR_S = 3600.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often an event is tried, and how long the pauses are, in seconds.

    The first pause is `first_delay`; each further one is four times as long, up to `max_delay`. Each varies at random
    by up to 25 %, so that events that failed at the same time are not tried again at the same time.
    """

    attempts: int = 8
    first_delay: float = 1.0
    max_delay: float = HOUR_S

    def pause(self, attempts: int) -> float:
        """Return the seconds to wait after this many attempts."""
        return with_jitter(Backoff(self.first_delay, self.max_delay, factor=4.0).pause(attempts), spread=0.25)


@refuse_old_attributes("Effect")
class Effect(msgspec.Struct, frozen=True):
    """A function that is called for events. Calling the effect calls the function, so that it can be tested."""

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
        """Call the function with an event. Returns its result."""
        return self.function(event)

    def call_with(self, recorded: Recorded[Any]) -> None:
        """Call the function for a recorded event, with or without its envelope as it is declared."""
        result = self.function(recorded if self.recorded else recorded.event)
        if hasattr(result, "__await__"):
            if hasattr(result, "close"):
                result.close()  # or Python would warn that it was never awaited
            raise InvalidProcess(
                f"The effect {self.name} is asynchronous, and effects run in threads.", "Make it a plain function."
            )

    def keys_of(self, event: Any) -> list[tuple[Any, ...]]:
        """Return the key of an event as text: events with the same key wait for each other, others do not."""
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
    """Declare a function of one event as an effect: `@effect(start="now")` above `def send(event: Paid) -> None`.

    The function is called at least once for every event that its annotation names: `Paid`, a union, or
    `ef.Recorded[Paid]`, whose `id` is the same at each call and serves as an idempotency key.
    `start`        "now" or "beginning": whether it is called for the events before its first run; there is no default.
    `attempts`     how often an event is tried if the function raises; then it is parked until an operator retries or
                   skips it.
    `first_delay`  seconds before the second attempt; each further pause is four times as long, up to `max_delay`.
    `key`          the tag key by which events wait for each other: a later event waits while one with the same tag is
                   tried again. None: events with all tags equal wait for each other.
    `partitions`   how many events may be handled at the same time.
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
    """Return an effect after checking its options. Raises InvalidProcess."""
    check_name(name, "an effect")
    if start not in ("now", "beginning"):
        raise InvalidProcess(f"The effect {name} starts at {start!r}.", 'Write start="now" or start="beginning".')
    if policy.attempts < 1 or partitions < 1 or policy.first_delay < 0 or policy.max_delay < 0:
        raise InvalidProcess(
            f"The effect {name} has no attempt, no partition or a negative delay.",
            "Give attempts and partitions of 1 or more, and delays of 0 or more.",
        )
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
    """Return an effect that POSTs events to `url`, signed with `secret` (`whsec_…`).

    Give several secrets while one replaces another. The body is `{"type", "timestamp", "data"}`; the header
    `webhook-id` is the event's id, the same at every attempt. An event is delivered if the answer is 2xx within
    `timeout` seconds; redirects are not followed. The other options are those of `effect`. Raises InvalidProcess if the
    address or a secret is invalid.
    """
    from eventfold.webhooks import accepted, is_address, key_of, post, sign  # here, so that only webhooks load HTTP

    secrets = [key_of(each) for each in ([secret] if isinstance(secret, str) else secret)]
    if not is_address(url) or not secrets:
        raise InvalidProcess(
            f"The webhook {name} has no address to post to, or no secret.", "Give https://HOST/PATH and secret=…."
        )

    def deliver(recorded: Recorded[Any]) -> None:
        body = body_of(recorded)
        signed = sign(str(recorded.id), int(clock()), body, secrets)
        all_headers = {"content-type": "application/json", **(headers or {}), **signed}
        accepted(url, post(url, body, all_headers, timeout, str(recorded.id)), str(recorded.id))

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
    """Return the body of the POST for an event, as JSON."""
    moment = recorded.occurred or recorded.time
    data = msgspec.Raw(recorded.stored.data) if recorded.stored.codec == "json" else recorded.event
    return msgspec.json.encode({"type": recorded.type, "timestamp": moment, "data": data})
