"""Encoding many events of one class together: one call of the encoder, one of the decoder, and columns of tags.

Only what is usual is done here. Whatever is not, or may be an error, is left to `encode_payload` and `tags_of`, which
take an event at a time and name its fault.
Knows: codecs. Does not know: registries, metadata, which events belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import lt
from typing import Any

from eventfold.core.codec import Codec, encode_lines
from eventfold.core.envelope import MAX_TAGS, SMALL_BYTES, NewEvent
from eventfold.core.json_values import is_nested_deeper
from eventfold.core.signals import is_from_handler

MOST_PLAIN = 60  # characters of a tag that needs no check of its length in bytes


def encode_alike(
    codec: Codec, events: list[Any], ids: Sequence[bytes], metadata: bytes | None
) -> list[NewEvent] | None:
    """Return events of the codec's class as they will be stored, or None if they must be encoded one by one."""
    if codec.decode_lines is None or not codec.is_plain or len(codec.tags) > MAX_TAGS:
        return None
    try:
        payloads = _payloads(codec.decode_lines, events)
    except MemoryError:
        raise
    except Exception as error:
        if is_from_handler(error):
            raise
        return None
    tags = _tags(codec, events)
    if payloads is None or tags is None:
        return None
    type, version = codec.type, codec.version
    return [
        NewEvent(id, type, version, data, carried, None, metadata)
        for id, data, carried in zip(ids, payloads, tags, strict=True)
    ]


def _payloads(decode_lines: Callable[[bytes], list[Any]], events: list[Any]) -> list[bytes] | None:
    """Return the events as JSON, after decoding them once; None if one is not read back equal."""
    lines = encode_lines(events)
    payloads = lines.split(b"\n")  # a line break within an event can only be in its `msgspec.Raw`
    payloads.pop()
    if len(payloads) != len(events) or max(map(len, payloads)) >= SMALL_BYTES or any(map(is_nested_deeper, payloads)):
        return None
    return payloads if decode_lines(lines) == events else None


def _tags(codec: Codec, events: list[Any]) -> Sequence[tuple[str, ...]] | None:
    """Return the tags of each event, sorted; None unless all are short texts that are in order by themselves."""
    columns: list[list[str]] = []
    for prefix, get in codec.tags:
        values = list(map(get, events))
        if set(map(type, values)) != {str}:
            return None
        column = [prefix + value for value in values]
        if max(map(len, column)) > MOST_PLAIN or not "".join(column).isprintable():
            return None
        if columns and not all(map(lt, columns[-1], column)):
            return None
        columns.append(column)
    return list(zip(*columns, strict=True)) if columns else [()] * len(events)
