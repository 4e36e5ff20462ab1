"""HTTP effects: an event as a signed POST.

Knows: what is said about an event. Does not know: HTTP and signatures (webhooks.py does), when it is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.core.event import Recorded
from eventfold.errors import InvalidProcess
from eventfold.processes.classes import Start
from eventfold.processes.effects import HOUR_S, Effect, RetryPolicy, build_effect
from eventfold.webhooks import accepted, is_address, key_of, post, sign, verify

__all__ = ["body_of", "key_of", "sign", "verify", "webhook"]


def webhook(
    url: str,
    *events: type,
    secret: str | Sequence[str],
    start: Start,
    name: str,
    timeout: float = 15.0,
    attempts: int = 8,
    first: float = 5.0,
    most: float = 10 * HOUR_S,
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
        deliver, name, events, True, start, RetryPolicy(attempts, first, most), key, partitions, f"{__name__}:{name}"
    )


def body_of(recorded: Recorded[Any]) -> bytes:
    """What is posted about an event."""
    moment = recorded.occurred or recorded.time
    data = msgspec.Raw(recorded.stored.data) if recorded.stored.codec == "json" else recorded.event
    return msgspec.json.encode({"type": recorded.type, "timestamp": moment, "data": data})
