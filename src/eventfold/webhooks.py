"""Webhooks: sign and post messages, and verify received ones, as the Standard Webhooks specification defines.

    webhook-id: the message's id      webhook-timestamp: seconds since 1970      webhook-signature: v1,BASE64
    signed: HMAC-SHA256 over "{id}.{timestamp}.{body}"

Knows: HTTP (the standard library's), signatures (standardwebhooks.com). Does not know: what is posted, when, retries.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from eventfold.concurrency.deadlines import Stopped, run_within
from eventfold.errors import DeliveryFailed, InvalidProcess, InvalidSignature

PREFIX = "whsec_"
TOLERANCE = 300.0  # seconds that a signature's timestamp may be in the past or in the future
READ, SHOWN = 4_096, 200  # bytes of a response that are read; characters that an error quotes


class Answer(NamedTuple):
    """A response: `status`, `reason`, and in `said` the beginning of its body if it is not 2xx."""

    status: int
    reason: str
    said: str


def is_address(url: str) -> bool:
    """Whether this is an HTTP or HTTPS address with a host."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def key_of(secret: str) -> bytes:
    """Return the key of a secret: `whsec_` and 16 to 128 bytes in base64. Raises InvalidProcess.

    The specification asks for 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 16 <= len(key) <= 128:
        raise InvalidProcess(
            "A webhook's secret is not valid base64, or its length is not safe.",  # does not quote the secret
            f"Create one: {PREFIX} and 32 random bytes in base64.",
        )
    return key


def sign(identity: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the three headers of a message; `webhook-signature` has one signature for each key."""
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
    """Return the JSON of a received message if it was signed with this secret. Its `webhook-id` identifies repeats.

    `now` is in seconds since 1970, by default the current time. Raises InvalidSignature if it was not signed with this
    secret, was changed, or its timestamp differs from `now` by more than `tolerance` seconds.
    """
    low = {name.lower(): value for name, value in headers.items()}
    try:
        identity, stamp, given = (low[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        timestamp = int(stamp)
    except (KeyError, ValueError):
        raise InvalidSignature(
            "The request has no valid webhook-id, webhook-timestamp and webhook-signature.",
            "Answer with 400.",
        ) from None
    if abs((time.time() if now is None else now) - timestamp) > tolerance:
        raise InvalidSignature("The webhook's timestamp is too far from now.", "Refuse it, and check both clocks.")
    expected = sign(identity, timestamp, body, [key_of(secret)])["webhook-signature"]
    if not any(hmac.compare_digest(expected.encode(), each.encode()) for each in given.split(" ")):
        raise InvalidSignature("The webhook was not signed with this secret, or was changed.", "Answer with 401.")
    return msgspec.json.decode(body)


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float, identity: str) -> Answer:
    """Post a message and return the response, whatever its status.

    `timeout`: seconds for everything together, however slowly the host answers. Raises DeliveryFailed if there is no
    response until then, or until a second after the runner of this thread was stopped.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    begun: list[Answer] = []  # a response whose body has not been read
    known: list[Answer] = []  # the same, before the connection was cut: after that a part looks like a whole

    def cut() -> None:
        known.extend(begun)
        _cut(connection)

    try:
        return run_within(timeout, lambda: _post(connection, path, body, dict(headers), identity, begun), cut)
    except TimeoutError:
        if known:  # it has a status, which says more
            return known[0]
        what = f"{parts.hostname} has not answered within {timeout:g} s."
    except Stopped:
        what = f"{parts.hostname} had not answered when the runner was stopped."
    raise DeliveryFailed(what, "It is retried.", event_id=identity)


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a call that was given up: its thread must not wait for the host."""
    if (open_socket := connection.sock) is not None:
        with contextlib.suppress(OSError):
            open_socket.shutdown(socket.SHUT_RDWR)


def _post(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes,
    headers: dict[str, str],
    identity: str,
    begun: list[Answer],
) -> Answer:
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        begun.append(Answer(answer.status, answer.reason, ""))
        said = b"" if 200 <= answer.status < 300 else _beginning(answer)
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryFailed(
            f"{connection.host} could not be reached ({type(error).__name__}: {error}).",
            "It is retried.",
            event_id=identity,
        ) from error
    finally:
        connection.close()
    return Answer(answer.status, answer.reason, said.decode("utf-8", "replace").strip())


def _beginning(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(READ)
    except (OSError, http.client.HTTPException):  # it has a status, which says more
        return b""


def accepted(url: str, answer: Answer, identity: str) -> None:
    """Raise DeliveryFailed on any status but 2xx: redirects are not followed."""
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(
            f"{urlsplit(url).hostname} answered {answer.status} {answer.reason}: {answer.said[:SHOWN]!r}.",
            "It is retried.",
            status=answer.status,
            event_id=identity,
        )
