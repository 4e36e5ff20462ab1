"""Hidden columns: values replaced by a keyed hash, and where its key is.

Equal values of one column have equal hashes, so that they can be counted and joined; without the key no value can be
guessed from its hash, and with it values can only be tried. The key is neither in migration.toml nor in the store: it
is in a file that only its owner may read, or in an environment variable. While the migration runs it must stay the
same; once it is destroyed, values can no longer be tried. Encryption would be another treatment beside this one.

Knows: HMAC, the key's places. Does not know: tables, how rows are read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import msgspec

from eventfold.errors import InvalidInput
from eventfold.migrate.table_codec import Hide

KEY_NAME = "hide.key"
KEY_BYTES = 32
HASH_BYTES = 16
PREFIX = "hidden-"


def hide_with(key: bytes) -> Hide:
    """Return the function that replaces a value of a domain by its hash."""

    def hide(domain: str, value: Any) -> str:
        message = domain.encode() + b"\0" + msgspec.json.encode(value, order="deterministic")
        return PREFIX + hmac.new(key, message, hashlib.sha256).digest()[:HASH_BYTES].hex()

    return hide


def read_key(place: str, folder: Path) -> bytes:
    """Return the key from its place: "env:NAME", or "file:PATH", relative to the folder of migration.toml.

    Raises InvalidInput if it is missing, is too short, or is in a file that others may read.
    """
    kind, colon, name = place.partition(":")
    if kind == "env" and colon and name:
        return _parsed(os.environ.get(name, ""), f"The variable {name}")
    if kind != "file" or not name:
        raise InvalidInput(
            f"hide_key = {place!r} names no place of a key.", 'Write "file:hide.key", or "env:NAME" for a variable.'
        )
    path = folder / name
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"The key of hidden columns cannot be read from {path}: {error}.",
            "Bring it back: with another key all hashes would be others.",
            path=str(path),
        ) from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InvalidInput(f"{path} can be read by others.", f"Run chmod 600 {path}.", path=str(path))
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES:
        raise InvalidInput(
            f"{where} has no key of {KEY_BYTES} bytes in hexadecimal digits.",
            "Make one: python -c 'import secrets; print(secrets.token_hex(32))'",
        )
    return key


def make_key(folder: Path) -> Path:
    """Make a key in a file that only its owner may read, unless it is there; git is set to ignore it."""
    path = folder / KEY_NAME
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
    ignore = folder / ".gitignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.exists() else []
    if KEY_NAME not in lines:
        ignore.write_text("\n".join([*lines, KEY_NAME]) + "\n", "utf-8")
    return path
