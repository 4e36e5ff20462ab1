"""Checks the ratings: counts, means, weeks and the ranking of a past day are asked of the source a second time by SQL.

    python -m examples.fields.likes.check
    python -m examples.fields.likes.check --limit 3000 --store likes.db

Knows: the example, SQL. Does not know: how the figures are printed.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.fields import Checked, Comparison, connect, main
from eventfold.demo.fields.plot import bar_plot
from eventfold.demo.fields.report import bars, table
from examples.fields.likes.app import FilmListed, FilmScore, FilmWeek, Rated, RatingWithdrawn
from examples.fields.likes.load import Row, load, read_ratings
from examples.fields.likes.neighbours import LIKED, Shelf, also_liked

CHART = 10  # films
MOMENT = datetime(2000, 1, 1, tzinfo=UTC)

_SCORES = """
SELECT 'f-' || film, count(*), avg(half_stars) / 2 FROM ratings WHERE moment <= $until GROUP BY film
"""
_CHART = """
SELECT 'f-' || film FROM ratings WHERE moment <= $until GROUP BY film ORDER BY count(*) DESC, 'f-' || film LIMIT 10
"""
_WEEKS = """
SELECT strftime(moment, '%G-W%V') AS week, 'f-' || film, count(*) FROM ratings GROUP BY ALL
"""
_NEIGHBOURS = """
SELECT 'f-' || other.film, count(*) FROM ratings AS own
JOIN ratings AS other ON other.person = own.person AND other.film <> own.film AND other.half_stars >= $liked
WHERE own.half_stars >= $liked AND 'f-' || own.film = $film GROUP BY other.film
"""
_SHELF = "SELECT 'f-' || film, half_stars FROM ratings WHERE 'p-' || person = $person"


class Source:
    """The ratings as a table."""

    def __init__(self, rows: list[Row]) -> None:
        self.db = connect()
        self.db.execute("CREATE TABLE ratings (moment TIMESTAMPTZ, person INTEGER, film INTEGER, half_stars INTEGER)")
        with tempfile.TemporaryDirectory(prefix="eventfold-likes-") as folder:
            path = Path(folder) / "ratings.csv"
            with path.open("w", newline="") as opened:
                writer = csv.writer(opened)
                writer.writerows((datetime.fromtimestamp(row.at, UTC), *row[1:4]) for row in rows)
            self.db.execute(f"COPY ratings FROM '{path}' (HEADER false)")

    def rows(self, sql: str, **given: Any) -> list[Any]:
        """Return the rows of a query."""
        return self.db.execute(sql, given).fetchall()


def mean(row: FilmScore) -> float:
    """The mean of a film, in stars."""
    return row.half_stars / row.ratings / 2


def chart(rows: Any) -> list[str]:
    """The films with the most ratings, the most first."""
    return [row.film for row in sorted(rows, key=lambda row: (-row.ratings, row.film))[:CHART]]


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare every film, week and two rankings, a few profiles, and films that are liked together."""
    store.project(FilmScore, FilmWeek)
    checked, ratings = Checked(), read_ratings(limit=limit)
    compared, source = checked.comparison, Source(ratings)
    now = datetime.fromtimestamp(ratings[-1].at, UTC)
    then = MOMENT if limit is None else datetime.fromtimestamp(ratings[len(ratings) // 2].at, UTC)
    past = store.view(FilmScore, occurred_until=then)
    charts: dict[str, list[str]] = {}
    for moment, rows in ((now, store.rows(FilmScore)), (then, list(past.values()))):
        when = f"{moment:%Y-%m-%d}"
        compared.figures(
            f"ratings and mean at {when}",
            {row.film: (row.ratings, mean(row)) for row in rows},
            {row[0]: row[1:] for row in source.rows(_SCORES, until=moment)},
        )
        charts[when] = chart(rows)
        compared.figure(f"the ranking at {when}", charts[when], [film for (film,) in source.rows(_CHART, until=moment)])
    weeks = {(row.week, row.film): row.ratings for row in store.rows(FilmWeek)}
    compared.figures("ratings of the week", weeks, {row[:2]: row[2] for row in source.rows(_WEEKS)})
    first = charts[f"{now:%Y-%m-%d}"][0]
    neighbours = also_liked(store, first)
    compared.figures("also liked", dict(neighbours), dict(source.rows(_NEIGHBOURS, film=first, liked=LIKED)))
    for person in sorted({f"p-{row.person}" for row in ratings})[:3]:
        shelf = store.state(Shelf(person)).films
        compared.figures(f"profile of {person}", shelf, dict(source.rows(_SHELF, person=person)))
    source.db.close()
    doubles(store, compared)
    _report(store, checked, charts, weeks, neighbours)
    checked.figures |= {"films": len(store.rows(FilmScore)), "ratings": sum(weeks.values())}
    return checked


def doubles(store: ef.Store, compared: Comparison) -> None:
    """Find ratings that no decision allows: a second one of the same person and film."""
    rated: set[tuple[str, str]] = set()
    for recorded in store.read(ef.Query.of(types=[Rated, RatingWithdrawn])):
        pair = (recorded.event.film, recorded.event.person)
        if isinstance(recorded.event, RatingWithdrawn):
            rated.discard(pair)
        elif pair in rated:
            what = f"event {recorded.position}: {pair[1]} has rated {pair[0]} before"
            compared.finding(what, recorded.event)
        else:
            rated.add(pair)


def _report(
    store: ef.Store,
    checked: Checked,
    charts: dict[str, list[str]],
    weeks: dict[tuple[str, str], int],
    neighbours: list[tuple[str, int]],
) -> None:
    """The two rankings side by side, the busiest week, and the plot: ratings a year."""
    titles = {each.event.film: each.event.title for each in store.read(ef.Query.of(types=[FilmListed]))}
    (old, then), (new, now) = sorted(charts.items())[0], sorted(charts.items())[-1]
    rows = [
        (place, titles[before][:34], titles[after][:34])
        for place, (before, after) in enumerate(zip(then, now, strict=False), 1)
    ]
    checked.add("The ranking that a visitor saw", table(["", old, new], rows))
    totals: dict[str, int] = {}
    for (week, _), number in weeks.items():
        totals[week] = totals.get(week, 0) + number
    busiest = max(sorted(totals), key=lambda week: totals[week])
    trending = sorted(((number, film) for (week, film), number in weeks.items() if week == busiest), reverse=True)[
        :CHART
    ]
    checked.add(f"Rated most in {busiest}", bars({titles[film][:40]: number for number, film in trending}))
    liked = {titles[film][:40]: number for film, number in neighbours[:5]}
    checked.add(f"Liked by those who like {titles[now[0]]}", bars(liked))
    years: dict[str, int] = {}
    for week, number in totals.items():
        years[week[:4]] = years.get(week[:4], 0) + number
    checked.plot = bar_plot(
        "Ratings a year", "Bars: the number of ratings in each year.", dict(sorted(years.items())), every=2
    )


if __name__ == "__main__":
    sys.exit(main("likes", load, check))
