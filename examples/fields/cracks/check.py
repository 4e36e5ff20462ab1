"""Checks the cracks: scores the predictions, makes each again from its cursor, and asks SQL for the same lines.

Knows: SQL, the readings. Does not know: how states are folded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import eventfold as ef
from eventfold.core.query import Cursor
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import table
from eventfold.errors import EventfoldError
from examples.fields.cracks.app import REMOVED_AT, CrackMeasured, FailurePredicted, Line, ModelScore, Specimen
from examples.fields.cracks.load import LENGTHS, MODEL, PREDICTED_AT, load, rows

ASKED = "11"  # whose crack turned faster than any line through its readings said
MARGINS = (0, 5_000, 10_000)  # cycles beyond the end of the test, for the rules that were not in force

_READINGS = "CREATE TABLE readings (cycle INTEGER, specimen VARCHAR, length INTEGER)"
# The first reading at or above 1.60 inch, and the line from the one before.
_FAILURES = """
SELECT specimen, any_value(before_cycle + (160 - before) * (cycle - before_cycle) / (length - before)) FROM (
    SELECT *, lag(length) OVER w AS before, lag(cycle) OVER w AS before_cycle
    FROM readings WINDOW w AS (PARTITION BY specimen ORDER BY cycle)
) WHERE length >= 160 GROUP BY specimen
"""
_PREDICTED = """
WITH last AS (
    SELECT specimen, cycle, length, max(cycle) OVER (PARTITION BY specimen) AS latest, max(length) OVER (
        PARTITION BY specimen) AS longest, row_number() OVER (PARTITION BY specimen ORDER BY cycle DESC) AS back
    FROM readings WHERE cycle <= $as_of
)
SELECT specimen, (1 / 160 - regr_intercept(1 / length, cycle)) / regr_slope(1 / length, cycle)
FROM last WHERE back <= 4 AND latest = $as_of AND longest < 160 GROUP BY specimen
"""


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare with SQL, make every prediction again, answer the questions about the past."""
    checked = Checked()
    failures, predicted = ask_source(limit)
    _compare(store, checked, failures, predicted)
    for what in unfounded(store):
        checked.comparison.finding("a prediction that its cursor does not give", what)
    store.project(ModelScore)
    scores = store.rows(ModelScore, order=["as_of"])
    checked.add("Predictions as of then, scored afterwards", _scored(scores))
    checked.add(f"Specimen {ASKED}, as it was predicted", _asked(store))
    checked.add("Would another rule have ordered the inspection?", _what_if(store))
    checked.figures = {
        "failed": len(failures),
        "readings": store.count(ef.Query.of(types=[CrackMeasured])),
        "scores": {row.as_of: score_of(row) for row in scores},
        "what_if": what_if(store),
    }
    checked.plot = _plot(limit)
    return checked


def ask_source(limit: int | None) -> tuple[dict[str, float], dict[tuple[str, int], float]]:
    """The failures and the predictions by SQL: by specimen; by specimen and cycle."""
    db = connect()
    db.execute(_READINGS)
    db.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows(limit))
    failures = dict(db.execute(_FAILURES).fetchall())
    predicted = {
        (specimen, as_of): fails_at
        for as_of in PREDICTED_AT
        for specimen, fails_at in db.execute(_PREDICTED, {"as_of": as_of}).fetchall()
    }
    db.close()
    return failures, predicted


def _compare(
    store: ef.Store, checked: Checked, failures: dict[str, float], predicted: dict[tuple[str, int], float]
) -> None:
    """Compare the readings, the failures, the predictions and their scores, to a tenth of a cycle."""
    comparison = checked.comparison
    states = {specimen: store.state(Specimen(specimen)) for specimen in LENGTHS}
    ours = {one: round(state.failed, 1) for one, state in states.items() if state.failed is not None}
    comparison.figures("failure of specimen", ours, {one: round(at, 1) for one, at in failures.items()})
    made = {
        (each.specimen, each.as_of): round(each.fails_at, 1)
        for state in states.values()
        for each in state.predicted.values()
    }
    comparison.figures("predicted failure of", made, {key: round(at, 1) for key, at in predicted.items()})
    store.project(ModelScore)
    for row in store.rows(ModelScore):
        due = {one: at for (one, as_of), at in predicted.items() if as_of == row.as_of}
        found = sum(at < REMOVED_AT for one, at in due.items() if one in failures)
        comparison.figure(f"found, as of {row.as_of}", row.found, found)
        comparison.figure(f"missed, as of {row.as_of}", row.missed, sum(one in failures for one in due) - found)
        late = sum(abs(at - failures[one]) for one, at in due.items() if one in failures)
        comparison.figure(f"sum of errors, as of {row.as_of}", round(sum(map(abs, row.errors)), 1), round(late, 1))


