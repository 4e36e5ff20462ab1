"""What a caller of the server may do: scopes, narrowed to tags and types.

Knows: scopes. Does not know: how a caller proves who it is, HTTP.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Scope(StrEnum):
    """A right that a key or a token grants. A route names the one that it needs."""

    APPEND = "append"
    READ = "read"  # envelopes, counts, states, rows; without READ_PAYLOAD, data and metadata are withheld
    READ_PAYLOAD = "read-payload"
    FOLLOW = "follow"
    MANAGE = "manage"  # read models, processes, consumers, schemas
    METRICS = "metrics"  # /metrics: figures of the server and of whole stores, no events
    ADMIN = "admin"  # backup, keys
    IMPERSONATE = "impersonate"  # set another `actor` than the caller's own name


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and what it may do.

    `name` becomes the metadata `actor` of its events. `identity` identifies the credential, for limits, request keys
    and the log: `key:ID` or `token:ISSUER SUBJECT`. `stores`: names of the stores that it may use; None: all.
    `tags`, `tag_prefixes` and `types` narrow what it reads and writes: it sees only events that have one of the tags,
    or a tag that starts with one of the prefixes, and that are of one of the types. Empty: not narrowed by it.
    """

    name: str
    scopes: frozenset[Scope]
    identity: str = ""
    stores: frozenset[str] | None = None
    tags: tuple[str, ...] = ()
    tag_prefixes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def is_narrowed(self) -> bool:
        """Whether the caller sees a part of a store only."""
        return bool(self.tags or self.tag_prefixes or self.types)

    def may_use_store(self, store: str) -> bool:
        """Whether the caller may use the store of this name."""
        return self.stores is None or store in self.stores


ANYONE = Caller(name="", scopes=frozenset(Scope))
"""The caller of a server without authentication, which listens on loopback only: every right, and no name."""
