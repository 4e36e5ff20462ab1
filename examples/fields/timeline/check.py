"""Checks the timeline: its counters are asked of the source a second time by SQL, another way than they were folded.

The read models add and subtract event by event; the SQL keeps the reactions that no later withdrawal of the same person
and post matches, and counts those. The same for the timeline as it stood at a moment in the past. Besides, the id of a
post contains its time in milliseconds, which is compared with the time that the source states.

    python -m examples.fields.timeline.check
    python -m examples.fields.timeline.check --store timeline.db --limit 300

Knows: the example, SQL. Does not know: how the figures are printed.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.fields import Checked, Comparison, connect, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import table
from examples.fields.timeline.app import (
    LikeWithdrawn,
    PostLiked,
    PostShared,
    Profile,
    ShareWithdrawn,
    Timeline,
    WeekOfPost,
)
from examples.fields.timeline.load import UNTIL, load, read_posts
from examples.fields.timeline.reactions import draw

PAGE = 20  # posts
MOMENTS = (datetime(2016, 11, 10, 12, tzinfo=UTC), datetime(2017, 1, 20, 17, tzinfo=UTC))
RECENT = UNTIL - timedelta(days=3)  # the moment that is asked of a slice
SNOWFLAKE_MS = 1_288_834_974_657  # the beginning of the time in an id
HOURS = 48

# The reactions that nothing matches which came later: `given` less `withdrawn`, person by person, up to a moment.
_KEPT = """
WITH ranked AS (
    SELECT post, kind, person, comment,
           row_number() OVER (PARTITION BY post, kind, person, comment ORDER BY moment) AS nth
    FROM actions WHERE moment <= $until
)
SELECT given.post, given.kind, count(*)
FROM ranked AS given ANTI JOIN ranked AS back
  ON back.post = given.post AND back.person = given.person AND back.comment = given.comment AND back.nth = given.nth
 AND back.kind = CASE given.kind WHEN 'PostLiked' THEN 'LikeWithdrawn' WHEN 'PostShared' THEN 'ShareWithdrawn'
                                 ELSE 'CommentWithdrawn' END
WHERE given.kind IN ('PostLiked', 'PostShared', 'CommentPosted') GROUP BY ALL
"""
_SHOWN = """
SELECT id FROM posts WHERE moment <= $until AND id NOT IN (
    SELECT post FROM actions WHERE kind = 'PostWithdrawn' AND moment <= $until
) ORDER BY moment DESC, id DESC
"""
_CLOCKS = """
SELECT date_diff('second', make_timestamp(((id::BIGINT >> 22) + $began) * 1000), moment AT TIME ZONE 'UTC') AS late,
       count(*)
FROM posts WHERE id::BIGINT > 1::BIGINT << 40 GROUP BY ALL
"""


class Source:
    """The posts and the drawn actions as tables."""

    def __init__(self, limit: int | None, folder: Path) -> None:
        posts = read_posts(limit=limit)
        self.db = connect()
        self._fill("posts", "id VARCHAR, moment TIMESTAMPTZ, likes BIGINT, shares BIGINT, reply BOOL", posts, folder)
        columns = "moment TIMESTAMPTZ, post VARCHAR, kind VARCHAR, person BIGINT, comment BIGINT"
        self._fill("actions", columns, draw(posts, UNTIL), folder)

    def _fill(self, name: str, columns: str, rows: Any, folder: Path) -> None:
        with (folder / f"{name}.csv").open("w", newline="") as opened:
            csv.writer(opened).writerows(rows)
        self.db.execute(f"CREATE TABLE {name} ({columns})")
        self.db.execute(f"COPY {name} FROM '{folder / name}.csv' (HEADER false)")

    def rows(self, sql: str, until: datetime | None = None, **given: Any) -> list[Any]:
        """Return the rows of a query, with the parameter `until` and others."""
        return self.db.execute(sql, given if until is None else {**given, "until": until}).fetchall()


@contextmanager
def source(limit: int | None) -> Generator[Source]:
    """The source as tables, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="eventfold-timeline-") as folder:
        opened = Source(limit, Path(folder))
        try:
            yield opened
        finally:
            opened.db.close()


