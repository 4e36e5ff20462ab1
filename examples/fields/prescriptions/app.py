"""Prescriptions: no medicine that a patient is allergic to, and none twice, unless a named person overrides it.

    store.decide(prescribe, Chart(patient), "rx-1", "Lisinopril 10 MG Oral Tablet", at=now)
    store.decide(prescribe, Chart(patient), "rx-2", "Aspirin 81 MG Oral Tablet", at=now, override=("dr-7", "…"))

A patient is a keyed hash here: names and record numbers stand beside the log, where they can be erased (register.py).
Knows: the trade's events, rules and read models. Does not know: FHIR, who a patient is.
"""

from __future__ import annotations

import re
from datetime import datetime

import eventfold as ef


class PatientHospitalised(ef.Event):
    patient: ef.Tag
    encounter: str


class AllergyRecorded(ef.Event):
    patient: ef.Tag
    substance: str


class AllergyRefuted(ef.Event):
    patient: ef.Tag
    substance: str
    reason: str


class ConditionDiagnosed(ef.Event):
    patient: ef.Tag
    condition: str
    name: str


class ConditionResolved(ef.Event):
    patient: ef.Tag
    condition: str


class MedicationPrescribed(ef.Event):
    patient: ef.Tag
    prescription: ef.Tag
    product: str


class DoseChanged(ef.Event):
    patient: ef.Tag
    prescription: ef.Tag
    product: str
    before: str  # the prescription that this one replaces


class MedicationStopped(ef.Event):
    patient: ef.Tag
    prescription: ef.Tag
    reason: str


class PrescriptionOverridden(ef.Event):
    patient: ef.Tag
    prescription: ef.Tag
    conflict: str
    by: str
    reason: str


class TreatmentStarted(ef.Event):
    patient: ef.Tag
    treatment: str
    name: str


class TreatmentCompleted(ef.Event):
    patient: ef.Tag
    treatment: str
    name: str


class PatientErased(ef.Event):
    patient: ef.Tag


class Refused(Exception): ...


class Chart(ef.State):
    """What a prescriber has to know: allergies, and the products of the prescriptions that are active."""

    patient: ef.Tag
    allergies: set[str] = set()
    active: dict[str, str] = {}
    erased: bool = False

    def evolve(
        self,
        event: AllergyRecorded
        | AllergyRefuted
        | MedicationPrescribed
        | DoseChanged
        | MedicationStopped
        | PatientErased,
    ) -> None:
        match event:
            case AllergyRecorded():
                self.allergies.add(event.substance)
            case AllergyRefuted():
                self.allergies.discard(event.substance)
            case MedicationPrescribed():
                self.active[event.prescription] = event.product
            case DoseChanged():
                self.active.pop(event.before, None)
                self.active[event.prescription] = event.product
            case MedicationStopped():
                self.active.pop(event.prescription, None)
            case PatientErased():
                self.erased = True

    def conflict(self, product: str, without: str = "") -> str | None:
        """Why a product must not be prescribed: an allergy, or the same ingredients already."""
        wanted = ingredients_of(product)
        for substance in sorted(self.allergies):
            if any(name.startswith(part) for name in wanted for part in ingredients_of(substance)):
                return f"allergy: {substance}"
        for prescription, other in self.active.items():
            if prescription != without and wanted & ingredients_of(other):
                return f"active already: {other}"
        return None


def ingredients_of(product: str) -> frozenset[str]:
    """The names in a product's: "12 HR Amoxicillin 250 MG / Clavulanate 125 MG Oral Tablet" has two."""
    parts = [
        re.sub(r"^((abuse-deterrent|nda\d+|[\d.]+ (hr|actuat|ml)) )+", "", part)
        for part in product.lower().split(" / ")
    ]
    return frozenset(re.split(r" [\d.]+ ?(?:mg|unt|day)", part)[0].strip() for part in parts)


def prescribe(
    chart: Chart, prescription: str, product: str, at: datetime, override: tuple[str, str] | None = None
) -> list[ef.Draft]:
    events: list[ef.Event] = [MedicationPrescribed(chart.patient, prescription, product)]
    if conflict := chart.conflict(product):
        if override is None:
            raise Refused(conflict)
        events += [PrescriptionOverridden(chart.patient, prescription, conflict, *override)]
    return [ef.Draft(event, occurred=at) for event in events]


def change_dose(
    chart: Chart, before: str, prescription: str, product: str, at: datetime
) -> list[ef.Draft[DoseChanged]]:
    if before not in chart.active:
        raise Refused(f"{before} is not active")
    if conflict := chart.conflict(product, without=before):
        raise Refused(conflict)
    return [ef.Draft(DoseChanged(chart.patient, prescription, product, before), occurred=at)]


def record_allergy(chart: Chart, substance: str, at: datetime) -> list[ef.Draft[AllergyRecorded]]:
    return [] if substance in chart.allergies else [ef.Draft(AllergyRecorded(chart.patient, substance), occurred=at)]


class Course(ef.Projection):
    """A prescription: since when, until when (None: it is active)."""

    patient: str
    prescription: str
    product: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @staticmethod
    def key(event: MedicationPrescribed | DoseChanged | MedicationStopped) -> list[tuple[str, str]]:
        changed = (event.prescription, *([event.before] if isinstance(event, DoseChanged) else []))
        return [(event.patient, prescription) for prescription in changed]

    def evolve(self, event: MedicationPrescribed | DoseChanged | MedicationStopped, recorded: ef.Recorded) -> None:
        if isinstance(event, MedicationStopped) or event.prescription != self.prescription:
            self.until = recorded.occurred
        else:
            self.product, self.since = event.product, recorded.occurred


class Count(ef.Projection):
    kind: str
    name: str
    events: int = 0

    @staticmethod
    def key(event: ConditionDiagnosed | TreatmentStarted | TreatmentCompleted) -> tuple[str, str]:
        return type(event).__name__, event.name

    def evolve(self, event: ConditionDiagnosed | TreatmentStarted | TreatmentCompleted) -> None:
        self.events += 1
