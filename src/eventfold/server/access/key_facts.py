"""Keys as events and a State: who created, rotated and revoked which key, and what it grants.

Every change is an event with an actor, in a log of its own, so that the history of a key is the audit trail. No event
has the key itself, only its keyed hash.
Knows: what a key grants, when it is valid. Does not know: texts of keys, the server.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

import msgspec

from eventfold.core.event import Event, Recorded
from eventfold.core.state import State
from eventfold.core.tags import Tag, check_name
from eventfold.errors import InvalidInput
from eventfold.server.access.errors import KeyNotFound
from eventfold.server.scopes import Caller, Scope


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key grants: scopes, in these stores (None: in all), narrowed to these tags, tag prefixes and types."""

    scopes: tuple[Scope, ...]
    stores: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    tag_prefixes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def check(self) -> Grant:
        """Return the grant. Raises InvalidInput if it grants nothing, or names a tag or type that cannot exist."""
        if not self.scopes or self.stores == ():
            raise InvalidInput("The key would grant nothing.", "Name at least one scope, and one store or none.")
        for tag in (*self.tags, *self.tag_prefixes):
            check_name("tag", tag, error=InvalidInput)
        for type in self.types:
            check_name("event type", type, error=InvalidInput)
        return self

    def caller(self, name: str, identity: str) -> Caller:
        """Return the caller that has this grant."""
        return Caller(
            name=name,
            identity=identity,
            scopes=frozenset(self.scopes),
            stores=None if self.stores is None else frozenset(self.stores),
            tags=self.tags,
            tag_prefixes=self.tag_prefixes,
            types=self.types,
        )


class KeyringStarted(Event, type="$keyring-started"):
    """The first key is about to be created; `check` recognises the server's secret."""

    check: str


class KeyCreated(Event, type="$key-created"):
    """A key was created. `digest` is its keyed hash in hex; it is not valid from `expires` on."""

    key: Tag
    name: str
    grant: Grant
    digest: str
    expires: datetime | None = None


class KeyRotated(Event, type="$key-rotated"):
    """The key has a new secret; the ones before stay valid until `others_until`, exclusive."""

    key: Tag
    digest: str
    others_until: datetime


class KeyRevoked(Event, type="$key-revoked"):
    """The key is not valid any more."""

    key: Tag


class KeyUsed(Event, type="$key-used"):
    """The key was used. Recorded once in a while, not for each call."""

    key: Tag


class KeyringIdentity(State):
    """Which secret the keys are hashed with; `check` is empty before the first key."""

    check: str = ""

    def evolve(self, event: KeyringStarted) -> None:
        """The first fact holds."""
        self.check = self.check or event.check


class KeyDigest(msgspec.Struct, frozen=True):
    """The keyed hash of one secret of a key, and until when it is valid, exclusive."""

    digest: str
    until: datetime | None = None


