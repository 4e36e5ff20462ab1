"""Where the keys and their secret are: the log by its address, the secret in a file beside it or where settings say.

Knows: addresses, files. Does not know: keys, HTTP.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from eventfold.aio import AsyncStore
from eventfold.engines.addresses import MEMORY, file_path
from eventfold.errors import InvalidInput
from eventfold.server.access.keyring import Keyring
from eventfold.server.access.settings import AccessSettings

SECRET_BYTES = 32


def open_keyring(settings: AccessSettings, *, create: bool = False) -> Keyring:
    """Return the keyring of these settings, not open yet. `create`: also its secret, if it has none.

    Raises InvalidInput without an address, and without a secret that can be read.
    """
    if settings.keys is None:
        raise InvalidInput("There is no address of the log of keys.", "Set access.keys, for example to keys.db.")
    if settings.secret is not None:
        try:
            secret = bytes.fromhex(settings.secret)
        except ValueError:
            secret = b""
        if not 16 <= len(secret) <= 64:
            raise InvalidInput("access.secret is not a secret.", "Give 16 to 64 bytes as hex digits.")
    else:
        secret = read_secret(secret_path(settings), create=create)
    return Keyring(AsyncStore(settings.keys, create=create), secret, used_every_s=float(settings.used_every_seconds))


def secret_path(settings: AccessSettings) -> Path:
    """Return the file of the secret. Raises InvalidInput if none is set and the keys are not in a file."""
    if settings.secret_file is not None:
        return Path(settings.secret_file)
    address = settings.keys or ""
    scheme, colon, rest = address.partition(":")
    path = file_path(rest, scheme, address) if scheme in ("sqlite", "file") else address
    if path == MEMORY or (path is address and colon and len(scheme) > 1):  # one letter: a drive
        raise InvalidInput(
            "The keys are not in a file, so there is no place for their secret beside them.",
            "Set access.secret_file to a file of this server, or access.secret.",
        )
    return Path(path + ".secret")


def read_secret(path: Path, *, create: bool = False) -> bytes:
    """Return the secret of a file: hex digits. `create`: write a new one, readable by the owner only, if there is none.

    Raises InvalidInput if the file is missing or has no secret.
    """
    try:
        if create and not path.exists():
            _write_secret(path)
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text of hex digits"
        raise InvalidInput(
            f"The secret of the keys cannot be read from {path}: {reason}.",
            "Name the file that was written when the first key was created, or create a key: "
            "eventfold key create NAME --scope SCOPE --keys ADDRESS.",
        ) from error
    if not 16 <= len(secret) <= 64:
        raise InvalidInput(f"The secret in {path} has {len(secret)} bytes.", "A secret has 16 to 64 bytes, in hex.")
    return secret


def _write_secret(path: Path) -> None:
    """Write a new secret, whole or not at all; a file that another process wrote meanwhile is kept."""
    made, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with open(made, "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
