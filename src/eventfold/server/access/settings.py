"""The section `access` of the server's settings: who may call, and how often.

Knows: names, types and defaults. Does not know: where a value comes from, what is done with it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from eventfold.server.scopes import Scope

Secret = Annotated[str, Meta(extra={"secret": True})]
"""A text that is never printed: `--print-config` shows that it is set."""
Algorithm = Literal["RS256", "ES256", "EdDSA"]
Rate = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour)$")]
"""How many in which time, as `100/second`: in any period of that length, not only in those of the clock."""


class TokenIssuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who issues JSON Web Tokens for this server, and what their claims grant.

    A token needs `iss`, `aud`, `exp` and `name_claim`. Each value of `scope_claim` (a list, or text separated by
    spaces) grants the scopes that `scopes` maps it to; by default `eventfold:read` grants `read`, and so on. With
    `tag_claim`, the caller is narrowed to the tags `TAG_KEY:VALUE` of the values of that claim, which a token then
    needs.
    """

    issuer: str  # the claim iss, in full
    audience: str  # one of the claim aud
    jwks: str  # where its public keys are: an https URL, or a path
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    name_claim: str = "sub"
    scope_claim: str = "scope"
    scopes: dict[str, tuple[Scope, ...]] = {}
    stores: tuple[str, ...] | None = None
    types: tuple[str, ...] = ()
    tag_claim: str | None = None
    tag_key: str | None = None
    leeway_seconds: Annotated[float, Meta(ge=0, le=600)] = 30.0


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call the server. Without `keys` and `tokens` there is no authentication, which is for loopback only."""

    keys: str | None = None  # the address of the log that keeps the API keys: a path, postgresql://…
    secret: Secret | None = None  # the secret of the keys' hashes, in hex; instead of it:
    secret_file: str | None = None  # a file with it; by default the path of the keys with .secret after it
    tokens: tuple[TokenIssuer, ...] = ()  # issuers of JSON Web Tokens
    no_auth: bool = False  # serve without authentication, also off loopback: everyone who can connect has every right
    used_every_seconds: Annotated[float, Meta(ge=60)] = 3_600.0  # how often at most the use of a key is recorded
    rate_per_key: Rate | None = None  # calls of one key, or of one subject of an issuer
    rate_per_address: Rate | None = None  # calls from one address, with whatever credential
    refusals_per_address: Rate = "100/minute"  # credentials from one address that are not valid
    origins: tuple[str, ...] = ()  # of pages in browsers that may call: https://app.example.com

    @property
    def is_configured(self) -> bool:
        """Whether callers are authenticated."""
        return self.keys is not None or bool(self.tokens)
