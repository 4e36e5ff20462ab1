"""Checks the ward: contacts, roles and pairs a second time from the source, and what was known on the third evening.

    python -m examples.fields.ward.check [--store URL] [--limit N]

The licence of the data permits no commercial use: its figures are printed here and published nowhere.
Knows: the source in SQL, the questions of the trade. Does not know: how readings became contacts. The other way: SQL
marks each reading that does not follow one of the same pair, and numbers the contacts by a running total of the marks.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

import eventfold as ef
from eventfold.demo.data import unpack
from eventfold.demo.fields import Checked, connect, main, report
from examples.fields.ward import app
from examples.fields.ward.load import EARLY, EVENING, PARIS, SOURCE, STEP, WARD, load, near

_CONTACTS = """
CREATE TABLE contacts AS
WITH readings AS (
    SELECT column0::BIGINT + $early AS moment, least(column1, column2) AS one, greatest(column1, column2) AS other,
           CASE WHEN column1 < column2 THEN column3 ELSE column4 END AS role,
           CASE WHEN column1 < column2 THEN column4 ELSE column3 END AS other_role
    FROM read_csv($file, delim = '\\t', header = false, all_varchar = true)
), marks AS (
    SELECT *, coalesce(moment - lag(moment) OVER (PARTITION BY one, other ORDER BY moment) <> $step, true) AS is_first
    FROM readings
), numbered AS (
    SELECT *, count(*) FILTER (is_first) OVER (PARTITION BY one, other ORDER BY moment) AS number FROM marks
)
SELECT one, other, role, other_role, min(moment) AS start, count(*) * $step AS seconds
FROM numbered GROUP BY one, other, role, other_role, number
"""

_ROLES = """
SELECT least(role, other_role), greatest(role, other_role), count(*), sum(seconds)::BIGINT FROM contacts GROUP BY 1, 2
"""

_PAIRS = "SELECT one, other, count(*), sum(seconds)::BIGINT FROM contacts GROUP BY 1, 2"

_HOURS = """
SELECT extract(hour FROM to_timestamp(start) AT TIME ZONE 'Europe/Paris')::INTEGER, count(*) FROM contacts GROUP BY 1
"""


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Ask every figure twice, look for broken rules, and answer the questions of the trade."""
    store.project(app.Matrix)
    checked = Checked()
    rows = {(row.one, row.other): (row.contacts, row.seconds) for row in store.rows(app.Matrix)}
    hours = dict.fromkeys(range(24), 0)
    for recorded in store.read(ef.Query.of(types=[app.ContactSensed])):
        hours[(recorded.occurred or recorded.time).astimezone(PARIS).hour] += 1
    db = connect()
    with tempfile.TemporaryDirectory(prefix="eventfold-ward-") as folder:
        file = str(unpack(SOURCE, Path(folder), limit))
        db.execute(_CONTACTS, {"file": file, "early": EARLY, "step": STEP})
    asked = {
        (one, other): tuple(figures) for one, other, *figures in db.execute(f"{_ROLES} UNION ALL {_PAIRS}").fetchall()
    }
    checked.comparison.figures("contacts and seconds of", rows, asked)
    by_hour = dict(db.execute(_HOURS).fetchall())
    checked.comparison.figures("contacts that begin in the hour", {hour: n for hour, n in hours.items() if n}, by_hour)
    for breach in breaches(store):
        checked.comparison.finding(breach, True)
    contacts = sum(hours.values())
    by_day = sum(count for hour, count in hours.items() if 7 <= hour < 20)
    checked.figures |= {
        "contacts": contacts,
        "by day": round(by_day / max(1, contacts), 4),
        "pairs": sum(one.isdigit() for one, _ in rows),
    }
    _matrix(checked, rows)
    _known(checked, store)
    return checked


def breaches(store: ef.Store) -> list[str]:
    """What breaks a rule of the ward, found by one pass over its events."""
    found: list[str] = []
    ordered: dict[str, datetime] = {}
    isolated, outbreak = set[str](), False
    for recorded in store.read(ef.Query.of(tags=[f"ward:{WARD}"])):
        event, at = recorded.event, recorded.occurred or recorded.time
        match event:
            case app.TestOrdered():
                if event.person in isolated:
                    found.append(f"{event.person} was tested while isolated (event {recorded.position})")
                if at - ordered.get(event.person, datetime.min.replace(tzinfo=UTC)) < app.BETWEEN_TESTS:
                    found.append(f"{event.person} was tested twice in 24 hours (event {recorded.position})")
                ordered[event.person] = at
            case app.PatientIsolated():
                isolated.add(event.person)
            case app.IsolationLifted():
                isolated.discard(event.person)
            case app.OutbreakDeclared() | app.OutbreakEnded():
                outbreak = isinstance(event, app.OutbreakDeclared)
            case app.PatientAdmitted() if outbreak:
                found.append(f"{event.person} was admitted during an outbreak (event {recorded.position})")
            case _:
                pass
    return found


class Tracing(msgspec.Struct):
    """Whom the positive tests of a moment ask to test, and who of them had not been tested."""

    positive: list[str]
    near: set[str]
    missed: set[str]


def tracing(store: ef.Store, known_until: datetime) -> Tracing:
    """Who should have been tested by the third evening, by what was known at another moment."""
    samples = store.state(app.Tests(WARD), occurred_until=known_until).samples
    positive = [sample for sample in samples.values() if sample.positive and sample.ordered <= EVENING]
    should = {other for sample in positive for other in near(store, sample)}
    tested = {sample.person for sample in samples.values() if sample.ordered <= EVENING}
    return Tracing([sample.person for sample in positive], should, should - tested)


def _known(checked: Checked, store: ef.Store) -> None:
    """The audit question, and the tests as a tree of causes."""
    then, now = tracing(store, EVENING), tracing(store, EVENING + timedelta(days=7))
    checked.figures["known then"] = (len(then.positive), len(then.near), len(then.missed))
    checked.figures["known now"] = (len(now.positive), len(now.near), len(now.missed))
    rows = [(words, *checked.figures[words]) for words in ("known then", "known now")]
    head = ("", "positive", "near them", "not tested")
    checked.add("Whom should we have tested by the evening of the third day?", report.table(head, rows))
    samples = store.state(app.Tests(WARD)).samples
    checked.add("Tests, and what led to them", _tree(samples, None, 0))


def _tree(samples: dict[str, app.Sample], cause: str | None, depth: int) -> list[str]:
    lines: list[str] = []
    for name, sample in samples.items():
        if sample.because_of == cause:
            result = {True: "positive", False: "negative", None: "open"}[sample.positive]
            lines.append(f"{'  ' * depth}{sample.person} {sample.ordered.astimezone(PARIS):%d %b %H:%M} {result}")
            lines += _tree(samples, name, depth + 1)
    return lines


def _matrix(checked: Checked, rows: dict[tuple[str, str], tuple[int, int]]) -> None:
    """Contacts between the roles."""
    roles = sorted({role for pair in rows for role in pair if not role.isdigit()})
    table = [(one, *(rows.get((min(one, other), max(one, other)), (0, 0))[0] for other in roles)) for one in roles]
    checked.add("Contacts by role", report.table(("", *roles), table))
    checked.figures["roles"] = {f"{one} {other}": rows[one, other][0] for one, other in rows if not one.isdigit()}


if __name__ == "__main__":
    sys.exit(main("ward", load, check))
