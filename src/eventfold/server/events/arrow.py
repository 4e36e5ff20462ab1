"""Events as Arrow record batches, in the streaming format of Arrow IPC.

    position int64, id fixed_size_binary[16], type, version int32, tags list, data, metadata, codec, key text,
    time and occurred timestamp[us, UTC]

`data` has the bytes that were written; they are JSON if `codec` is "json".
Knows: pyarrow, the envelope. Does not know: HTTP, callers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from eventfold.core.envelope import StoredEvent
from eventfold.errors import MissingExtra

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
MISSING = "Arrow streams need the package pyarrow, which is not installed on the server."
INSTALL = "Install the extra there: pip install 'eventfold[arrow]'"
BROKEN = b"\xff\xff\xff\xff\x10\x00\x00\x00"  # announces a message that does not follow: a reader fails here


@cache
def _pyarrow() -> Any:
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise MissingExtra(MISSING, INSTALL, extra="arrow") from error
    return pyarrow


def is_installed() -> bool:
    """Whether Arrow streams can be made here."""
    try:
        _pyarrow()
    except MissingExtra:
        return False
    return True


def forget() -> None:
    """Look for pyarrow again at the next call: for tests."""
    _pyarrow.cache_clear()
    schema.cache_clear()


@cache
def schema() -> Any:
    """Return the `pyarrow.Schema` of the batches."""
    pa = _pyarrow()
    moment = pa.timestamp("us", "UTC")
    return pa.schema(
        [
            pa.field("position", pa.int64(), nullable=False),
            pa.field("id", pa.binary(16), nullable=False),
            pa.field("type", pa.string(), nullable=False),
            pa.field("version", pa.int32(), nullable=False),
            pa.field("tags", pa.list_(pa.string()), nullable=False),
            pa.field("data", pa.binary(), nullable=False),
            pa.field("metadata", pa.string()),
            pa.field("codec", pa.string(), nullable=False),
            pa.field("key", pa.string()),
            pa.field("time", moment, nullable=False),
            pa.field("occurred", moment),
        ]
    )


def beginning() -> bytes:
    """Return the message of the schema, with which a stream begins."""
    return schema().serialize().to_pybytes()


def encoder() -> Callable[[Sequence[StoredEvent]], bytes]:
    """Return a function that encodes a page as a record batch. Raises MissingExtra."""
    pa, columns = _pyarrow(), schema()

    def encode(events: Sequence[StoredEvent]) -> bytes:
        arrays = [
            [e.position for e in events],
            [e.id for e in events],
            [e.type for e in events],
            [e.version for e in events],
            [e.tag_set for e in events],
            [e.data for e in events],
            [e.metadata for e in events],
            [e.codec for e in events],
            [e.key for e in events],
            [e.time for e in events],
            [e.occurred for e in events],
        ]
        batch = pa.record_batch(
            [pa.array(values, field.type) for values, field in zip(arrays, columns, strict=True)], schema=columns
        )
        return batch.serialize().to_pybytes()

    return encode
