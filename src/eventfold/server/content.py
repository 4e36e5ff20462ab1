"""What goes over the wire: media types as the client asks for them, bodies within a limit, compression both ways.

Knows: the headers Accept, Accept-Encoding, Content-Type and Content-Encoding, gzip, zstd. Does not know: what a body
contains.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import zstandard
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from eventfold.concurrency import in_thread
from eventfold.errors import InvalidInput
from eventfold.server.bodies import HeldBody
from eventfold.server.refusals import BodyTooLarge, NotAcceptable, UnsupportedMedia

SMALL_BYTES = 1_000  # a body of this size or less is not compressed
LARGE_BYTES = 64 * 1024  # a body of this size or more is (de)compressed in a thread
ENCODINGS = ("zstd", "gzip")  # the preferred one first
GZIP_LEVEL, ZSTD_LEVEL = 1, 3
ZSTD_SLICE = 256  # bytes that are decompressed at a time: a block of 4 bytes may become 128 KiB
ZSTD_WINDOW = 8 * 2**20  # bytes: what RFC 9659 allows, and a decompressor must be able to hold


def only_header(request: Request, name: str) -> str | None:
    """Return the value of a header; None without it. Raises InvalidInput if it is there twice, with whatever values."""
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise InvalidInput(f"The header {name[:60]} is there {len(found)} times.", "Send it once.", field=name[:60])
    return found[0] if found else None


def preferences(header: str) -> dict[str, float]:
    """Return the values of a header like Accept with their weights, from 0 (refused) to 1. Parameters are dropped."""
    found = dict[str, float]()
    for part in header.split(","):
        value, *parameters = (each.strip() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, text = parameter.partition("=")
            if name.strip().lower() == "q":
                try:
                    weight = min(max(float(text), 0.0), 1.0)
                except ValueError:
                    weight = 0.0
        if value:
            found[value.lower()] = max(weight, found.get(value.lower(), 0.0))
    return found


def negotiate(request: Request, offered: Sequence[str]) -> str:
    """Return the media type to answer with: of those offered the one that the client prefers, or the first.

    Raises NotAcceptable if the client accepts none of them.
    """
    header = request.headers.get("accept", "")
    if not header.strip():
        return offered[0]
    asked = preferences(header)

    def weight(media: str) -> float:
        for name in (media, media.partition("/")[0] + "/*", "*/*"):
            if name in asked:
                return asked[name]
        return 0.0

    best = max(offered, key=weight)  # the first of several with the same weight
    if weight(best) == 0:
        raise NotAcceptable(
            f"This route does not return {header[:100]}.", f"Accept one of: {', '.join(offered)}.", offered=[*offered]
        )
    return best


def media_type(request: Request) -> str:
    """Return the media type of the body, without parameters; "" if the client does not name it."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_media_type(request: Request, readable: Sequence[str]) -> str:
    """Return the media type of the body. Raises UnsupportedMedia if it is none of those that the route reads.

    It must be named: browsers send a body without it, or with that of a form, from any page to any server.
    """
    given = media_type(request)
    if given not in readable:
        what = f"has the media type {given[:80]}, which this route does not read" if given else "has no media type"
        raise UnsupportedMedia(
            f"The body {what}.",
            f"Send the header Content-Type with one of: {', '.join(readable)}.",
            given=given[:80],
        )
    return given


async def receive_body(request: Request, limit: int, held: HeldBody) -> bytes | bytearray:
    """Return the body as it was sent, of at most `limit` bytes; what comes after its first message is added to `held`.

    Raises BodyTooLarge as soon as more have arrived, UnsupportedMedia on an encoding that is not read,
    ClientDisconnect, and what `held` raises.
    """
    _encoding_of(request)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    body: bytearray | None = None
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        if len(chunk) + (0 if body is None else len(body)) > limit:
            raise _too_large(limit)
        if body is None:
            if is_last:
                return chunk
            body = bytearray(chunk)
        else:
            held.add(len(chunk))
            body += chunk
        if is_last:
            return body


async def decompress(request: Request, body: bytes | bytearray, limit: int) -> bytes:
    """Return the body decompressed, of at most `limit` bytes. Raises BodyTooLarge, InvalidInput, UnsupportedMedia."""
    encoding = _encoding_of(request)
    if encoding == "identity":
        return bytes(body)
    work = _gunzip if encoding == "gzip" else _unzstd
    return work(body, limit) if len(body) < LARGE_BYTES // 16 else await in_thread(work, body, limit)


