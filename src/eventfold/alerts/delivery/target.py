"""What a target is: something that sends one message, or raises DeliveryFailed.

Knows: that errors must not show a secret. Does not know: any technology, when a message is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from eventfold.alerts.delivery.message import Message
from eventfold.errors import DeliveryFailed, EventfoldError

HIDDEN = "…"
RETRIED = "It is retried."
SHORTEST = 4  # characters of a secret that is searched for; a shorter one would hide half of every text


class Target(Protocol):
    """A place to which messages are sent."""

    @property
    def description(self) -> str:
        """What it is and where, for people; without secrets: `webhook to hooks.example.com`."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no error, log or status may show."""
        ...

    def send(self, message: Message) -> None:
        """Send a message, in a thread, and return when the target has accepted it. Raises DeliveryFailed."""
        ...


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text with each secret hidden, the longest first."""
    for secret in sorted({each for each in secrets if len(each) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def guarded(send: Callable[[Message], None], target: Target, message: Message) -> None:
    """Send a message. Raises DeliveryFailed for every error, without secrets and without the error that it hides."""
    try:
        send(message)
        return
    except EventfoldError as error:
        what, remedy, status = error.what, error.remedy, error.fields.get("status")
    except Exception as error:  # noqa: BLE001 (of the user's function, or of a driver: it is reported)
        what, remedy, status = (
            f"{target.description} failed: {type(error).__name__}: {error}".rstrip(".") + ".",
            "",
            None,
        )
    remedy = remedy or RETRIED
    fields = {"event_id": message.id} if status is None else {"event_id": message.id, "status": status}
    raise DeliveryFailed(without_secrets(what, target.secrets), without_secrets(remedy, target.secrets), **fields)
