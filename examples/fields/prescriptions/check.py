"""Checks the prescriptions: courses, days of medication, diagnoses and treatments a second time from the bundles.

    python -m examples.fields.prescriptions.check [--store URL] [--limit 4]

Knows: FHIR resources in SQL, the questions of the trade. Does not know: how resources became events. The other way: SQL
has no list of what is active; it joins each prescription with the later ones that share an ingredient.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import eventfold as ef
from eventfold.demo.fields import Checked, connect, main, report
from eventfold.demo.fields.plot import line_plot
from examples.fields.prescriptions import app
from examples.fields.prescriptions.load import PLANTED, load, read_patients
from examples.fields.prescriptions.register import keyed_hash

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = date(2026, 1, 1)  # of the days that are counted: the reference date of the patients

_ORDERS = r"""
CREATE TABLE orders AS
WITH requests AS (
    SELECT patient, resource->>'$.id' AS id, resource->>'$.status' AS status,
           (resource->>'$.authoredOn')::TIMESTAMPTZ AS authored,
           lower(resource->>'$.medicationCodeableConcept.coding[0].display') AS product,
           (resource->>'$.dispenseRequest.expectedSupplyDuration.value')::INTEGER AS supply,
           resource->>'$.dispenseRequest.expectedSupplyDuration.code' AS unit
    FROM resources WHERE resource->>'$.resourceType' = 'MedicationRequest'
), parts AS (
    SELECT *, list_transform(string_split(product, ' / '), lambda part: trim(regexp_extract(
               regexp_replace(part, '^((abuse-deterrent|nda[0-9]+|[0-9.]+ (hr|actuat|ml)) )+', ''),
               '^(.*?)( [0-9.]+ ?(mg|unt|day).*)?$', 1))) AS ingredients,
           CASE WHEN status = 'stopped' THEN authored + CASE WHEN supply IS NULL THEN INTERVAL 30 DAY
               ELSE supply * CASE unit WHEN 'wk' THEN INTERVAL 7 DAY WHEN 'mo' THEN INTERVAL 30 DAY
                                       WHEN 'h' THEN INTERVAL 1 HOUR ELSE INTERVAL 1 DAY END END END AS supplied_until
    FROM requests
)
SELECT one.patient, one.id, any_value(one.product) AS product, any_value(one.authored) AS since,
       least(any_value(one.supplied_until), min(other.authored)) AS until, any_value(one.ingredients) AS ingredients
FROM parts one LEFT JOIN parts other
  ON one.patient = other.patient AND (other.authored, other.id) > (one.authored, one.id)
 AND list_has_any(one.ingredients, other.ingredients)
GROUP BY one.patient, one.id
"""

_DAYS = """
SELECT patient, day::DATE, count(*) FROM (
    SELECT patient, unnest(generate_series(since::DATE, coalesce(until::DATE, $end::DATE) - 1, INTERVAL 1 DAY)) AS day
    FROM orders
) GROUP BY ALL
"""

_COUNTS = """
WITH named AS (
    SELECT resource->>'$.resourceType' AS type, resource->>'$.code.coding[0].display' AS code,
           resource->>'$.category[#-1].coding[0].display' AS category, resource->>'$.period.end' AS ended
    FROM resources
)
SELECT 'ConditionDiagnosed', code, count(*) FROM named WHERE type = 'Condition' GROUP BY ALL
UNION ALL SELECT 'TreatmentStarted', category, count(*) FROM named WHERE type = 'CarePlan' GROUP BY ALL
UNION ALL SELECT 'TreatmentCompleted', coalesce(if(type = 'CarePlan', category, code), ''), count(*) FROM named
    WHERE type = 'Procedure' OR type = 'CarePlan' AND ended IS NOT NULL GROUP BY ALL
"""

_CONFLICTS = """
SELECT DISTINCT id FROM orders JOIN (
    SELECT patient, (resource->>'$.recordedDate')::TIMESTAMPTZ AS recorded,
           unnest(string_split(lower(resource->>'$.code.coding[0].display'), ' / ')) AS substance
    FROM resources WHERE resource->>'$.resourceType' = 'AllergyIntolerance'
) AS allergies USING (patient)
WHERE recorded <= since AND len(list_filter(ingredients, lambda name: starts_with(name, substance))) > 0
"""


class Known(NamedTuple):
    """What a chart had at the minute of a prescription, and what it had when the prescription was entered."""

    at: app.Chart
    entered: app.Chart


def knowledge(store: ef.Store, patient: str, prescription: str) -> Known:
    """What did the prescriber know?"""
    query = ef.Query.of(types=[app.MedicationPrescribed], tags=[f"prescription:{prescription}"])
    recorded = next(iter(store.read(query)))
    at = recorded.occurred or recorded.time
    chart = app.Chart(patient)
    return Known(store.state(chart, occurred_until=at), store.state(chart, at=recorded.first - 1))


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Ask every figure twice, look for conflicts, and answer the prescriber's question."""
    store.project(app.Course, app.Count)
    planted = keyed_hash(PLANTED)
    courses = [row for row in store.rows(app.Course) if row.patient != planted]
    checked, db = Checked(), connect()
    with tempfile.TemporaryDirectory(prefix="eventfold-prescriptions-") as folder:
        file = Path(folder) / "resources.jsonl"
        with file.open("wb") as written:
            written.writelines(_lines(store, limit))
        db.execute(
            "CREATE TABLE resources AS FROM read_json($file, columns = {patient: 'VARCHAR', resource: 'JSON'})",
            {"file": str(file)},
        )
    db.execute(_ORDERS)
    _compare(checked, store, courses, db)
    found = conflicts(store)
    in_source = {id for (id,) in db.execute(_CONFLICTS).fetchall()}
    against = {id: why for id, why in found.items() if "allergy:" in why}
    for id, why in found.items():
        if id not in in_source:
            checked.comparison.finding(why, True)
    checked.comparison.figure("prescriptions against an allergy", set(against), in_source)
    checked.figures["against an allergy"] = len(against)
    checked.add("Against an allergy, as generated; no one overrode them", list(against.values()))
    known = knowledge(store, planted, PLANTED)
    entered = ", ".join(sorted(known.entered.allergies))
    checked.add(
        "What did the prescriber know? (given 10:01, allergy 10:02, entered 10:05)",
        [
            f"at the minute of the prescription: allergies {sorted(known.at.allergies) or 'none'}",
            f"when it was entered: {entered}",
        ],
    )
    db.close()
    return checked