class ApiKey(State):
    """One key: what it grants, and whether it is valid."""

    key: Tag
    name: str = ""
    grant: Grant = Grant(scopes=())
    digests: tuple[KeyDigest, ...] = ()
    expires: datetime | None = None
    created: datetime | None = None
    created_by: str = ""
    rotated: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None

    def evolve(
        self, event: KeyCreated | KeyRotated | KeyRevoked | KeyUsed, recorded: Recorded[KeyCreated | KeyRotated]
    ) -> None:
        """Apply one change."""
        match event:
            case KeyCreated():
                self.name, self.grant, self.expires = event.name, event.grant, event.expires
                self.digests = (KeyDigest(event.digest),)
                self.created = recorded.time
                self.created_by = str(recorded.metadata.get("actor", ""))
            case KeyRotated():
                kept = [
                    KeyDigest(each.digest, min(each.until or event.others_until, event.others_until))
                    for each in self.digests
                ]
                self.digests = (KeyDigest(event.digest), *kept)
                self.rotated = recorded.time
            case KeyRevoked():
                self.revoked = recorded.time
                self.digests = ()
            case KeyUsed():
                self.last_used = recorded.time

    def state(self, now: datetime) -> str:
        """Return active, expired or revoked."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "active"

    def accepts(self, digest: str, now: datetime) -> bool:
        """Whether a secret with this hash is valid now. Every stored hash is compared, in constant time."""
        found = False
        for each in self.digests:
            same = hmac.compare_digest(each.digest, digest)
            found |= same and (each.until is None or now < each.until)
        return found and self.state(now) == "active"


class AllKeys(State):
    """The ids of all keys, in the order of their creation."""

    ids: tuple[str, ...] = ()

    def evolve(self, event: KeyCreated) -> None:
        """Add one."""
        self.ids = (*self.ids, event.key)


class NamedKey(msgspec.Struct, frozen=True):
    """The name of a key that is not revoked, and when it ends."""

    name: str
    expires: datetime | None


class KeyNames(State):
    """The names of all keys that are not revoked, by id."""

    keys: dict[str, NamedKey] = {}

    def evolve(self, event: KeyCreated | KeyRevoked) -> None:
        """Add or remove one."""
        if isinstance(event, KeyCreated):
            self.keys[event.key] = NamedKey(event.name, event.expires)
        else:
            self.keys.pop(event.key, None)

    def active(self, name: str, now: datetime) -> str | None:
        """The id of an active key of this name; None if there is none."""
        ids = (
            id for id, each in self.keys.items() if each.name == name and (each.expires is None or now < each.expires)
        )
        return next(ids, None)


def start_keyring(identity: KeyringIdentity, check: str) -> list[KeyringStarted]:
    """Decide which secret the keys are hashed with. Raises InvalidInput if it is another one already."""
    if not identity.check:
        return [KeyringStarted(check)]
    check_secret(identity, check)
    return []


def check_secret(identity: KeyringIdentity, check: str) -> None:
    """Raise InvalidInput if the keys were hashed with another secret: none of them could be recognised."""
    if identity.check and not hmac.compare_digest(identity.check, check):
        raise InvalidInput(
            "The secret is not the one with which the keys of this server were hashed.",
            "Give the file that was written beside the keys when the first key was created (its name ends in .secret).",
        )


def create_key(
    key: ApiKey, names: KeyNames, name: str, grant: Grant, digest: str, expires: datetime | None, *, duplicate: bool
) -> KeyCreated:
    """Decide to create a key. `duplicate`: also if an active key has this name.

    Raises InvalidInput if its id or its name is taken, or it would end before now.
    """
    now = datetime.now(UTC)
    if key.created is not None:
        raise InvalidInput(f"There is a key {key.key} already.", "Create the key again: it gets another id.")
    if expires is not None and expires <= now:
        raise InvalidInput("The key would have ended already.", "Give a time in the future.", field="expires")
    if not duplicate and (other := names.active(name, now)) is not None:
        raise InvalidInput(
            f"The active key {other} is named {name!r} already.",
            f"Give it a new secret (eventfold key rotate {other}), revoke it, or choose another name; to have both, "
            "say --duplicate, over HTTP `duplicate`.",
            field="name",
            key=other,
        )
    return KeyCreated(key.key, name, grant, digest, expires)


def rotate_key(key: ApiKey, digest: str, others_until: datetime) -> KeyRotated:
    """Decide to give a key a new secret. Raises KeyNotFound, and InvalidInput if it is revoked."""
    return KeyRotated(_usable(key).key, digest, others_until)


def revoke_key(key: ApiKey) -> list[KeyRevoked]:
    """Decide to revoke a key; nothing if it is revoked. Raises KeyNotFound."""
    return [KeyRevoked(known(key).key)] if key.revoked is None else []


def known(key: ApiKey) -> ApiKey:
    """Return the key. Raises KeyNotFound if it was never created."""
    if key.created is None:
        raise KeyNotFound(f"There is no key {key.key!r}.", "List the keys.", key=key.key)
    return key


def _usable(key: ApiKey) -> ApiKey:
    if known(key).revoked is not None:
        raise InvalidInput(f"The key {key.key} is revoked.", "Create another key.", key=key.key)
    return key
