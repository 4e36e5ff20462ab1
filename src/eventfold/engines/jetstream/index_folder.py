"""Published copies of the index in a folder, or below a URL where such a folder is served.

`NAME.chunks` has the chunks, each after its length and digest; `copies.json` the descriptions, and is replaced last.
Knows: files, HTTP. Does not know: clusters, what is in a copy.
"""

from __future__ import annotations

import asyncio
import os
import struct
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from eventfold.engines.jetstream.published_index import CHUNK_BYTES, CHUNKS_AT_ONCE, Chunk, DamagedCopy, Description
from eventfold.errors import InvalidInput, StoreUnavailable

LIST = "copies.json"
TIMEOUT_S = 30.0  # for the next bytes of a URL
_START = struct.Struct(">I32s")


class Folder:
    """Copies in a folder, or below an http URL, where they can only be read."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._is_url = where.lower().startswith(("http://", "https://"))
        self._folder = Path() if self._is_url else Path(where)

    def _open(self, name: str) -> BinaryIO:
        if not self._is_url:
            return (self._folder / name).open("rb")
        url = f"{self.where.rstrip('/')}/{name}"
        try:
            return cast(BinaryIO, urllib.request.urlopen(url, timeout=TIMEOUT_S))  # noqa: S310 (http or https)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(url) from error
            raise StoreUnavailable(f"{url} answers {error.code}.", "Check the URL of the copies.") from error

    def _list(self) -> list[Description]:
        try:
            with self._open(LIST) as file:
                text = file.read()
        except FileNotFoundError:
            return []
        try:
            return msgspec.json.decode(text, type=list[Description])
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(
                f"{LIST} in {self.where} is not a list of copies ({error}).", "Publish a copy to another folder."
            ) from error

    async def listed(self) -> list[Description]:
        """See Place."""
        return await asyncio.to_thread(self._list)

    async def chunks(self, of: Description) -> AsyncIterator[Sequence[Chunk]]:
        """See Place."""
        with await asyncio.to_thread(self._open, f"{of.name}.chunks") as file:
            while found := await asyncio.to_thread(_read_some, file):
                yield found

    async def publish(self, chunks: AsyncIterator[Sequence[Chunk]], describe: Callable[[], Description]) -> None:
        """See Place."""
        if self._is_url:
            raise InvalidInput(
                f"Nothing can be published to {self.where}.", "Publish to a folder, and serve that at the URL."
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / ".chunks.new"
        with fresh.open("wb") as file:
            async for some in chunks:
                parts = [part for each in some for part in (_START.pack(len(each.packed), each.digest), each.packed)]
                await asyncio.to_thread(file.writelines, parts)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        of = describe()
        fresh.replace(self._folder / f"{of.name}.chunks")
        self._save([each for each in self._list() if each.name != of.name] + [of])

    async def remove(self, of: Description) -> None:
        """See Place."""
        self._save([each for each in self._list() if each.name != of.name])
        with suppress(FileNotFoundError):
            os.remove(self._folder / f"{of.name}.chunks")

    def _save(self, copies: list[Description]) -> None:
        fresh = self._folder / f".{LIST}.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(copies))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / LIST)


def _read_some(file: BinaryIO) -> list[Chunk]:
    found: list[Chunk] = []
    while len(found) < CHUNKS_AT_ONCE and (start := file.read(_START.size)):
        size, digest = _START.unpack(start) if len(start) == _START.size else (0, b"")
        packed = file.read(size) if size <= 2 * CHUNK_BYTES else b""
        if not size or len(packed) != size:
            raise DamagedCopy("it ends within a chunk")
        found.append(Chunk(digest, packed))
    return found