def _lines(store: ef.Store, limit: int | None) -> Iterator[bytes]:
    """One JSON object for each resource that the figures need, of each patient who was not erased."""
    used = {"MedicationRequest", "AllergyIntolerance", "Condition", "CarePlan", "Procedure"}
    for record, _, resources in read_patients(limit):
        patient = keyed_hash(record)
        for resource in resources:
            if resource["resourceType"] in used:
                yield msgspec.json.encode({"patient": patient, "resource": resource}) + b"\n"


def _compare(checked: Checked, store: ef.Store, courses: list[app.Course], db: Any) -> None:
    compare = checked.comparison
    spans = {
        (row.patient, row.prescription): (row.product.lower(), _micros(row.since), _micros(row.until))
        for row in courses
    }
    found = db.execute("SELECT patient, id, product, epoch_us(since), epoch_us(until) FROM orders").fetchall()
    asked = {(patient, id): (product, since, until) for patient, id, product, since, until in found}
    compare.figures("product, beginning and end of prescription", spans, asked)
    days = active_days(courses)
    by_sql = {(patient, day): count for patient, day, count in db.execute(_DAYS, {"end": END}).fetchall()}
    compare.figures("active prescriptions on the day", days, by_sql)
    counts = {(row.kind, row.name): row.events for row in store.rows(app.Count)}
    compare.figures("number of", counts, {(kind, name): count for kind, name, count in db.execute(_COUNTS).fetchall()})
    types = {each.type: each.count for each in store.types()}
    checked.figures |= {"prescriptions": len(courses), "days": len(days), "events": types}
    checked.add("Events", report.numbers(dict(sorted(types.items()))))
    most: Counter[str] = Counter()
    for row in courses:
        most[" / ".join(sorted(app.ingredients_of(row.product)))] += 1
    checked.add("The ten ingredients that were prescribed most", report.bars(dict(most.most_common(10))))
    years: defaultdict[int, int] = defaultdict(int)
    for (_, day), count in days.items():
        years[day.year] += count
    mean = {year: round(units / 365.25, 2) for year, units in sorted(years.items())}
    checked.plot = line_plot(
        "Prescriptions that are active at once, all generated patients together",
        "A line over the years: the mean number of active prescriptions on a day.",
        {"active prescriptions": list(mean.items())},
        labels={year: str(year) for year in mean if year % 10 == 0},
    )


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)


def active_days(courses: list[app.Course]) -> dict[tuple[str, date], int]:
    """How many prescriptions of a patient are active at the end of each day, until the reference date."""
    days: Counter[tuple[str, date]] = Counter()
    for row in courses:
        if row.since is not None:
            since, until = row.since.date(), END if row.until is None else row.until.date()
            days.update((row.patient, since + timedelta(days=number)) for number in range((until - since).days))
    return dict(days)


def conflicts(store: ef.Store) -> dict[str, str]:
    """What breaks the rule, without a named override: each prescription against what the log had before it."""
    overrides = store.read(ef.Query.of(types=[app.PrescriptionOverridden]))
    overridden = {recorded.event.prescription for recorded in overrides}
    charts: dict[str, app.Chart] = {}
    found: dict[str, str] = {}
    kinds = (app.AllergyRecorded, app.AllergyRefuted, app.MedicationPrescribed, app.DoseChanged, app.MedicationStopped)
    for recorded in store.read(ef.Query.of(types=kinds)):
        event = recorded.event
        chart = charts.setdefault(event.patient, app.Chart(event.patient))
        if isinstance(event, app.MedicationPrescribed | app.DoseChanged) and event.prescription not in overridden:
            before = event.before if isinstance(event, app.DoseChanged) else ""
            if conflict := chart.conflict(event.product, without=before):
                found[event.prescription] = f"{event.product}, {conflict} (event {recorded.position})"
        chart.evolve(event)
    return found


if __name__ == "__main__":
    sys.exit(main("prescriptions", load, check))
