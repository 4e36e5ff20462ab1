"""JSON Web Tokens: which ones are valid, what their claims grant, and how often keys are fetched."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.errors import InvalidInput
from eventfold.server import application
from eventfold.server.access import jwks as jwks_module
from eventfold.server.access.errors import IssuerUnavailable
from eventfold.server.access.jwks import KeySource, parse_keys
from eventfold.server.access.settings import AccessSettings, TokenIssuer
from eventfold.server.access.tokens import Tokens
from eventfold.server.scopes import Scope
from eventfold.server.settings import Settings

pytestmark = pytest.mark.filterwarnings("default::joserfc.errors.SecurityWarning")
ISSUER, AUDIENCE = "https://login.example.com/", "eventfold"


@lru_cache
def keys() -> dict[str, Any]:
    """A private key for each algorithm, with its id."""
    return {
        "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "okp"}),
    }


def jwk_set(*more: dict[str, Any]) -> bytes:
    """The public keys of the issuer."""
    return json.dumps({"keys": [*(key.as_dict(private=False) for key in keys().values()), *more]}).encode()


def token(algorithm: str = "ES256", *, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A signed token; a claim that is None is left out."""
    now = time.time()
    own = {"iss": ISSUER, "aud": AUDIENCE, "sub": "teller", "exp": now + 300, "scope": "eventfold:read other"}
    body = {name: value for name, value in (own | claims).items() if value is not None}
    signer = key or keys()[algorithm]
    return jwt.encode({"alg": algorithm, "kid": signer.kid, **(header or {})}, body, signer, algorithms=[algorithm])


def tokens(tmp_path: Path, **settings: Any) -> Tokens:
    """The tokens of one issuer, whose keys are in a file."""
    (tmp_path / "jwks.json").write_bytes(jwk_set())
    return Tokens((issuer(str(tmp_path / "jwks.json"), **settings),))


def issuer(address: str, **settings: Any) -> TokenIssuer:
    """The issuer of the tests."""
    return TokenIssuer(issuer=ISSUER, audience=AUDIENCE, jwks=address, **settings)


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_each_algorithm_is_recognised(tmp_path: Path, algorithm: str) -> None:
    """Its subject is the actor, its scopes those that begin with eventfold:."""
    ours = tokens(tmp_path)
    text = token(algorithm)
    assert ours.recall(text) is None
    caller = await ours.recognise(text)
    assert caller is not None
    assert (caller.name, caller.scopes, caller.identity) == ("teller", {Scope.READ}, f"token:{ISSUER} teller")
    assert ours.recall(text) == caller


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token made by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def forged() -> dict[str, str]:
    """Tokens that must not be accepted, by what is wrong with them."""
    now = time.time()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "teller", "exp": now + 300, "scope": "eventfold:admin"}
    public = keys()["RS256"].as_pem(private=False)
    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    good = token()
    head, body, signature = good.split(".")
    return {
        "no algorithm": unsigned({"alg": "none"}, claims),
        "no algorithm, in capitals": unsigned({"alg": "NONE", "kid": "ec"}, claims, b"x"),
        "the public key as a secret": jwt.encode({"alg": "HS256", "kid": "rsa"}, claims, OctKey.import_key(
            base64.b64encode(public)), algorithms=["HS256"]),
        "an algorithm for another kind of key": unsigned({"alg": "RS256", "kid": "ec"}, claims, b"x" * 256),
        "an unknown algorithm": unsigned({"alg": ["ES256"], "kid": "ec"}, claims, b"x"),
        "another key with the same id": token(key=stranger),
        "a key within the token": token(key=stranger, header={"jwk": stranger.as_dict(private=False)}),
        "an unknown critical header": token(header={"crit": ["b64"], "b64": False}) if False else unsigned(
            {"alg": "ES256", "kid": "ec", "crit": ["x"], "x": 1}, claims, b"x" * 64),
        "an unknown key id": token(key=ECKey.generate_key("P-256", {"kid": "other"})),
        "a key id that is no text": unsigned({"alg": "ES256", "kid": 7}, claims, b"x" * 64),
        "another type of token": token(header={"typ": "logout+jwt"}),
        "expired": token(exp=now - 60),
        "without an end": token(exp=None),
        "not yet valid": token(nbf=now + 300),
        "issued in the future": token(iat=now + 300),
        "an end that is no number": token(exp="2099-01-01"),
        "another audience": token(aud="other"),
        "no audience": token(aud=None),
        "an audience that is no text": token(aud=[1, AUDIENCE]),
        "another issuer": token(iss="https://evil.example.com/"),
        "almost the issuer": token(iss=ISSUER.rstrip("/")),
        "no issuer": token(iss=None),
        "an issuer that is a list": token(iss=[ISSUER]),
        "no subject": token(sub=None),
        "a subject with a line break": token(sub="a\nb"),
        "a changed payload": f"{head}.{unsigned({}, claims).split('.')[1]}.{signature}",
        "a changed signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "no signature": f"{head}.{body}.",
        "padding": good + "=",
        "four parts": good + ".x",
        "not base64": "ü.ü.ü",
        "nothing": "..",
        "deeply nested": unsigned({"alg": "ES256"}, claims).split(".")[0] + "."
        + base64.urlsafe_b64encode(b'{"iss":' + b"[" * 5_000 + b"]" * 5_000 + b"}").decode().rstrip("=") + ".x",
    }  # fmt: skip


