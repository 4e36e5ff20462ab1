"""JSON Web Tokens of configured issuers: the signature, the time, the audience, and what the claims grant.

The algorithms are fixed by the settings, never by the token, and belong to one kind of key each: a token with
`alg: none`, or with HS256 and a public key as its secret, is refused before a key is looked up.
Knows: joserfc, claims. Does not know: where keys come from, requests.
"""

from __future__ import annotations

import base64
import time
from hashlib import blake2b
from typing import Any, cast

import msgspec
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError

from eventfold.core.tags import check_name
from eventfold.errors import EventfoldError, InvalidInput
from eventfold.server.access.jwks import KeySource
from eventfold.server.access.settings import TokenIssuer
from eventfold.server.scopes import Caller, Scope

KEY_TYPES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
SCOPE_PREFIX = "eventfold:"
TYPES = (None, "jwt", "at+jwt", "application/at+jwt")  # of the header typ, in lower case
MAX_CACHED = 4_096
CACHE_S = 30.0
MAX_TAGS = 64


class Algorithms(jws.JWSRegistry):
    """The algorithms that are accepted at all. Unknown headers are ignored, critical ones are refused."""

    def __init__(self) -> None:
        super().__init__(algorithms=list(KEY_TYPES), strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        """Return an algorithm; joserfc would warn at each use that EdDSA has a newer name."""
        if name not in KEY_TYPES:
            raise UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


REGISTRY = Algorithms()


class Claims(msgspec.Struct):
    """The claims that every token is asked for. Times are in seconds since 1970 UTC."""

    iss: str
    aud: str | list[str]
    exp: float
    nbf: float | None = None
    iat: float | None = None


class Tokens:
    """Recognises the tokens of some issuers. A token that was verified is accepted for 30 s without verifying again."""

    def __init__(self, issuers: tuple[TokenIssuer, ...]) -> None:
        self._issuers = {each.issuer: (each, KeySource(each.jwks)) for each in issuers}
        if len(self._issuers) < len(issuers):
            raise InvalidInput("An issuer of tokens is configured twice.", "Keep one of the two.")
        for each in issuers:
            if (each.tag_claim is None) != (each.tag_key is None):
                raise InvalidInput(
                    f"The issuer {each.issuer} has one of tag_claim and tag_key.", "Give both, or neither."
                )
        self._cache = dict[bytes, tuple[Caller, float]]()

    def recall(self, text: str) -> Caller | None:
        """Return who has a token that was verified a moment ago; None if it was not."""
        found = self._cache.get(_fingerprint(text))
        return found[0] if found is not None and time.time() < found[1] else None

    async def recognise(self, text: str) -> Caller | None:
        """Return who has this token; None if it is not valid here. Raises IssuerUnavailable without keys."""
        try:
            header, claims = _peek(text)
            algorithm, kid = header.get("alg"), header.get("kid")
            issuer, source = self._issuers[claims["iss"]]
            if algorithm not in issuer.algorithms or not isinstance(kid, str | None):
                return None
            if not _is_token_type(header.get("typ")):
                return None
            key = await source.find(kid, KEY_TYPES[algorithm])
            if key is None:
                return None
            signed = jws.deserialize_compact(text.encode("ascii"), key, registry=REGISTRY)
            verified: dict[str, Any] = msgspec.json.decode(signed.payload, type=dict[str, Any])
            checked = msgspec.convert(verified, Claims)
            now = time.time()
            if not _is_for_us(checked, issuer, now):
                return None
            caller = caller_of(verified, issuer)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):  # of the text, which anyone can write
            return None
        if caller is not None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[_fingerprint(text)] = (caller, min(now + CACHE_S, checked.exp + issuer.leeway_seconds))
        return caller


def caller_of(claims: dict[str, Any], issuer: TokenIssuer) -> Caller | None:
    """Return who the claims of a verified token name; None if a claim that the issuer's settings need is missing."""
    name = claims.get(issuer.name_claim)
    subject = claims.get("sub", name)
    if not isinstance(name, str) or not isinstance(subject, str) or not name.isprintable() or not 0 < len(name) <= 255:
        return None
    tags = tuple[str, ...]()
    if issuer.tag_claim is not None:
        values = _texts(claims.get(issuer.tag_claim), split=False)
        if not 0 < len(values) <= MAX_TAGS:
            return None
        try:
            tags = tuple(check_name("tag", f"{issuer.tag_key}:{value}") for value in values if value)
        except EventfoldError:
            return None
        if len(tags) < len(values):
            return None
    granted = set[Scope]()
    for value in _texts(claims.get(issuer.scope_claim), split=True):
        if issuer.scopes:
            granted.update(issuer.scopes.get(value, ()))
        elif value.startswith(SCOPE_PREFIX) and value.removeprefix(SCOPE_PREFIX) in set(Scope):
            granted.add(Scope(value.removeprefix(SCOPE_PREFIX)))
    return Caller(
        name=name,
        identity=f"token:{issuer.issuer} {subject}",
        scopes=frozenset(granted),
        stores=None if issuer.stores is None else frozenset(issuer.stores),
        tags=tags,
        types=issuer.types,
    )


def _is_for_us(claims: Claims, issuer: TokenIssuer, now: float) -> bool:
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    late, early = now - issuer.leeway_seconds, now + issuer.leeway_seconds
    return (
        claims.iss == issuer.issuer
        and issuer.audience in audiences
        and late < claims.exp
        and (claims.nbf is None or claims.nbf <= early)
        and (claims.iat is None or claims.iat <= early)
    )


def _is_token_type(given: object) -> bool:
    return given is None or (isinstance(given, str) and given.lower() in TYPES)


def _peek(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims, not verified: to choose the issuer. Raises ValueError."""
    header, payload, _signature = text.split(".")
    return _object_of(header), _object_of(payload)


def _object_of(part: str) -> dict[str, Any]:
    raw = base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    return msgspec.json.decode(raw, type=dict[str, Any])


def _texts(value: object, *, split: bool) -> list[str]:
    if isinstance(value, str):
        return value.split() if split else [value]
    if isinstance(value, list):
        several = cast("list[object]", value)
        return [each for each in several if isinstance(each, str)] if all(isinstance(x, str) for x in several) else []
    return []


def _fingerprint(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
