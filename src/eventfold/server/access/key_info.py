"""A key as it is shown, by the command line and over HTTP: everything but its text and its hashes.

Knows: the State of a key. Does not know: where it is shown.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from eventfold.server.access.key_facts import ApiKey
from eventfold.server.scopes import Scope


class KeyInfo(msgspec.Struct, kw_only=True):
    """A key as it is now, without its text. `state`: active, expired or revoked. `last_used` is at most an hour old."""

    id: str
    name: str
    state: str
    scopes: tuple[Scope, ...]
    stores: tuple[str, ...] | None
    tags: tuple[str, ...]
    tag_prefixes: tuple[str, ...]
    types: tuple[str, ...]
    created: datetime | None
    created_by: str
    expires: datetime | None
    rotated: datetime | None
    revoked: datetime | None
    last_used: datetime | None


def key_info(key: ApiKey) -> KeyInfo:
    """Return a key as it is shown."""
    grant = key.grant
    return KeyInfo(
        id=key.key,
        name=key.name,
        state=key.state(datetime.now(UTC)),
        scopes=grant.scopes,
        stores=grant.stores,
        tags=grant.tags,
        tag_prefixes=grant.tag_prefixes,
        types=grant.types,
        created=key.created,
        created_by=key.created_by,
        expires=key.expires,
        rotated=key.rotated,
        revoked=key.revoked,
        last_used=key.last_used,
    )