def unfounded(store: ef.Store) -> list[str]:
    """The predictions that differ from what the model gives at their cursor, or were made of a part that was gone."""
    found: list[str] = []
    for each in store.read(ef.Query.of(types=[FailurePredicted])):
        event = each.event
        what = f"specimen {event.specimen} as of {event.as_of:,} cycles, position {each.position}"
        try:
            position = store.verify(Cursor.parse(event.cursor))
        except EventfoldError as error:
            found.append(f"{what}: {error}")
            continue
        then = store.state(Specimen(event.specimen), at=position)
        if position >= each.position or then.gone or abs(MODEL.crossing(then.readings) - event.fails_at) > 1e-6:
            found.append(what)
    return found


def score_of(row: ModelScore) -> dict[str, Any]:
    """Precision, recall and the mean error in cycles: the latter of all parts that failed."""
    named = row.errors
    return {
        "predicted": row.found + row.missed + row.false_alarms + row.quiet,
        "precision": row.found / (row.found + row.false_alarms) if row.found + row.false_alarms else None,
        "recall": row.found / (row.found + row.missed) if row.found + row.missed else None,
        "mean_error": sum(map(abs, named)) / len(named) if named else None,
        "too_late": sum(each > 0 for each in named),
    }


def _scored(scores: Iterable[ModelScore]) -> list[str]:
    lines: list[tuple[Any, ...]] = []
    for row in scores:
        one = score_of(row)
        right = f"{row.found}/{row.found + row.missed}"
        lines.append((row.as_of, one["predicted"], right, row.false_alarms, one["mean_error"], one["too_late"]))
    return table(("as of cycle", "parts", "failures found", "false alarms", "mean error", "too late"), lines)


def _asked(store: ef.Store) -> list[str]:
    state = store.state(Specimen(ASKED))
    lines = [f"as of {each.as_of:>7,} cycles: fails at {each.fails_at:,.0f}" for each in state.predicted.values()]
    return [*lines, f"it failed at {state.failed:,.0f}" if state.failed else "it has not failed"]


def what_if(store: ef.Store) -> dict[str, dict[str, int]]:
    """Orders under other rules as of 80,000 cycles: how many of the failures, and how many for nothing."""
    made = [each.event for each in store.read(ef.Query.of(types=[FailurePredicted]))]
    first = [each for each in made if each.as_of == PREDICTED_AT[0]]
    failed = {one for one in LENGTHS if store.state(Specimen(one)).failed is not None}
    result: dict[str, dict[str, int]] = {}
    for margin in MARGINS:
        ordered = {each.specimen for each in first if each.fails_at < REMOVED_AT + margin}
        result[f"within {REMOVED_AT + margin:,} cycles"] = _outcome(ordered, failed)
    six = Line("six readings", 6)
    at = {each.specimen: store.verify(Cursor.parse(each.cursor)) for each in first}
    readings = {one: store.state(Specimen(one), at=position).readings for one, position in at.items()}
    ordered = {one for one, found in readings.items() if six.crossing(found) < REMOVED_AT}
    result["a line through six readings"] = _outcome(ordered, failed)
    return result


def _outcome(ordered: set[str], failed: set[str]) -> dict[str, int]:
    return {"found": len(ordered & failed), "missed": len(failed - ordered), "for nothing": len(ordered - failed)}


def _what_if(store: ef.Store) -> list[str]:
    return table(
        ("ordered at 80,000 cycles if the failure is due", "found", "missed", "for nothing"),
        [(rule, *outcome.values()) for rule, outcome in what_if(store).items()],
    )


def _plot(limit: int | None) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for cycle, specimen, length in rows(limit):
        lines.setdefault(specimen, []).append((cycle, length / 100))
    shown = {f"specimen {one}": line for one, line in lines.items() if one in ("1", "6", "11", "16", "21")}
    return line_plot(
        "Five of 21 fatigue cracks: length in inches by cycles; a part fails at 1.60",
        "Lengths rise from 0.90 inch, faster and faster; the worst specimen passes 1.60 after 87,500 cycles.",
        shown,
        labels={each: f"{each:,}" for each in (0, 40_000, 80_000, 120_000)},
    )


if __name__ == "__main__":
    sys.exit(main("cracks", load, check))
