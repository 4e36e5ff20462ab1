"""Signed POSTs, after the Standard Webhooks specification; and checking signatures.

    webhook-id: the message's id      webhook-timestamp: seconds since 1970      webhook-signature: v1,BASE64
    signed: HMAC-SHA256 over "{id}.{timestamp}.{body}"

Knows: HTTP by the standard library, signatures (standardwebhooks.com). Does not know: what is posted, why, how often.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from eventfold.errors import DeliveryFailed, InvalidProcess, InvalidSignature

PREFIX = "whsec_"
TOLERANCE = 300.0  # seconds a signature may be old, or from the future
SHOWN = 200  # bytes of an answer that an error quotes


class Answer(NamedTuple):
    """What came back: `status`, and the beginning of what was `said`."""

    status: int
    reason: str
    said: str


def is_address(url: str) -> bool:
    """Whether something can be posted there."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


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


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float, identity: str) -> Answer:
    """Post a message and read the answer, whatever it is. Raises DeliveryFailed where there is none."""
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
    return Answer(answer.status, answer.reason, said.decode("utf-8", "replace").strip())


def accepted(url: str, answer: Answer, identity: str) -> None:
    """Raises DeliveryFailed on anything but 2xx: redirects are not followed."""
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(
            f"{urlsplit(url).hostname} answered {answer.status} {answer.reason}: {answer.said!r}.",
            "It is tried again.",
            status=answer.status,
            event_id=identity,
        )
