"""The public keys of an issuer of tokens: fetched from its URL or read from a file, and kept.

They are fetched again after an hour, and for an unknown key id at most once in five minutes. While a fetch fails, the
keys from before stay in use.
Knows: JSON Web Key Sets, urllib. Does not know: tokens, claims.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from eventfold.errors import InvalidInput
from eventfold.server.access.errors import IssuerUnavailable

KEEP_S = 3_600.0
UNKNOWN_KEY_S = 300.0  # between two fetches because of unknown key ids
RETRY_S = 10.0  # between two attempts while there are no keys at all
TIMEOUT_S = 5.0
MAX_BYTES = 1_048_576
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MIN_RSA_BITS = 2_048
CURVES = {"EC": ("P-256",), "OKP": ("Ed25519",)}

PublicKey = RSAKey | ECKey | OKPKey

logger = logging.getLogger("eventfold.server")


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Keys come from the configured address only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse."""
        return None


class KeySource:
    """The keys at one address. Raises InvalidInput if it is neither a path, nor https, nor http on loopback."""

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme in ("http", "https"):
            if not parts.hostname or (parts.scheme == "http" and parts.hostname not in LOOPBACK):
                raise InvalidInput(
                    f"The keys of an issuer of tokens are at {address!r}, which is not encrypted.",
                    "Give an https URL, or the path of a file.",
                )
        elif "://" in address:
            raise InvalidInput(f"{address!r} is no address of keys.", "Give an https URL, or the path of a file.")
        self._address = address
        self._is_url = parts.scheme in ("http", "https")
        self._keys: list[PublicKey] = []
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, kid: str | None, key_type: str) -> PublicKey | None:
        """Return the key with this id; without an id, the only key of this type. None if there is none.

        Raises IssuerUnavailable if no key could be fetched yet.
        """
        if self._is_due(known=True):
            await self._fetch(known=True)
        found = self._look_up(kid, key_type)
        if found is None and self._is_due(known=False):
            await self._fetch(known=False)
            found = self._look_up(kid, key_type)
        if not self._keys:
            raise IssuerUnavailable(
                "The keys of the issuer of this token cannot be fetched now.",
                "Repeat the call later.",
                retry_after=int(RETRY_S),
            )
        return found

    def _look_up(self, kid: str | None, key_type: str) -> PublicKey | None:
        fitting = [key for key in self._keys if key.key_type == key_type and (kid is None or key.kid == kid)]
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None

    def _is_due(self, *, known: bool) -> bool:
        now = time.monotonic()
        if not self._keys:
            return now - self._tried >= RETRY_S
        if known:
            return now - self._fetched >= KEEP_S and now - self._tried >= UNKNOWN_KEY_S
        return now - self._tried >= UNKNOWN_KEY_S

    async def _fetch(self, *, known: bool) -> None:
        async with self._lock:
            if not self._is_due(known=known):  # another call has fetched meanwhile
                return
            self._tried = time.monotonic()
            try:
                text = await asyncio.to_thread(_read, self._address, self._is_url)
                self._keys = parse_keys(text)
                self._fetched = time.monotonic()
            except (OSError, ValueError, http.client.HTTPException, RecursionError) as error:
                logger.warning("The keys of an issuer of tokens were not fetched: %s", type(error).__name__)


def parse_keys(text: bytes) -> list[PublicKey]:
    """Return the public keys for signatures in a JSON Web Key Set. Raises ValueError if it has none.

    Keys of other kinds, for encryption, of other curves or too short ones are left out.
    """
    found = list[PublicKey]()
    for each in msgspec.json.decode(text, type=dict[str, Any]).get("keys", []):
        if not isinstance(each, dict) or each.get("kty") not in ("RSA", "EC", "OKP"):  # pyright: ignore[reportUnknownMemberType]
            continue
        if each.get("use", "sig") != "sig" or each.get("crv") not in CURVES.get(each["kty"], (None,)):  # pyright: ignore
            continue
        try:
            key = JWKRegistry.import_key(each)  # pyright: ignore[reportUnknownArgumentType]
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if not isinstance(key, RSAKey | ECKey | OKPKey) or key.is_private:
            continue
        if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            continue
        found.append(key)
    if not found:
        raise ValueError("no key")
    return found


def _read(address: str, is_url: bool) -> bytes:
    if not is_url:
        return Path(address).read_bytes()
    opener = urllib.request.build_opener(NoRedirects())
    with opener.open(address, timeout=TIMEOUT_S) as answer:
        text: bytes = answer.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError("too long")
    return text
