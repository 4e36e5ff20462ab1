"""The section `access` of the server's settings: who may call, and how often.

Knows: names, types and defaults. Does not know: where a value comes from, what is done with it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Secret = Annotated[str, Meta(extra={"secret": True})]
"""A text that is never printed: `--print-config` shows that it is set."""


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call the server. Without `keys` there is no authentication, which is for loopback only."""

    keys: str | None = None  # the address of the log that keeps the API keys: a path, postgresql://…
    secret: Secret | None = None  # the secret of the keys' hashes, in hex; instead of it:
    secret_file: str | None = None  # a file with it; by default the path of the keys with .secret after it
    no_auth: bool = False  # serve without authentication, also off loopback: everyone who can connect has every right
    used_every_seconds: Annotated[float, Meta(ge=60)] = 3_600.0  # how often at most the use of a key is recorded

    @property
    def is_configured(self) -> bool:
        """Whether callers are authenticated."""
        return self.keys is not None