@pytest.mark.asyncio
async def test_a_token_that_is_wrong_in_one_way_is_not_recognised(tmp_path: Path) -> None:
    """None of them, whatever is wrong."""
    ours = tokens(tmp_path)
    for what, text in forged().items():
        assert await ours.recognise(text) is None, what
        assert ours.recall(text) is None, what
    assert await ours.recognise(token()) is not None


@pytest.mark.asyncio
async def test_the_leeway_is_for_clocks_that_differ(tmp_path: Path) -> None:
    """Some seconds after the end a token is still valid, and some before its beginning already."""
    ours = tokens(tmp_path, leeway_seconds=60)
    now = time.time()
    assert await ours.recognise(token(exp=now - 30, nbf=now + 30)) is not None
    assert await ours.recognise(token(exp=now - 90)) is None
    assert await ours.recognise(token(nbf=now + 90)) is None


@pytest.mark.asyncio
async def test_claims_grant_what_the_settings_map_them_to(tmp_path: Path) -> None:
    """Values without a mapping grant nothing; a list of texts is as good as text with spaces."""
    ours = tokens(
        tmp_path,
        scope_claim="roles",
        scopes={"teller": (Scope.READ, Scope.APPEND), "boss": (Scope.ADMIN,)},
        stores=("bank",),
        types=("Opened",),
        tag_claim="tenant",
        tag_key="tenant",
    )
    caller = await ours.recognise(token(roles=["teller", "guest", "eventfold:admin"], tenant="acme"))
    assert caller is not None
    assert caller.scopes == {Scope.READ, Scope.APPEND}
    assert (caller.stores, caller.types, caller.tags) == ({"bank"}, ("Opened",), ("tenant:acme",))
    several = await ours.recognise(token(roles="boss", tenant=["a", "b"]))
    assert several is not None
    assert several.tags == ("tenant:a", "tenant:b")
    for tenant in (None, "", [], ["a", 1], 7, "x" * 300, "a\nb", ["a", ""]):
        assert await ours.recognise(token(roles="boss", tenant=tenant)) is None, tenant


@pytest.mark.asyncio
async def test_a_settings_limit_of_algorithms_holds(tmp_path: Path) -> None:
    """A token with another one is refused although its key is there."""
    ours = tokens(tmp_path, algorithms=("RS256",))
    assert await ours.recognise(token("RS256")) is not None
    assert await ours.recognise(token("ES256")) is None


