"""A target that is a webhook: each message as a signed POST, as the Standard Webhooks specification defines.

Knows: the body, which parts of an address are secret. Does not know: signatures and HTTP (webhooks.py does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

import msgspec

from eventfold.alerts.delivery.message import Message
from eventfold.alerts.delivery.target import without_secrets
from eventfold.errors import InvalidProcess
from eventfold.webhooks import accepted, is_address, key_of, post, sign


class Webhook:
    """POSTs of `{"type": "alert.raised", "timestamp", "data"}`; the header `webhook-id` is the id of the message."""

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str] | None,
        timeout: float,
        headers: Mapping[str, str] | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        given = [] if secret is None else [secret] if isinstance(secret, str) else list(secret)
        check_address(url, "webhook")
        check_headers(headers or {})
        self._url, self._timeout, self._headers, self._clock = url, timeout, dict(headers or {}), clock
        self._keys = [key_of(each) for each in given]
        self.secrets = (*secret_parts(url), *given, *secret_words(self._headers))

    @property
    def description(self) -> str:
        """The host, without the path, which may contain a token."""
        return f"webhook to {host_of(self._url)}"

    def send(self, message: Message) -> None:
        """Post a message. Raises DeliveryFailed unless the answer is 2xx."""
        body = msgspec.json.encode(
            {"type": f"alert.{message.kind}", "timestamp": message.time, "data": message.as_data()}
        )
        signed = sign(message.id, int(self._clock()), body, self._keys)
        if not self._keys:
            del signed["webhook-signature"]
        headers = {"content-type": "application/json", **self._headers, **signed}
        answer = post(self._url, body, headers, self._timeout, message.id)
        accepted(self._url, answer._replace(said=without_secrets(answer.said, self.secrets)), message.id)


def check_address(url: str, what: str) -> None:
    """Raise InvalidProcess, which does not quote the address, unless it is one that can be posted to."""
    try:
        parts = urlsplit(url)
        usable = is_address(url) and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:  # of the port
        parts, usable = None, False
    if not usable:
        raise InvalidProcess(f"The {what} has no address to post to.", "Give https://HOST/PATH.")
    if parts is not None and parts.username is not None:
        raise InvalidProcess(
            f"The address of the {what} has a user or a password.", 'Give headers={"authorization": "…"} instead.'
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise InvalidProcess, which does not quote the value, unless each header can be sent."""
    for name, value in headers.items():
        if not (name.isascii() and name.replace("-", "").isalnum() and value.isascii() and value.isprintable()):
            raise InvalidProcess(
                f"The header {name[:40]!r} has a name or a value that cannot be sent.",
                "Use letters, digits and - in the name, and printable ASCII in the value.",
            )


def host_of(url: str) -> str:
    """Return the host of an address, with the port if it has one."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def secret_parts(url: str) -> tuple[str, ...]:
    """Return the parts of an address that may be a token: all after the host."""
    parts = urlsplit(url)
    values = (value for _, value in parse_qsl(parts.query))
    found = (url, parts.path, parts.query, *values, *(each for each in parts.path.split("/") if len(each) >= 8))
    return tuple(each for each in found if each not in ("", "/"))


def secret_words(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of headers, and each word of them: a receiver may quote the token without `Bearer`."""
    return tuple(word for value in headers.values() for word in (value, *value.split()))
