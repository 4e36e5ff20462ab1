"""Credentials of NATS as JSON web tokens, which expire: an operator, an account, users, as its own tools make them.

Knows: the form of these tokens and of credentials files. Does not know: eventfold, what is tested.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

LIMITS = dict.fromkeys("subs conn leaf imports exports data payload".split(), -1) | {"wildcards": True}
STREAM_LIMITS = dict.fromkeys("mem_storage disk_storage streams consumer".split(), -1)


class Identity:
    """A key pair: an operator, an account or a user, by the prefix of its kind."""

    def __init__(self, prefix: int) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def token(self, subject: Identity, name: str, facts: dict[str, Any], expires: float | None = None) -> str:
        """Return a token about `subject`, signed by this one."""
        claims: dict[str, Any] = {
            "iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public,
            "nats": facts | {"version": 2},
        }  # fmt: skip
        if expires is not None:
            claims["exp"] = int(expires)
        digest = hashlib.new("sha512_256", json.dumps(claims).encode()).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encoded(claims)}"
        return f"{signed}.{_base64(self._pair.sign(signed.encode()))}"


class Issuer:
    """An operator with one account for streams and a system account. `configuration` is for a server."""

    def __init__(self) -> None:
        self._operator = Identity(nkeys.PREFIX_BYTE_OPERATOR)
        self._account, self._system = (Identity(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))

    @property
    def configuration(self) -> str:
        """The part of a server's configuration that names the accounts."""
        own = self._operator.token(self._operator, "operator", {"type": "operator"})
        accounts = {
            each.public: self._operator.token(each, name, {"type": "account", "limits": LIMITS | more})
            for name, each, more in (("EVENTS", self._account, STREAM_LIMITS), ("SYS", self._system, {}))
        }
        preloaded = "\n".join(f'  {public}: "{token}"' for public, token in accounts.items())
        return (
            f'operator: "{own}"\nsystem_account: {self._system.public}\nresolver: MEMORY\n'
            f"resolver_preload {{\n{preloaded}\n}}\n"
        )

    def write_credentials(self, path: Path, seconds: float) -> None:
        """Write the credentials file of a new user, which expire after so many seconds."""
        user = Identity(nkeys.PREFIX_BYTE_USER)
        facts = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        token = self._account.token(user, "application", facts, time.time() + seconds)
        new = path.with_name(f"{path.name}.new")
        new.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        new.replace(path)


def _encoded(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