def _encoding_of(request: Request) -> str:
    """The encoding of the body. Raises UnsupportedMedia if it is not one that is read."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *ENCODINGS):
        raise UnsupportedMedia(
            f"The body has the encoding {encoding[:40]}, which this server does not read.",
            "Send it with Content-Encoding gzip or zstd, or without.",
            given=encoding[:40],
        )
    return encoding


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body has more than {limit:,} bytes, uncompressed.", "Send it in smaller parts.", limit=limit
    )


def _gunzip(body: bytes | bytearray, limit: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        found = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise _not_compressed("gzip") from error
    if len(found) > limit:
        raise _too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        raise _not_compressed("gzip")
    return found


def _unzstd(body: bytes | bytearray, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    found = bytearray()
    try:
        for start in range(0, len(body), ZSTD_SLICE):
            if decompressor.eof:
                raise _not_compressed("zstd")
            found += decompressor.decompress(body[start : start + ZSTD_SLICE])
            if len(found) > limit:
                raise _too_large(limit)
    except zstandard.ZstdError as error:
        raise _not_compressed("zstd") from error
    if not decompressor.eof or decompressor.unused_data:
        raise _not_compressed("zstd")
    return bytes(found)


def _not_compressed(encoding: str) -> InvalidInput:
    return InvalidInput(
        f"The body is not one whole {encoding} stream, as its header Content-Encoding says.",
        "Compress the whole body, or leave the header out.",
    )


class Compressor(Protocol):
    """Compresses a stream of chunks. Each result can be decompressed as soon as it has arrived."""

    def chunk(self, data: bytes) -> bytes:
        """Return the compressed bytes of a chunk."""
        ...

    def end(self) -> bytes:
        """Return the bytes that end the stream."""
        ...


class Gzip:
    """A gzip stream."""

    def __init__(self) -> None:
        self._object = zlib.compressobj(GZIP_LEVEL, wbits=31)

    def chunk(self, data: bytes) -> bytes:
        """Return the compressed bytes of a chunk."""
        return self._object.compress(data) + self._object.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """Return the bytes that end the stream."""
        return self._object.flush()


class Zstd:
    """A Zstandard frame."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj()

    def chunk(self, data: bytes) -> bytes:
        """Return the compressed bytes of a chunk."""
        return self._object.compress(data) + self._object.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        """Return the bytes that end the stream."""
        return self._object.flush()


def response_encoding(request: Request) -> str | None:
    """Return the encoding that the client prefers for the response; None: uncompressed."""
    asked = preferences(request.headers.get("accept-encoding", ""))
    weights = {name: asked.get(name, asked.get("*", 0.0)) for name in ENCODINGS}
    best = max(ENCODINGS, key=lambda name: weights[name])
    return best if weights[best] > 0 and weights[best] >= asked.get("identity", 0.0) else None


def compressor_of(encoding: str) -> Compressor:
    """Return a new compressor for an encoding of ENCODINGS."""
    return Gzip() if encoding == "gzip" else Zstd()


async def compressed(request: Request, response: Response) -> Response:
    """Return the response compressed as the client accepts, unless it is small. It says that it varies in any case."""
    if "accept-encoding" not in response.headers.get("vary", "").lower():
        response.headers.add_vary_header("Accept-Encoding")
    encoding = response_encoding(request)
    body = bytes(response.body)
    if encoding is None or len(body) <= SMALL_BYTES or "content-encoding" in response.headers:
        return response

    def compress() -> bytes:
        compressor = compressor_of(encoding)
        return compressor.chunk(body) + compressor.end()

    response.body = compress() if len(body) < LARGE_BYTES else await in_thread(compress)
    mark_encoded(response, encoding)
    response.headers["content-length"] = str(len(response.body))
    return response


def mark_encoded(response: Response, encoding: str) -> None:
    """Set the encoding of a response. Its entity tag becomes another one, since it has other bytes."""
    response.headers["content-encoding"] = encoding
    if tag := response.headers.get("etag"):
        response.headers["etag"] = f'{tag[:-1]}-{encoding}"'


async def compressed_stream(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Compress the chunks of a stream, each so that the client can read it at once."""
    compressor = compressor_of(encoding)
    async for chunk in chunks:
        yield compressor.chunk(chunk)
    yield compressor.end()
