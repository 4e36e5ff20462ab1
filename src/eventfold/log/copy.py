"""Copying a whole log into another store, page by page and resumable, and comparing the two logs.

Positions, times, ids and append boundaries stay the same.
Knows: the ports of two engines. Does not know: which engines they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent, digest
from eventfold.core.query import Query
from eventfold.errors import CursorMismatch, InvalidInput
from eventfold.ports.engine import Engine
from eventfold.ports.messages import Span
from eventfold.ports.services import Replication, require

PAGE = 1_000  # events, or request keys, in one read
EVERYTHING = Query()
Progress = Callable[[int, int], None]


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a copy.

    `events`     how many events are in both logs now; `written` by this call; `keys`: how many request keys.
    `verified`   whether the logs were compared; `digest` is the SHA-256 of the events then, in hex.
    `succeeded`  whether the target has the source's identity, in a later epoch.
    `progress`   names of the followers, effects and processes that continue in the target where they stopped here.
    """

    events: int
    written: int
    keys: int
    verified: bool = False
    digest: str = ""
    succeeded: bool = False
    progress: tuple[str, ...] = ()


async def copy(
    source: Engine,
    target: Engine,
    *,
    keep_identity: bool = False,
    progress: Progress | None = None,
    before_succession: Callable[[], Awaitable[None]] | None = None,
) -> Copied:
    """Copy the events that the target does not have. `progress` is called with (events copied, events in all).

    `keep_identity`: give an empty target the identity of the source, in the source's next epoch, so that followers
    continue there. A target that has it from an interrupted copy is completed. `before_succession` is called before the
    target receives the identity, and again if such a copy is continued. Raises InvalidInput if `keep_identity` is set
    and the target has events under its own identity, CursorMismatch if the target's events are not a prefix of the
    source's.
    """
    copying = require(target, "replication")
    epoch = source.epoch
    head = (await target.head()).position
    if head:
        await _same_beginning(source, target, head)
    if before_succession is not None and has_succeeded(source, target):
        await before_succession()
    elif keep_identity and not has_succeeded(source, target):
        if head:
            raise InvalidInput(
                f"The target has {count_of(head, 'event')} and an identity of its own, which it must keep: its "
                "cursors and receipts would become invalid.",
                "Copy into an empty store to hand the identity over, or copy without keep_identity (--keep-identity).",
                target=target.store_id,
                store=source.store_id,
                events=head,
            )
        if before_succession is not None:
            await before_succession()
        await copying.take_identity(source.store_id, source.epoch + 1)
    written, end = 0, (await source.head()).position
    while True:
        page = await source.read(EVERYTHING, Span(after=head, limit=PAGE))
        if source.epoch != epoch:  # it failed over: the events copied so far may be lost in the source
            epoch = source.epoch
            if head:
                await _same_beginning(source, target, head)
            continue
        if page.events:
            await copying.import_events(page.events)
            head, written = page.events[-1].position, written + len(page.events)
            if progress is not None:
                progress(head, max(end, head))
        if not page.more:
            break
    keys = await _copy_keys(require(source, "replication"), copying, head) if source.capabilities.request_keys else 0
    return Copied(events=head, written=written, keys=keys, succeeded=has_succeeded(source, target))


def has_succeeded(source: Engine, target: Engine) -> bool:
    """Whether the target has the source's identity, in a later epoch."""
    return target.store_id == source.store_id and target.epoch > source.epoch


async def _same_beginning(source: Engine, target: Engine, head: int) -> None:
    here, there = await source.event_id(head), await target.event_id(head)
    if here is None or here != there:
        raise CursorMismatch(
            f"The target ends at position {head} with another event than the source has there.",
            "Copy into an empty store; this one has a history of its own.",
            position=head,
        )


async def _copy_keys(source: Replication, target: Replication, head: int) -> int:
    count, after = 0, ""
    while keys := await source.keys(after, PAGE):
        existing = dict(await target.keys(after, PAGE))
        missing = [(key, first) for key, first in keys if key not in existing and first <= head]
        if missing:
            await target.import_events((), missing)
        count, after = count + len(keys), keys[-1][0]
    return count


async def verify(source: Engine, target: Engine, progress: Progress | None = None) -> Copied:
    """Read both logs up to the target's head and compare every field of every event, page by page.

    Raises CursorMismatch, which names the first position that differs.
    """
    head = (await target.head()).position
    after, total = 0, hashlib.sha256()
    while after < head:
        here = (await source.read(EVERYTHING, Span(after=after, until=head, limit=PAGE))).events
        there = (await target.read(EVERYTHING, Span(after=after, until=head, limit=PAGE))).events
        common = min(len(here), len(there)) or PAGE  # pages are also limited by bytes, so they may differ in length
        here, there = here[:common], there[:common]
        fingerprint = _fingerprint(here)
        if fingerprint != _fingerprint(there) or not there:
            raise _differing(here, there, after)
        total.update(fingerprint)
        after = there[-1].position
        if progress is not None:
            progress(after, head)
    return Copied(events=head, written=0, keys=0, verified=True, digest=total.hexdigest())


def _fingerprint(events: Sequence[StoredEvent]) -> bytes:
    place = "".join(f"{e.position} {e.time} {e.offset} {e.size}\n" for e in events)
    return f"{digest(events)}\n{place}".encode()


def _differing(here: Sequence[StoredEvent], there: Sequence[StoredEvent], after: int) -> CursorMismatch:
    first = next((a.position for a, b in zip(here, there, strict=False) if a != b), None)
    position = after + 1 + min(len(here), len(there)) if first is None else first
    return CursorMismatch(
        f"The two logs differ at position {position}.",
        "The target is not a copy of the source: delete it and copy again into an empty store.",
        position=position,
    )


def with_proof(copied: Copied, proof: Copied) -> Copied:
    """Return the result of a copy with that of the comparison after it."""
    return msgspec.structs.replace(copied, verified=proof.verified, digest=proof.digest)


def refuse_no_store(kind: type, target: object) -> None:
    """Raise InvalidInput if the target of a copy is not a store of this class."""
    if not isinstance(target, kind):
        raise InvalidInput(
            f"A log can be copied only to another {kind.__name__}, not to {target!r}.",
            f'Pass one: store.copy_to(ef.{kind.__name__}("copy.db")).',
        )
