"""Published copies of the local index: a new host restores one, instead of reading the whole log.

A copy is the index file in compressed chunks. Each chunk comes with its SHA-256, and the description of the copy has
that of all chunks together, the store and the epoch of which it is, and the position and id of its last event.
Knows: chunks, descriptions, which copy may be used. Does not know: where copies are kept (bucket, folder), databases.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from eventfold.engines.jetstream.stream import Identity
from eventfold.errors import EventfoldError

try:
    import fcntl
except ImportError:  # Windows: without locks that end with their process, no copy is restored
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
CHUNK_BYTES = 512 * 1024  # of the file; compressed, a chunk is below the servers' limit for messages
CHUNKS_AT_ONCE = 16  # that one thread packs or unpacks
LEVEL = 1  # of zlib: level 6 takes twice as long for a twentieth less
PARTIAL = ".restoring"
_log = logging.getLogger("eventfold")


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a published copy is. `event`: the id at `position`, in hex; `bytes`: of the file; `made`: µs since 1970.

    `digest` is the SHA-256 of the compressed chunks, one after another; `packed` is how many bytes they have.
    """

    format: int = FORMAT
    store: str
    epoch: int
    position: int
    event: str
    bytes: int
    chunks: int
    packed: int
    digest: str
    made: int

    @property
    def name(self) -> str:
        """The name under which it is kept: names of later positions are greater."""
        return f"index-{self.store[:8]}-{self.epoch}-{self.position:020}"


class Chunk(NamedTuple):
    """A compressed part of the file, and the SHA-256 of the compressed bytes."""

    digest: bytes
    packed: bytes


class DamagedCopy(Exception):
    """A published copy is not as it was written. The text is the end of a sentence."""


class Place(Protocol):
    """Where copies are published. `where` names it in messages."""

    where: str

    async def listed(self) -> list[Description]:
        """Return the copies that are there. Raises StoreUnavailable errors, OSError."""
        ...

    def chunks(self, of: Description) -> AsyncIterator[Sequence[Chunk]]:
        """Yield the chunks of a copy in order. Raises DamagedCopy, StoreUnavailable errors, OSError."""
        ...

    async def publish(self, chunks: AsyncIterator[Sequence[Chunk]], describe: Callable[[], Description]) -> None:
        """Write the chunks, and then the description that `describe` returns: a reader finds a whole copy or none."""
        ...

    async def remove(self, of: Description) -> None:
        """Remove a copy."""
        ...


class Packing:
    """Compresses a file chunk by chunk. Afterwards it knows how many bytes there were, and their digest."""

    def __init__(self, path: str) -> None:
        self.bytes = os.stat(path).st_size
        self.count = self.packed = 0
        self._path, self._sha = path, hashlib.sha256()

    @property
    def digest(self) -> str:
        """The SHA-256 of all chunks so far, in hex."""
        return self._sha.hexdigest()

    async def chunks(self) -> AsyncIterator[Sequence[Chunk]]:
        """Yield the chunks of the file. The next ones are packed while the caller works on some."""
        with open(self._path, "rb") as file:  # noqa: ASYNC230 (read in threads)
            nexts = asyncio.create_task(asyncio.to_thread(self._pack, file.read))
            while found := await nexts:
                nexts = asyncio.create_task(asyncio.to_thread(self._pack, file.read))
                yield found

    def _pack(self, read: Callable[[int], bytes]) -> list[Chunk]:
        found: list[Chunk] = []
        while len(found) < CHUNKS_AT_ONCE and (data := read(CHUNK_BYTES)):
            packed = zlib.compress(data, LEVEL)
            self._sha.update(packed)
            self.packed += len(packed)
            found.append(Chunk(hashlib.sha256(packed).digest(), packed))
        self.count += len(found)
        return found


async def unpack(chunks: AsyncIterator[Sequence[Chunk]], of: Description, descriptor: int) -> None:
    """Verify the chunks and write the file to a descriptor, synced. Raises DamagedCopy.

    Two threads verify and write while the next chunks come: hashing, unpacking and writing need no interpreter.
    """
    sha, count, done = hashlib.sha256(), 0, set[asyncio.Task[None]]()
    try:
        async for some in chunks:
            for chunk in some:
                sha.update(chunk.packed)
            done.add(asyncio.create_task(asyncio.to_thread(_write, some, count, of, descriptor)))
            count += len(some)
            while len(done) > 2:
                ended, done = await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
        for task in done:
            await task
    finally:
        await asyncio.gather(*done, return_exceptions=True)
    if count != of.chunks:
        raise DamagedCopy(f"it has {count} of {of.chunks} chunks")
    if sha.hexdigest() != of.digest:
        raise DamagedCopy("its chunks together do not have their digest")
    if os.fstat(descriptor).st_size != of.bytes:
        raise DamagedCopy("it does not have its size")
    await asyncio.to_thread(os.fsync, descriptor)


