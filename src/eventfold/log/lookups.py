"""Names of tags, and numbers of events in ranges of the log: by the service `lookups`, or without it by other calls.

Knows: how bounds of ranges are given. Does not know: whether its caller is sync or async.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from itertools import pairwise

from eventfold.core.query import Query
from eventfold.errors import InvalidQuery
from eventfold.log.context import Log
from eventfold.log.cursors import LAST_POSITION, check_position
from eventfold.log.read import resolve_position
from eventfold.ports.messages import TagCount
from eventfold.ports.services import require

MAX_RANGES = 10_000  # in one call


def checked_limit(limit: int) -> int:
    """Return how many tags are asked for. Raises InvalidQuery unless it is a number, from 0."""
    if not isinstance(limit, int) or limit < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidQuery(f"Tags were asked for with limit={limit!r:.60}.", "Give how many at most, 0 or more.")
    return min(int(limit), LAST_POSITION)


def _check_texts(prefix: str, after: str) -> None:
    """Raise InvalidQuery unless both are text: `after` is a tag, not a position."""
    for name, given in (("prefix", prefix), ("after", after)):
        if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidQuery(
                f"Tags were asked for with {name}={given!r:.60}.",
                "Give text: the last tag of a page is after= of the next.",
            )


async def tags_of(log: Log, prefix: str, limit: int, after: str) -> list[TagCount]:
    """Return tags in order, with counts. See Store.tags."""
    _check_texts(prefix, after)
    return await log.engine.tags(prefix, checked_limit(limit), after)


async def tag_keys_of(log: Log, prefix: str, limit: int, after: str) -> list[str]:
    """Return the keys of tags in order. See Store.tag_keys."""
    _check_texts(prefix, after)
    return await require(log.engine, "lookups").tag_keys(prefix, checked_limit(limit), after)


async def tag_names_of(log: Log, prefix: str, limit: int, after: str) -> list[str]:
    """Return tags in order, without counts. See Store.tag_names."""
    _check_texts(prefix, after)
    limit, lookups = checked_limit(limit), log.engine.services.lookups
    if lookups is not None:
        return await lookups.tag_names(prefix, limit, after)
    return [each.tag for each in await log.engine.tags(prefix, limit, after)]


async def counts_of(log: Log, query: Query, bounds: Sequence[int | date]) -> list[int]:
    """Return how many events match in each range between two bounds. See Store.counts."""
    positions = [await _position(log, bound) for bound in bounds]
    if any(low > high for low, high in pairwise(positions)) or len(positions) > MAX_RANGES + 1:
        raise InvalidQuery(
            f"Numbers of events were asked for between {len(positions)} bounds, which must ascend.",
            f"Give bounds in ascending order, {MAX_RANGES + 1:,} at most.",
        )
    lookups = log.engine.services.lookups
    if lookups is not None:
        return await lookups.counts(query, positions)
    return [await log.engine.count(query, low, high) for low, high in pairwise(positions)]


async def _position(log: Log, bound: int | date) -> int:
    if isinstance(bound, (date, datetime)):
        return await resolve_position(log, bound)
    position = check_position(bound)
    if not 0 <= position <= LAST_POSITION:
        raise InvalidQuery(f"{position} is no position.", "Positions are counted from 1; 0 is before the first event.")
    return position