def doubles(store: ef.Store, compared: Comparison) -> None:
    """Find reactions that no decision allows: given twice, or taken back without having been given."""
    kinds = {PostLiked: "like", LikeWithdrawn: "like", PostShared: "share", ShareWithdrawn: "share"}
    given: set[tuple[str, str, str]] = set()
    for recorded in store.read(ef.Query.of(types=list(kinds))):
        event = recorded.event
        key = (event.post, event.person, kinds[type(event)])
        gives = isinstance(event, PostLiked | PostShared)
        if gives == (key in given):
            what = "given twice" if gives else "taken back, and was not given"
            compared.finding(
                f"event {recorded.position}: the {key[2]} of {event.person} on {event.post} is {what}", event
            )
        (given.add if gives else given.discard)(key)


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare every counter with the source, now and at moments in the past."""
    store.project(Timeline, WeekOfPost, Profile)
    checked = Checked()
    compared = checked.comparison
    with source(limit) as tables:
        written = {each.type: each.count for each in store.types() if not each.type.startswith("$")}
        compared.figures("events", written, dict(tables.rows("SELECT kind, count(*) FROM actions GROUP BY ALL")))
        _compare_counters("now", {row.post: row for row in store.rows(Timeline)}, tables, UNTIL, compared)
        weeks = "SELECT strftime(moment, '%G-W%V'), post, count(*) FROM actions WHERE kind = 'PostLiked' GROUP BY ALL"
        compared.figures(
            "likes of the week",
            {(row.week, row.post): row.likes for row in store.rows(WeekOfPost)},
            {row[:2]: row[2] for row in tables.rows(weeks)},
        )
        people = """SELECT 'p-' || person, count(*) FILTER (kind NOT LIKE '%Withdrawn'),
                           count(*) FILTER (kind LIKE '%Withdrawn') FROM actions WHERE person > 0 GROUP BY ALL"""
        compared.figures(
            "given and taken back",
            {row.person: (row.given, row.taken_back) for row in store.rows(Profile)},
            {row[0]: row[1:] for row in tables.rows(people)},
        )
        for moment in MOMENTS if limit is None else (RECENT,):
            _ask_past(store, tables, moment, checked)
        late = Counter(dict(tables.rows(_CLOCKS, began=SNOWFLAKE_MS)))
        checked.figures["clocks"] = {str(seconds): posts for seconds, posts in sorted(late.items())}
        checked.add("The time in the id beside the stated time", table(["seconds late", "posts"], sorted(late.items())))
    doubles(store, compared)
    checked.figures["events"] = written
    checked.plot = _plot(store)
    return checked


def _compare_counters(
    when: str, rows: Mapping[str, Timeline], tables: Source, until: datetime, compared: Comparison
) -> None:
    """Compare likes, shares and comments of every post up to a moment."""
    kept: dict[str, dict[str, int]] = {}
    for post, kind, number in tables.rows(_KEPT, until):
        kept.setdefault(post, {})[kind] = number
    compared.figures(
        f"likes, shares and comments {when}",
        {post: (row.likes, row.shares, row.comments) for post, row in rows.items()},
        {
            post: tuple(kept.get(post, {}).get(kind, 0) for kind in ("PostLiked", "PostShared", "CommentPosted"))
            for (post,) in tables.rows("SELECT id FROM posts WHERE moment <= $until", until)
        },
    )


def _ask_past(store: ef.Store, tables: Source, moment: datetime, checked: Checked) -> None:
    """The question about the past: what stood there when one looked, with which counters?"""
    view = store.view(Timeline, occurred_until=moment)
    shown = view.rows(withdrawn=False, order=("-published", "-post"))
    when = f"at {moment:%Y-%m-%d %H:%M}"
    _compare_counters(when, {row.post: row for row in view.values()}, tables, moment, checked.comparison)
    visible = [id for (id,) in tables.rows(_SHOWN, moment)]
    checked.comparison.figure(f"the timeline {when}", [row.post for row in shown], visible)
    likes, shares = sum(row.likes for row in view.values()), sum(row.shares for row in view.values())
    checked.figures[f"{moment:%Y-%m-%dT%H:%M}"] = {
        "posts": len(view),
        "likes": likes,
        "shares": shares,
        "first": shown[0].post,
        "first likes": shown[0].likes,
    }
    rows = [(f"{row.published:%m-%d %H:%M}", row.post, row.likes, row.shares, row.comments) for row in shown[:PAGE]]
    checked.add(
        f"The timeline {when}: {len(shown):,} posts, {likes:,} likes, {shares:,} shares",
        table(["published", "post", "likes", "shares", "comments"], rows),
    )


def _plot(store: ef.Store) -> str:
    """The likes and shares of the most liked post, hour by hour after it was published."""
    best = store.rows(Timeline, withdrawn=False, order=("-likes", "post"), limit=1)[0]
    assert best.published is not None
    lines: dict[str, list[tuple[float, float]]] = {"likes": [(0.0, 0.0)], "shares": [(0.0, 0.0)]}
    for recorded in store.read(
        ef.Query.of(types=[PostLiked, LikeWithdrawn, PostShared, ShareWithdrawn], tags=f"post:{best.post}")
    ):
        event = recorded.event
        hour = (event.at - best.published).total_seconds() / 3600
        line = lines["likes" if isinstance(event, PostLiked | LikeWithdrawn) else "shares"]
        if hour <= HOURS:
            line.append((hour, line[-1][1] + (1 if isinstance(event, PostLiked | PostShared) else -1)))
    return line_plot(
        "The most liked post, hour by hour",
        f"Likes and shares of one post in the {HOURS} hours after it was published: steep at first, then flatter.",
        lines,
        labels={hour: f"{hour} h" for hour in range(0, HOURS + 1, 12)},
    )


if __name__ == "__main__":
    sys.exit(main("timeline", load, check))
