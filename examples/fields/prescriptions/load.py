"""Reads the bundles of generated patients, and writes what happened to each, in order of time.

Knows: resources of FHIR R4, what each becomes. Does not know: any rule of prescribing, how patients are generated.

- MedicationRequest has no end in R4, only a status. **Chosen**: an order that was stopped ends after its stated supply,
  or after 30 days; any order ends when one that shares an ingredient follows. That is a DoseChanged if the ingredients
  are the same and the product is not, a renewal if the product is the same.
- CarePlan has a period: TreatmentStarted, and TreatmentCompleted if it ended. Procedure has one moment, at which it was
  done: TreatmentCompleted. Neither has a dose.
- Of encounters only those of the class inpatient are admissions. The same record number is the same patient.
- Allergies are to ingredients, prescriptions of products, and nothing in a bundle connects their codes: names do. By
  names the generator prescribed aspirin twice to people allergic to it: loaded as it is, and listed by the check.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.prescriptions import app
from examples.fields.prescriptions.patients import bundles
from examples.fields.prescriptions.register import Register, keyed_hash

WHOLE = 20
SUPPLY = timedelta(days=30)
UNITS = {"d": timedelta(days=1), "wk": timedelta(weeks=1), "mo": timedelta(days=30), "h": timedelta(hours=1)}
ENDED = "the supply ended"
PLANTED = "planted"
LATE = datetime.fromisoformat("2026-01-05T10:00:00+00:00")


class Fact(NamedTuple):
    """An event, when it occurred, and from which resource; `rows` is 1 for the one that stands for the resource."""

    at: datetime
    number: int
    resource: str
    event: ef.Event
    rows: int


class Order(NamedTuple):
    """A prescription in the source; `supplied_until` is None if it was not stopped."""

    at: datetime
    id: str
    product: str
    supplied_until: datetime | None


def load(store: ef.Store, limit: int | None = None, register: Register | None = None) -> LoadCount:
    """Write what happened to the patients; a second run writes nothing. `limit`: 4, for the smaller set of patients.

    A patient who was erased is not loaded again: the resources are rejected.
    """
    count, register = LoadCount(), register or Register()
    for record, name, resources in read_patients(limit):
        count.read += len(resources)
        patient = keyed_hash(record)
        if store.state(app.Chart(patient)).erased:
            count.reject("resources of erased patients", len(resources))
            continue
        register.add(record, name)
        found = sorted(facts(patient, resources, count), key=lambda fact: (fact.at, fact.number))
        write(store, map(_draft, found), count)
    made = plant(store)
    count.made, count.events = count.made + made, count.events + made
    return count


def read_patients(limit: int | None = None) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yield record number, name and resources of each patient."""
    for content in bundles(limit or WHOLE):
        resources = [entry["resource"] for entry in msgspec.json.decode(content)["entry"]]
        person = next(each for each in resources if each["resourceType"] == "Patient")
        (record,) = (each["value"] for each in person["identifier"] if _code(each.get("type")) == "MR")
        (name,) = (each for each in person["name"] if each["use"] == "official")
        yield record, " ".join((*name["given"], name["family"])), resources


def facts(patient: str, resources: list[dict[str, Any]], count: LoadCount) -> Iterator[Fact]:
    """Yield the events of a patient's resources, in no order of time; resources without an event are counted."""
    orders: list[Order] = []
    number = 0
    for resource in resources:
        found = list(_of_resource(patient, resource))
        if resource["resourceType"] == "MedicationRequest":
            orders.append(order_of(resource))
        elif not found:
            count.reject(_rejection(resource))
        for at, event in found:
            number += 1
            yield Fact(at, number, resource["id"], event, int(event is found[0][1]))
    yield from _prescribed(patient, sorted(orders), number)


