"""Frames of tracking data as SkillCorner writes them: a JSON list, of which one frame at a time is in memory.

Knows: the layout of frames. Does not know: rules, events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

CHUNK_BYTES = 1 << 20


def read_frames(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the frames of an open file, each decoded when its end has been read. Raises ValueError if it is no list."""
    decode, text, place = json.JSONDecoder().raw_decode, "", 0
    while True:
        chunk = file.read(CHUNK_BYTES)
        text, place = text[place:] + chunk.decode("ascii"), 0
        while (place := _skip(text, place)) < len(text) and text[place] != "]":
            try:
                frame, place = decode(text, place)
            except json.JSONDecodeError:
                break  # the frame ends in the next chunk
            yield frame
        if not chunk:
            if text[place:].strip() != "]":
                raise ValueError("the list of frames ends in the middle of one")
            return


def _skip(text: str, place: int) -> int:
    """The next place that is no separator."""
    while place < len(text) and text[place] in "[, \n":
        place += 1
    return place


def as_frame(tick: int, places: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Return the places of one tick as a frame, so that programs that read the source read a replay, too."""
    data = [{"trackable_object": int(name), "x": x, "y": y} for name, (x, y) in sorted(places.items())]
    return {"frame": tick, "data": data}
