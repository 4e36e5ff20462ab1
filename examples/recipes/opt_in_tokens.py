"""Opt-in tokens.

Explained in docs/how-to/recipes/opt-in-tokens.md, which shows the same code.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import eventfold as ef


class OptInRequested(ef.Event):
    token: ef.Tag  # the SHA-256 of the token, in hex
    person: ef.Tag
    expires: datetime


class OptInConfirmed(ef.Event):
    token: ef.Tag
    person: ef.Tag


class OptIn(ef.State):
    token: ef.Tag
    person: str | None = None
    expires: datetime | None = None
    used: bool = False

    def evolve(self, event: OptInRequested | OptInConfirmed) -> None:
        match event:
            case OptInRequested():
                self.person, self.expires = event.person, event.expires
            case OptInConfirmed():
                self.used = True


class TokenRefused(Exception):
    pass


def fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def confirm(opt_in: OptIn, now: datetime) -> OptInConfirmed:
    if opt_in.person is None or opt_in.expires is None:
        raise TokenRefused("unknown")
    if opt_in.used:
        raise TokenRefused("used")
    if now >= opt_in.expires:
        raise TokenRefused("expired")
    return OptInConfirmed(opt_in.token, opt_in.person)
