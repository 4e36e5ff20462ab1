"""The register of patients: who they are, in a table beside the log, in rows that can be deleted.

The log has a keyed hash of the record number (HMAC-SHA256 under a secret that is not in the log), as the recipe for
erasable data describes. Erasing a patient writes the event first and then deletes the row, so a stop in between is
completed by the next call. Counts stay; whose they were is not known any more.
Knows: a table, the hash. Does not know: FHIR, what is prescribed.
"""

from __future__ import annotations

import hmac
import sqlite3
from pathlib import Path

import eventfold as ef
from examples.fields.prescriptions.app import Chart, PatientErased

# In production from a secret store. These patients are generated.
SECRET = b"the secret of an example"


class Register:
    """Names and record numbers by the keyed hash of the record number."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._rows = sqlite3.connect(path)
        self._rows.execute("CREATE TABLE IF NOT EXISTS patients (patient TEXT PRIMARY KEY, record TEXT, name TEXT)")
        self._rows.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten

    def add(self, record: str, name: str) -> str:
        """Register a patient, and return the hash by which the log knows them."""
        patient = keyed_hash(record)
        with self._rows:
            self._rows.execute("INSERT OR REPLACE INTO patients VALUES (?, ?, ?)", (patient, record, name))
        return patient

    def name_of(self, patient: str) -> str | None:
        """The name of a patient; None if they were erased."""
        row = self._rows.execute("SELECT name FROM patients WHERE patient = ?", (patient,)).fetchone()
        return row and row[0]

    def patients(self) -> list[str]:
        """The hashes of all patients who are registered."""
        return [patient for (patient,) in self._rows.execute("SELECT patient FROM patients ORDER BY patient")]

    def erase(self, store: ef.Store, patient: str) -> None:
        """Erase who a patient is. What happened to the patient stays counted."""
        store.decide(erase, Chart(patient))
        with self._rows:
            self._rows.execute("DELETE FROM patients WHERE patient = ?", (patient,))

    def close(self) -> None:
        """Close the table."""
        self._rows.close()


def erase(chart: Chart) -> list[PatientErased]:
    """Record that a patient was erased, once."""
    return [] if chart.erased else [PatientErased(chart.patient)]


def keyed_hash(record: str) -> str:
    """The hash of a record number: the same for the same number, and no one without the secret can make it."""
    return hmac.digest(SECRET, record.encode(), "sha256").hex()[:32]