def _of_resource(patient: str, resource: dict[str, Any]) -> Iterator[tuple[datetime, ef.Event]]:
    """The events of one resource that is no prescription."""
    own, name = resource["id"], _text(resource.get("code"))
    match resource["resourceType"]:
        case "AllergyIntolerance":
            yield _moment(resource["recordedDate"]), app.AllergyRecorded(patient, name)
        case "Condition":
            yield _moment(resource["onsetDateTime"]), app.ConditionDiagnosed(patient, own, name)
            if ended := resource.get("abatementDateTime"):
                yield _moment(ended), app.ConditionResolved(patient, own)
        case "Encounter" if resource["class"]["code"] == "IMP":
            yield _moment(resource["period"]["start"]), app.PatientHospitalised(patient, own)
        case "CarePlan":
            name = _text(resource["category"][-1])
            yield _moment(resource["period"]["start"]), app.TreatmentStarted(patient, own, name)
            if ended := resource["period"].get("end"):
                yield _moment(ended), app.TreatmentCompleted(patient, own, name)
        case "Procedure":
            yield _moment(resource["performedDateTime"]), app.TreatmentCompleted(patient, own, name)
        case _:
            pass


def _rejection(resource: dict[str, Any]) -> str:
    match resource["resourceType"]:
        case "Patient":
            return "Patient: in the register, beside the log"
        case "Encounter":
            return "Encounter without an admission"
        case other:
            return f"{other}: not used"


def order_of(resource: dict[str, Any]) -> Order:
    """A MedicationRequest as an order."""
    at = _moment(resource["authoredOn"])
    given = resource.get("dispenseRequest", {}).get("expectedSupplyDuration")
    supply = given["value"] * UNITS[given["code"]] if given else SUPPLY
    product = _text(resource["medicationCodeableConcept"])
    return Order(at, resource["id"], product, at + supply if resource["status"] == "stopped" else None)


def _prescribed(patient: str, orders: list[Order], number: int) -> Iterator[Fact]:
    """Yield the events of all prescriptions of a patient. `orders` are in order of time."""
    active: list[Order] = []
    for order in orders:
        wanted = app.ingredients_of(order.product)
        for old in [old for old in active if old.supplied_until is not None and old.supplied_until <= order.at]:
            active.remove(old)
        shared = [old for old in active if wanted & app.ingredients_of(old.product)]
        changed = next(
            (old for old in shared if old.product != order.product and app.ingredients_of(old.product) == wanted), None
        )
        for old in shared:
            active.remove(old)
            if old is not changed:
                number += 1
                reason = "renewed" if old.product == order.product else f"replaced by {order.product}"
                yield Fact(order.at, number, old.id, app.MedicationStopped(patient, old.id, reason), 0)
        number += 1
        event = (
            app.DoseChanged(patient, order.id, order.product, changed.id)
            if changed
            else app.MedicationPrescribed(patient, order.id, order.product)
        )
        yield Fact(order.at, number, order.id, event, 1)
        active.append(order)
        if order.supplied_until is not None and not _replaced(order, orders):
            number += 1
            yield Fact(order.supplied_until, number, order.id, app.MedicationStopped(patient, order.id, ENDED), 0)


def _replaced(order: Order, orders: list[Order]) -> bool:
    """Whether an order that shares an ingredient follows before the supply ends."""
    wanted = app.ingredients_of(order.product)
    return any(
        order < other
        and (order.supplied_until is None or other.at < order.supplied_until)
        and wanted & app.ingredients_of(other.product)
        for other in orders
    )


def plant(store: ef.Store) -> int:
    """Plant what the source does not have: a prescription of 10:01 that is entered after an allergy of 10:02."""
    chart = app.Chart(keyed_hash(PLANTED))
    product, why = "Penicillin V Potassium 250 MG Oral Tablet", ("dr-7", "given at 10:01, entered at 10:05")
    given, noted = LATE + timedelta(minutes=1), LATE + timedelta(minutes=2)
    allergy = store.using(command_id="planted-allergy").decide(app.record_allergy, chart, "Penicillin V", noted)
    late = store.using(command_id="planted-prescription").decide(app.prescribe, chart, PLANTED, product, given, why)
    return sum(len(decided.events) for decided in (allergy, late) if not decided.repeated)


def _draft(fact: Fact) -> tuple[ef.Draft[ef.Event], int]:
    kind = type(fact.event).__name__
    return ef.Draft(fact.event, id=id_from(fact.at, fact.resource, kind), occurred=fact.at), fact.rows


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(concept: dict[str, Any] | None) -> str:
    """The first words of a coded concept."""
    return concept["coding"][0]["display"] if concept else ""


def _code(concept: dict[str, Any] | None) -> str:
    return concept["coding"][0]["code"] if concept else ""
