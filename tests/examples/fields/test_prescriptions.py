"""Prescriptions: no conflict gets past 32 prescribers, what was known when, and one patient who is erased."""

from __future__ import annotations

import fcntl
import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.demo.data import cache_folder
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.errors import DataChanged, DataMissing
from eventfold.testing import given
from examples.fields.prescriptions import app, patients
from examples.fields.prescriptions.check import active_days, check, conflicts, knowledge
from examples.fields.prescriptions.load import PLANTED, load, read_patients
from examples.fields.prescriptions.register import Register, keyed_hash
from tests.support.programs import REQUIRED, Missing

FEW = 4
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
LISINOPRIL = "lisinopril 10 MG Oral Tablet"


@pytest.fixture(scope="session")
def generated() -> None:
    """Generate a few patients, once on this machine; skip by name where that is not possible."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / ".generating").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            patients.generate(FEW)
        except DataMissing as missing:
            if os.environ.get(REQUIRED):
                raise
            raise Missing(f"generated patients (python -m {patients.MODULE})") from missing


@pytest.fixture(scope="module")
def loaded(generated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the patients, beside their register."""
    path = tmp_path_factory.mktemp("prescriptions") / "prescriptions.db"
    register = Register(path.with_name("register.db"))
    with ef.Store(str(path)) as store:
        count = load(store, FEW, register)
    register.close()
    assert count.is_complete
    assert count.loaded > 500
    return path


def test_the_figures_are_those_of_the_bundles_and_a_second_load_writes_nothing(loaded: Path) -> None:
    """Courses, days of medication, diagnoses and treatments agree with SQL; loading again repeats every resource."""
    with ef.Store(str(loaded)) as store:
        again = load(store, FEW)
        assert (again.events, again.loaded) == (0, 0)
        assert again.is_complete
        found = check(store, FEW)
    assert found.comparison.compared > 10_000
    assert found.comparison.mismatches == []
    types = found.figures["events"]
    assert {"TreatmentStarted", "TreatmentCompleted", "DoseChanged", "MedicationStopped"} <= types.keys()


def test_what_the_prescriber_knew_is_asked_in_two_ways(loaded: Path) -> None:
    """At 10:01 no allergy was known; when the prescription was entered, one was, and a named person overrode it."""
    patient = keyed_hash(PLANTED)
    with ef.Store(str(loaded)) as store:
        known = knowledge(store, patient, PLANTED)
        overridden = ef.Query.of(types=[app.PrescriptionOverridden], tags=[f"patient:{patient}"])
        (override,) = [recorded.event for recorded in store.read(overridden)]
    assert known.at.allergies == set()
    assert known.entered.allergies == {"Penicillin V"}
    assert (override.by, override.conflict) == ("dr-7", "allergy: Penicillin V")


@pytest.mark.parametrize("conditional", [True, False], ids=["with-the-condition", "without-it"])
def test_thirty_two_prescribers_prescribe_an_ingredient_once(served: str, conditional: bool) -> None:
    """Of 32 who prescribe the same ingredient at once, one succeeds. Without the condition it is active many times."""
    with ef.Store(served):
        pass
    asked = [(app.prescribe, app.Chart("p"), f"rx-{number}", LISINOPRIL, NOON) for number in range(32)]
    result = contend(served, _call, asked, app.Refused, conditional=conditional)
    with ef.Store(served) as store:
        active, found = len(store.state(app.Chart("p")).active), conflicts(store)
    if conditional:
        assert (result.accepted, result.refused, active, found) == (1, 31, 1, {})
    else:
        assert active > 1
        assert found


def test_an_allergy_stops_those_who_prescribe_at_the_same_moment(served: str) -> None:
    """While 31 prescribe different products to a patient, an allergy to all of them is recorded: none is behind it."""
    with ef.Store(served):
        pass
    products = [f"penicillin {name} 250 MG Oral Tablet" for name in map(str, range(31))]
    asked: list[tuple[object, ...]] = [
        (app.prescribe, app.Chart("p"), f"rx-{number}", product, NOON) for number, product in enumerate(products)
    ]
    asked.insert(16, (app.record_allergy, app.Chart("p"), "Penicillin", NOON))
    result = contend(served, _call, asked, app.Refused)
    with ef.Store(served) as store:
        kinds = [recorded.type for recorded in store.read()]
        assert conflicts(store) == {}
    assert result.accepted + result.refused == 32
    assert kinds[-1] == "AllergyRecorded"


def _call(function: Callable[..., Any], *arguments: object) -> Any:
    return function(*arguments)


