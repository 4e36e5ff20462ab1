"""The keys of a server: created, listed, rotated, revoked and recognised, over the log that keeps them.

A key that is found is used for 10 s without asking the log again: so long another process may accept a key that was
revoked elsewhere. Only this server's own changes hold at once.
Knows: the log of keys, the cache. Does not know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b

import msgspec

from eventfold.aio import AsyncStore
from eventfold.errors import EventfoldError, InvalidInput
from eventfold.server.access.key_facts import (
    AllKeys,
    ApiKey,
    Grant,
    KeyDigest,
    KeyNames,
    KeyringIdentity,
    KeyUsed,
    check_secret,
    create_key,
    known,
    revoke_key,
    rotate_key,
    start_keyring,
)
from eventfold.server.access.key_text import ID_LENGTH, KeyText, new_key, parse_key
from eventfold.server.scopes import Caller

CACHE_S = 10.0  # with the 20 s between two checks of a stream (live.check_seconds) it is at most 30 s
MAX_CACHED = 10_000
USED_EVERY_S = 3_600.0  # a key in constant use costs 24 events a day in the log of keys
ABSENT = ApiKey("", digests=(KeyDigest("0" * 64),))

logger = logging.getLogger("eventfold.server")


class Issued(msgspec.Struct, frozen=True):
    """A key with its text, which is shown once and stored nowhere."""

    id: str
    key: str


class Keyring:
    """The keys in a log of their own. `secret`: 32 bytes or more, without which no stored hash can be compared."""

    def __init__(self, store: AsyncStore, secret: bytes, *, used_every_s: float = USED_EVERY_S) -> None:
        self._store, self._secret, self._used_every_s = store, secret, used_every_s
        self._cache = dict[str, tuple[ApiKey, float]]()
        self._changes = 0  # of keys, by this process
        self._uses = dict[str, float]()  # when a use was recorded last, by the clock of this process
        self._tasks = set[asyncio.Task[None]]()
        self._check = blake2b(b"secret", key=secret, digest_size=16, person=b"eventfold-check").hexdigest()

    async def open(self) -> None:
        """Open the log. Raises InvalidInput if its keys were hashed with another secret."""
        await self._store.open()
        check_secret(await self._store.state(KeyringIdentity()), self._check)

    async def close(self) -> None:
        """Record what is pending, and close the log."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()

    async def create(
        self, name: str, grant: Grant, *, actor: str, expires: datetime | None = None, duplicate: bool = False
    ) -> Issued:
        """Create a key. `actor` is who creates it; `duplicate`: also if an active key has this name.

        Raises InvalidInput on a grant or a name that cannot be used, and if it would have ended already.
        """
        grant.check()
        if not name or not name.isprintable() or len(name.encode("utf-8", "surrogatepass")) > 255:
            raise InvalidInput("The name of a key is 1 to 255 bytes of printable text.", "Give such a name.")
        by = self._store.using(actor=actor)
        await by.decide(start_keyring, KeyringIdentity(), self._check)
        key = new_key()
        decide = partial(create_key, duplicate=duplicate)
        await by.decide(decide, ApiKey(key.id), KeyNames(), name, grant, key.digest(self._secret), expires)
        return Issued(key.id, key.text)

    async def rotate(self, id: str, *, actor: str, grace_s: float = 0.0) -> Issued:
        """Give a key a new secret; the old ones are valid for `grace_s` seconds more.

        Raises KeyNotFound, and InvalidInput if the key is revoked.
        """
        key = new_key(_checked(id))
        until = datetime.now(UTC) + timedelta(seconds=grace_s)
        await self._store.using(actor=actor).decide(rotate_key, ApiKey(id), key.digest(self._secret), until)
        self._forget(id)
        return Issued(id, key.text)

    async def revoke(self, id: str, *, actor: str) -> None:
        """Make a key invalid; nothing happens if it is already. Raises KeyNotFound."""
        await self._store.using(actor=actor).decide(revoke_key, ApiKey(_checked(id)))
        self._forget(id)

    async def get(self, id: str) -> ApiKey:
        """Return a key by its id, as it is now. Raises KeyNotFound."""
        return known(await self._store.state(ApiKey(_checked(id))))

    async def list(self) -> list[ApiKey]:
        """Return all keys, in the order of their creation, revoked ones too."""
        return [await self._store.state(ApiKey(id)) for id in (await self._store.state(AllKeys())).ids]

    def recall(self, text: str) -> Caller | None:
        """Return who has this key if that is known without asking the log; None otherwise, also for a wrong key."""
        given = parse_key(text)
        cached = None if given is None else self._cache.get(given.id)
        if given is None or cached is None or time.monotonic() >= cached[1]:
            return None
        return self._caller_of(cached[0], given)

    async def recognise(self, text: str) -> Caller | None:
        """Return who has this key; None if it is not a valid key of this server.

        An unknown id and a wrong secret take the same steps. A store that cannot be read raises StoreUnavailable.
        """
        given = parse_key(text)
        if given is None:
            return None
        return self._caller_of(await self._find(given), given)

    def _caller_of(self, key: ApiKey, given: KeyText) -> Caller | None:
        if not key.accepts(given.digest(self._secret), datetime.now(UTC)):
            return None
        self._record_use(key)
        return key.grant.caller(key.name, f"key:{key.key}")

    async def _find(self, given: KeyText) -> ApiKey:
        cached = self._cache.get(given.id)
        if cached is not None and time.monotonic() < cached[1]:
            return cached[0]
        changes = self._changes
        key = await self._store.state(ApiKey(given.id))
        if key.created is None:
            return ABSENT
        if changes != self._changes:  # it may be this key that was revoked while it was read
            return await self._find(given)
        if len(self._cache) >= MAX_CACHED:
            self._cache.pop(next(iter(self._cache)))
        self._cache[given.id] = (key, time.monotonic() + CACHE_S)
        return key

    def _forget(self, id: str) -> None:
        """Ask the log at the next use, also for a use that is asking it now."""
        self._changes += 1
        self._cache.pop(id, None)

    def _record_use(self, key: ApiKey) -> None:
        now = time.monotonic()
        if now < self._uses.get(key.key, -1.0) + self._used_every_s and key.key in self._uses:
            return
        self._uses[key.key] = now
        if key.last_used is not None and (datetime.now(UTC) - key.last_used).total_seconds() < self._used_every_s:
            return
        task = asyncio.get_running_loop().create_task(self._append_use(key.key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append_use(self, id: str) -> None:
        try:
            await self._store.append(KeyUsed(id))
        except EventfoldError as error:  # the call itself is not about keys, and goes on
            logger.warning("The use of key %s was not recorded: %s", id, error)


def _checked(id: str) -> str:
    if len(id) != ID_LENGTH or not id.isascii() or not id.isalnum():
        raise InvalidInput(
            f"{id[:40]!r} is not the id of a key.", "An id has 8 letters and digits: eventfold key list."
        )
    return id
