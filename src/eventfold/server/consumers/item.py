"""One event that a consumer has not finished: where it waits, how often it was delivered, and under which token.

Knows: the states of an event, the text of a token. Does not know: other events, storage, clocks.
"""

from __future__ import annotations

import secrets
from typing import Literal

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.errors import InvalidInput
from eventfold.ports.target import EntryState, ParkedEvent

State = Literal["waiting", "delivered", "parked"]


class Item(msgspec.Struct, kw_only=True, gc=False):
    """An event that is not finished. Times are seconds of the clock that its caller uses.

    `stored` is None until it is read, for an event that has an entry in the target. `attempts`: deliveries so far.
    `secret` is part of the token of the last delivery. `deadline`: when a delivered one is to be delivered again;
    `not_before`: when a waiting one may be delivered. `has_entry`: the target has, or will have with the next commit,
    an entry of it. `allowed`: how many deliveries it may have before it is parked.
    """

    position: int
    event_id: bytes
    type: str
    keys: tuple[str, ...]
    allowed: int
    stored: StoredEvent | None = None
    state: State = "waiting"
    attempts: int = 0
    error: str = ""
    secret: str = ""
    deadline: float = 0.0
    not_before: float = 0.0
    has_entry: bool = False

    def deliver(self, deadline: float) -> None:
        """Note a delivery, under a new token."""
        self.state, self.deadline = "delivered", deadline
        self.attempts += 1
        self.secret = secrets.token_hex(8)

    @property
    def token(self) -> str:
        """The token of the last delivery."""
        return f"{self.position}.{self.attempts}.{self.secret}"

    def entry(self) -> ParkedEvent:
        """The entry of the event in the target: parked, or due for another attempt."""
        state: EntryState = "parked" if self.state == "parked" else "due"
        return ParkedEvent(
            self.position, self.event_id.hex(), self.type, " | ".join(self.keys), state, self.error, self.attempts
        )


class Delivery(msgspec.Struct, frozen=True):
    """One delivery of an event to a worker."""

    stored: StoredEvent
    attempt: int
    token: str


class Token(msgspec.Struct, frozen=True):
    """A delivery token, parsed."""

    position: int
    attempt: int
    secret: str

    @classmethod
    def parse(cls, text: str) -> Token:
        """Parse a token. Raises InvalidInput if the text is none."""
        position, _, rest = text.partition(".")
        attempt, _, secret = rest.partition(".")
        numbers = position.isascii() and position.isdigit() and attempt.isascii() and attempt.isdigit()
        if not numbers or len(position) > 19 or len(attempt) > 9 or len(secret) != 16:
            raise InvalidInput(f"{text[:60]!r} is no delivery token.", "Pass the `token` of a delivery, unchanged.")
        return cls(int(position), int(attempt), secret)