def test_an_erased_patient_is_counted_and_not_known(loaded: Path, tmp_path: Path) -> None:
    """The name leaves the register and was never in the log; figures stay, and loading again does not bring it back."""
    path, beside = tmp_path / "prescriptions.db", tmp_path / "register.db"
    path.write_bytes(loaded.read_bytes())
    beside.write_bytes(loaded.with_name("register.db").read_bytes())
    record, name, _ = next(read_patients(FEW))
    patient, register = keyed_hash(record), Register(beside)
    with ef.Store(str(path)) as store:
        events = store.tag(f"patient:{patient}").count
        assert register.name_of(patient) == name
        register.erase(store, patient)
        register.erase(store, patient)
        again = load(store, FEW, register)
        assert check(store, FEW).comparison.mismatches == []
        assert store.tag(f"patient:{patient}").count == events + 1
    assert register.name_of(patient) is None
    assert len(register.patients()) == FEW - 1
    register.close()
    assert again.rejected["resources of erased patients"] > 0
    assert again.is_complete
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert name.split()[-1].encode() not in content, file
        assert record.encode() not in content, file


def test_a_forged_event_and_a_changed_byte_are_found(loaded: Path, tmp_path: Path) -> None:
    """A prescription against an allergy, past the rule, is named; and it is in no bundle."""
    path = tmp_path / "forged.db"
    path.write_bytes(loaded.read_bytes())
    with ef.Store(str(path)) as store:
        allergy = next(iter(store.read(ef.Query.of(types=[app.AllergyRecorded])))).event
        event = app.MedicationPrescribed(allergy.patient, "rx-0", f"{allergy.substance} 5 MG Oral Tablet")
        last = forge(store, ef.Draft(event, occurred=NOON))
        found = check(store, FEW).comparison.mismatches
    assert any(f"allergy: {allergy.substance}" in each.figure for each in found)
    assert any("rx-0" in each.figure for each in found)
    change_byte(path, last)
    assert damage_of(str(path)).flaws


def test_an_override_needs_a_name_and_a_reason() -> None:
    """A conflict is refused; a named person may prescribe in spite of it, and the reason is an event."""
    past = given(app.AllergyRecorded("p", "Lisinopril"))
    past.when(app.prescribe, app.Chart("p"), "rx-1", LISINOPRIL, NOON).raises(app.Refused)
    past.when(app.prescribe, app.Chart("p"), "rx-1", LISINOPRIL, NOON, ("dr-7", "tolerated in 2024")).then(
        app.MedicationPrescribed("p", "rx-1", LISINOPRIL),
        app.PrescriptionOverridden("p", "rx-1", "allergy: Lisinopril", "dr-7", "tolerated in 2024"),
    )
    refuted = given(app.AllergyRecorded("p", "Lisinopril"), app.AllergyRefuted("p", "Lisinopril", "a challenge test"))
    refuted.when(app.prescribe, app.Chart("p"), "rx-1", LISINOPRIL, NOON).then(
        app.MedicationPrescribed("p", "rx-1", LISINOPRIL)
    )


def test_a_dose_is_changed_without_a_conflict_with_itself() -> None:
    """Another strength replaces the prescription; of what is not active, no dose is changed."""
    past = given(app.MedicationPrescribed("p", "rx-1", LISINOPRIL))
    stronger = "lisinopril 20 MG Oral Tablet"
    changed = past.when(app.change_dose, app.Chart("p"), "rx-1", "rx-2", stronger, NOON).then(
        app.DoseChanged("p", "rx-2", stronger, "rx-1")
    )
    changed.state(app.Chart("p")).has(active={"rx-2": stronger})
    changed.when(app.change_dose, app.Chart("p"), "rx-1", "rx-3", stronger, NOON).raises(app.Refused)


@pytest.mark.parametrize(
    ("product", "ingredients"),
    [
        ("Amoxicillin 250 MG / Clavulanate 125 MG Oral Tablet", {"amoxicillin", "clavulanate"}),
        ("Abuse-Deterrent 12 HR Oxycodone Hydrochloride 15 MG Extended Release", {"oxycodone hydrochloride"}),
        ("Azithromycin 250mg", {"azithromycin"}),
        ("3 ML liraglutide 6 MG/ML Pen Injector", {"liraglutide"}),
    ],
)
def test_ingredients_are_read_from_the_name_of_a_product(product: str, ingredients: set[str]) -> None:
    """Strength, form and duration are no ingredient."""
    assert app.ingredients_of(product) == ingredients


def test_patients_that_differ_are_refused(generated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed bundle is named with the digest that was expected; missing patients with the command to type."""
    folder = tmp_path / "eventfold" / "data"
    sources = patients._paths(FEW)
    copies = folder / Path(*sources[0].parts[-3:-1])
    copies.mkdir(parents=True)
    for source in sources:
        (copies / source.name).write_bytes(source.read_bytes())
    changed = copies / sources[0].name
    changed.write_bytes(gzip.compress(gzip.decompress(changed.read_bytes()).replace(b"active", b"ACTIVE", 1)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataChanged, match=patients.DIGESTS[FEW]):
        list(patients.bundles(FEW))
    changed.unlink()
    with pytest.raises(DataMissing, match="--patients 4"):
        list(patients.bundles(FEW))


def test_days_of_medication_end_with_the_course() -> None:
    """A course is active at the end of its first day, and not at that of its last."""
    course = app.Course("p", "rx-1", LISINOPRIL, NOON - timedelta(days=30), NOON - timedelta(days=28))
    assert sorted(day.isoformat() for _, day in active_days([course])) == ["2025-12-06", "2025-12-07"]
