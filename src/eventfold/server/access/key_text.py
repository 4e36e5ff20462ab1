"""The text of an API key: `efk_`, 8 characters of id, 43 of secret (32 random bytes), 6 of checksum, all base62.

The fixed beginning lets secret scanners find keys, and the checksum finds typing errors without a look-up.
Knows: the format, the keyed hash that is stored instead of the key. Does not know: which keys exist.
"""

from __future__ import annotations

import secrets
import zlib
from hashlib import blake2b

import msgspec

PREFIX = "efk_"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 8, 43, 6  # 62**43 > 2**256
KEY_LENGTH = len(PREFIX) + ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KNOWN = frozenset(_DIGITS)


class KeyText(msgspec.Struct, frozen=True):
    """A key as its owner has it. Its repr shows the id only."""

    id: str
    text: str

    def digest(self, secret: bytes) -> str:
        """Return the hash that is stored, in hex: BLAKE2b of 32 bytes, keyed with the server's secret."""
        return blake2b(self.text.encode(), key=secret, digest_size=32, person=b"eventfold-key").hexdigest()

    def __repr__(self) -> str:
        return f"<Key {self.id}>"


def new_key(id: str | None = None) -> KeyText:
    """Return a new key; with a new id unless one is given."""
    id = "".join(secrets.choice(_DIGITS) for _ in range(ID_LENGTH)) if id is None else id
    body = PREFIX + id + to_base62(int.from_bytes(secrets.token_bytes(32)), SECRET_LENGTH)
    return KeyText(id, body + checksum_of(body))


def parse_key(text: str) -> KeyText | None:
    """Return a key for its text; None if the text is not a key: another length or character, a wrong checksum."""
    if len(text) != KEY_LENGTH or not text.startswith(PREFIX) or not _KNOWN.issuperset(text[len(PREFIX) :]):
        return None
    body, checksum = text[:-CHECKSUM_LENGTH], text[-CHECKSUM_LENGTH:]
    if checksum_of(body) != checksum:
        return None
    return KeyText(text[len(PREFIX) : len(PREFIX) + ID_LENGTH], text)


def checksum_of(body: str) -> str:
    """Return the checksum of a key's text without it: CRC-32."""
    return to_base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def to_base62(number: int, length: int) -> str:
    """Return a number as text of this length, with leading zeros."""
    digits = list[str]()
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits))