def _write(chunks: Sequence[Chunk], first: int, of: Description, descriptor: int) -> None:
    for number, chunk in enumerate(chunks, first):
        if hashlib.sha256(chunk.packed).digest() != chunk.digest:
            raise DamagedCopy(f"chunk {number} does not have its digest")
        expected = min(CHUNK_BYTES, of.bytes - number * CHUNK_BYTES)
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(chunk.packed, max(1, expected))
        except zlib.error as error:
            raise DamagedCopy(f"chunk {number} cannot be unpacked ({error})") from error
        if len(data) != expected or unpacking.unconsumed_tail:
            raise DamagedCopy(f"chunk {number} has another length than it should have")
        os.pwrite(descriptor, data, number * CHUNK_BYTES)


@contextmanager
def restoring(path: str) -> Generator[int | None]:
    """Hold the lock of a new index file, while it is restored and opened. Yields the partial file's descriptor.

    None if there is a file at the path, perhaps since another process has restored it meanwhile. Blocks.
    """
    if fcntl is None or os.path.exists(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        yield None
        return
    partial_path = path + PARTIAL
    while True:
        descriptor = os.open(partial_path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.exists(path) or os.path.samestat(os.fstat(descriptor), os.stat(partial_path)):
                break
        os.close(descriptor)  # another process has removed or renamed it
    try:
        yield None if os.path.exists(path) else descriptor
    finally:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(partial_path)):
                os.remove(partial_path)
        os.close(descriptor)


async def restore(
    places: Sequence[Place],
    path: str,
    descriptor: int,
    identity: Identity,
    id_at: Callable[[int], Awaitable[bytes | None]],
) -> Description | None:
    """Restore the newest usable copy to a path where no file is, and return what it is; None if there is none.

    `id_at` returns the id of the event at a position of the log. A copy of another log or epoch, and one that is
    damaged, is passed over with a warning.
    """
    found: list[tuple[Description, Place]] = []
    for place in places:
        try:
            found += [(each, place) for each in await place.listed()]
        except (EventfoldError, OSError) as error:
            _log.warning("The copies of the index in %s cannot be listed: %s", place.where, error)
    for of, place in sorted(found, key=lambda pair: pair[0].position, reverse=True):
        try:
            await _refuse_foreign(of, identity, id_at)
            os.ftruncate(descriptor, 0)
            await unpack(place.chunks(of), of, descriptor)
        except (DamagedCopy, EventfoldError, OSError) as error:
            _log.warning("The copy %s of the index in %s is not used: %s", of.name, place.where, error)
            continue
        os.rename(path + PARTIAL, path)
        _log.info("%s was restored from %s, up to position %d.", path, place.where, of.position)
        return of
    os.ftruncate(descriptor, 0)
    return None


async def _refuse_foreign(of: Description, identity: Identity, id_at: Callable[[int], Awaitable[bytes | None]]) -> None:
    if of.format != FORMAT:
        raise DamagedCopy(f"it has the format {of.format}, and this version knows {FORMAT}")
    if (of.store, of.epoch) != (identity.store_id, identity.epoch):
        raise DamagedCopy(f"it is of epoch {of.epoch} of the store {of.store}")
    at = await id_at(of.position)
    if at is None or at.hex() != of.event:
        raise DamagedCopy(f"the log has another event at position {of.position}")


async def publish(place: Place, path: str, describe: Callable[[Packing], Description], keep: int) -> Description:
    """Publish a file, and remove older copies of the same store but for the newest `keep` ones."""
    packing = Packing(path)
    await place.publish(packing.chunks(), partial(describe, packing))
    of = describe(packing)
    mine = sorted((each for each in await place.listed() if each.store == of.store), key=lambda each: each.name)
    for each in mine[: max(0, len(mine) - keep)]:
        await place.remove(each)
    return of
