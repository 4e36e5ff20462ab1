"""Room: HTTP effects: an event as a POST, signed after the Standard Webhooks specification; and checking signatures.

    webhook-id: the event's id      webhook-timestamp: seconds since 1970      webhook-signature: v1,BASE64
    signed: HMAC-SHA256 over "{id}.{timestamp}.{body}"

Knows: HTTP by the standard library, signatures (standardwebhooks.com). Does not know: the log, when it is tried again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from eventfold.errors import DeliveryFailed, InvalidProcess, InvalidSignature
from eventfold.event import Recorded
from eventfold.process.classes import Start
from eventfold.process.effects import HOUR, Effect, Policy, made

PREFIX = "whsec_"
TOLERANCE = 300.0  # seconds a signature may be old, or from the future
SHOWN = 200  # bytes of an answer that an error quotes


def webhook(
    url: str,
    *events: type,
    secret: str | Sequence[str],
    start: Start,
    name: str,
    timeout: float = 15.0,
    attempts: int = 8,
    first: float = 5.0,
    most: float = 10 * HOUR,
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
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not secrets:
        raise InvalidProcess(
            f"The webhook {name} has no address to post to, or no secret.", "Give https://HOST/PATH and secret=…."
        )

    def deliver(recorded: Recorded[Any]) -> None:
        body = body_of(recorded)
        signed = sign(str(recorded.id), int(clock()), body, secrets)
        _post(url, body, {"content-type": "application/json", **(headers or {}), **signed}, timeout, str(recorded.id))

    return made(
        deliver, name, events, True, start, Policy(attempts, first, most), key, partitions, f"{__name__}:{name}"
    )


def body_of(recorded: Recorded[Any]) -> bytes:
    """What is posted about an event."""
    moment = recorded.occurred or recorded.time
    data = msgspec.Raw(recorded.stored.data) if recorded.stored.codec == "json" else recorded.event
    return msgspec.json.encode({"type": recorded.type, "timestamp": moment, "data": data})


def key_of(secret: str) -> bytes:
    """The key of a secret as it is handed out: `whsec_` and 24 to 64 bytes in base64. Raises InvalidProcess."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 16 <= len(key) <= 128:
        raise InvalidProcess(
            "A webhook's secret is not base64, or of a length that is not safe.",  # the secret itself stays unsaid
            f"Make one: {PREFIX} and 32 random bytes in base64.",
        )
    return key


def sign(identity: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The three headers of a message; one signature for each key."""
    content = f"{identity}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }


def verify(
    headers: Mapping[str, str], body: bytes, secret: str, *, tolerance: float = TOLERANCE, now: float | None = None
) -> Any:
    """What a receiver does: the message's JSON, if it was signed with this secret. Its id is for recognising repeats.

    Raises InvalidSignature where it was not, was changed, or is more than `tolerance` seconds from `now`.
    """
    low = {name.lower(): value for name, value in headers.items()}
    try:
        identity, stamp, given = (low[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        timestamp = int(stamp)
    except (KeyError, ValueError):
        raise InvalidSignature(
            "The request has no usable webhook-id, webhook-timestamp and webhook-signature.", "Refuse it: 400."
        ) from None
    if abs((time.time() if now is None else now) - timestamp) > tolerance:
        raise InvalidSignature("The webhook's timestamp is too far from now.", "Refuse it, and check both clocks.")
    expected = sign(identity, timestamp, body, [key_of(secret)])["webhook-signature"]
    if not any(hmac.compare_digest(expected.encode(), each.encode()) for each in given.split(" ")):
        raise InvalidSignature("The webhook was not signed with this secret, or was changed.", "Refuse it: 401.")
    return msgspec.json.decode(body)


def _post(url: str, body: bytes, headers: Mapping[str, str], timeout: float, identity: str) -> None:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        said = answer.read(SHOWN)
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryFailed(
            f"{parts.hostname} could not be reached ({type(error).__name__}: {error}).",
            "It is tried again.",
            event_id=identity,
        ) from error
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(
            f"{parts.hostname} answered {answer.status} {answer.reason}: {said.decode('utf-8', 'replace').strip()!r}.",
            "It is tried again.",
            status=answer.status,
            event_id=identity,
        )
