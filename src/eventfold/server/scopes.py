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
    ADMIN = "admin"  # backup, keys
    IMPERSONATE = "impersonate"  # set another `actor` than the caller's own name


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and what it may do.

    `name` becomes the metadata `actor` of its events. `stores`: names of the stores that it may use; None: all.
    `tag_prefixes` and `types` narrow what it reads and writes: it sees only events with a tag that starts with one of
    the prefixes, and of one of the types. Empty: not narrowed.
    """

    name: str
    scopes: frozenset[Scope]
    stores: frozenset[str] | None = None
    tag_prefixes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def is_narrowed(self) -> bool:
        """Whether the caller sees a part of a store only."""
        return bool(self.tag_prefixes or self.types)


ANYONE = Caller(name="", scopes=frozenset(Scope))
"""The caller of a server without authentication, which listens on loopback only: every right, and no name."""
