"""An e-mail address that is unique and can be erased.

Explained in docs/how-to/recipes/erasable-email.md, which shows the same code.
"""

from __future__ import annotations

import hmac
import unicodedata

import eventfold as ef


class EmailTaken(ef.Event):
    person: ef.Tag
    email: ef.Tag  # a keyed hash, never the address


class EmailReleased(ef.Event):
    person: ef.Tag
    email: ef.Tag


class Email(ef.State):
    email: ef.Tag
    holder: str | None = None

    def evolve(self, event: EmailTaken | EmailReleased) -> None:
        self.holder = event.person if isinstance(event, EmailTaken) else None


class AddressInUse(Exception):
    pass


def keyed_hash(secret: bytes, address: str) -> str:
    canonical = unicodedata.normalize("NFKC", address).strip().casefold()
    return hmac.digest(secret, canonical.encode(), "sha256").hex()


def take(email: Email, person: str) -> list[EmailTaken]:
    if email.holder == person:
        return []
    if email.holder is not None:
        raise AddressInUse
    return [EmailTaken(person, email.email)]


def release(email: Email, person: str) -> list[EmailReleased]:
    return [EmailReleased(person, email.email)] if email.holder == person else []