def test_keys_that_are_not_for_signatures_are_left_out() -> None:
    """So are secrets, private keys, short keys and other curves; a set without a key is an error."""
    short = RSAKey.generate_key(1024, {"kid": "short"}) if False else None
    assert short is None
    others = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
        {**keys()["ES256"].as_dict(private=False), "use": "enc", "kid": "enc"},
        ECKey.generate_key("P-384", {"kid": "p384"}).as_dict(private=False),
        ECKey.generate_key("P-256", {"kid": "private"}).as_dict(private=True),
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": "?", "kid": "broken"},
        {"kty": "future", "kid": "future"},
        "text",
    ]
    assert {key.kid for key in parse_keys(jwk_set(*others))} == {"rsa", "ec", "okp"}  # type: ignore[arg-type]
    for nothing in (b"{}", b'{"keys":[]}', b"[]", b"x", json.dumps({"keys": others}).encode()):
        with pytest.raises(ValueError):
            parse_keys(nothing)


@contextmanager
def key_server(answers: list[bytes]) -> Generator[tuple[str, list[str]]]:
    """An issuer that answers once with each of these bodies, and with the last one from then on; empty: an error."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            body = answers[min(len(seen), len(answers)) - 1]
            self.send_response(200 if body else 500)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


@pytest.mark.asyncio
async def test_keys_are_fetched_once_and_for_an_unknown_id_once_in_five_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands of forged tokens cause no more than one fetch."""
    clock = [1_000.0]
    monkeypatch.setattr(jwks_module.time, "monotonic", lambda: clock[0])
    first = json.dumps({"keys": [keys()["ES256"].as_dict(private=False)]}).encode()
    with key_server([first, jwk_set()]) as (address, seen):
        source = KeySource(address)
        assert await source.find("ec", "EC") is not None
        for number in range(100):
            assert await source.find(f"unknown-{number}", "EC") is None
        assert await source.find("rsa", "RSA") is None
        assert len(seen) == 1
        clock[0] += 301
        assert await source.find("rsa", "RSA") is not None
        assert await source.find("unknown", "RSA") is None
        assert len(seen) == 2
        clock[0] += 3_601
        assert await source.find("rsa", "RSA") is not None
        assert len(seen) == 3


@pytest.mark.asyncio
async def test_an_issuer_that_fails_is_not_asked_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any key the call is refused as one to repeat; keys from before are used on."""
    clock = [1_000.0]
    monkeypatch.setattr(jwks_module.time, "monotonic", lambda: clock[0])
    with key_server([b"", jwk_set(), b"", b"x" * 1_100_000, jwk_set()]) as (address, seen):
        source = KeySource(address)
        for _ in range(5):
            with pytest.raises(IssuerUnavailable):
                await source.find("ec", "EC")
        assert len(seen) == 1
        clock[0] += 11
        assert await source.find("ec", "EC") is not None
        for _ in range(2):
            clock[0] += 3_601
            assert await source.find("ec", "EC") is not None
        assert len(seen) == 4


@pytest.mark.parametrize("address", ["http://login.example.com/keys", "ftp://x/keys", "https:///keys", "file:///etc/k"])
def test_keys_come_from_a_file_or_over_an_encrypted_connection(address: str) -> None:
    """Anything else is refused when the server starts."""
    with pytest.raises(InvalidInput):
        KeySource(address)


@pytest.mark.parametrize("settings", [{"tag_claim": "tenant"}, {"tag_key": "tenant"}])
def test_half_a_narrowing_is_refused(settings: dict[str, str]) -> None:
    """A claim without a key of tags would narrow nothing."""
    with pytest.raises(InvalidInput):
        Tokens((issuer("keys.json", **settings),))


def test_a_server_accepts_tokens(tmp_path: Path) -> None:
    """Its calls are those of the token's subject; a forged one gets the same answer as a wrong key."""
    (tmp_path / "jwks.json").write_bytes(jwk_set())
    ef.Store(str(tmp_path / "bank.db")).close()
    access = AccessSettings(tokens=(issuer(str(tmp_path / "jwks.json")),))
    with TestClient(application(str(tmp_path / "bank.db"), settings=Settings(access=access))) as client:
        assert client.get("/v1/head", headers={"Authorization": f"Bearer {token()}"}).status_code == 200
        for what, text in forged().items():
            if text.isascii():
                refused = client.get("/v1/head", headers={"Authorization": f"Bearer {text}"})
                assert refused.status_code == 401, what
        assert client.get("/v1/head").status_code == 401
        none = {"Authorization": f"Bearer {token(scope='other')}"}
        assert client.get("/v1/head", headers=none).status_code == 403
