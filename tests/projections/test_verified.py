"""Results of verifications in the log: who proved what, up to which head."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import StoreClosed
from eventfold.projections.verified import MAX_VERDICT, Verified, results_of
from eventfold.projections.verify import Flaw, LogProof, Proof
from tests.cli.commands import run
from tests.projections.flights import Departed


class Seen(ef.Projection, name="verified_seen", partitions=2):
    """Departures of each carrier."""

    carrier: str
    n: int = 0

    def evolve(self, event: Departed) -> None:
        """Count."""
        self.n += 1


def last(store: ef.Store, subject: str) -> ef.Recorded[Verified]:
    """The last result for a subject."""
    query = ef.Query.of(types="$verified", tags=f"$verified:{subject}")
    return next(iter(store.read(query, backwards=True, limit=1)))


def test_results_are_kept_in_the_log_for_each_subject(tmp_path: Path) -> None:
    """Of the log, of a ledger (all partitions together) and of rows, with the actor."""
    with ef.Store(str(tmp_path / "flights.db")) as store:
        store.extend([Departed(f"c-{n}", 1, n) for n in range(20)])
        store.project(Seen)
        admin = store.using(actor="eve").projections
        receipt = admin.record(admin.verify_log(), *admin.verify(), *admin.verify_rows(Seen))
        assert receipt is not None
        assert receipt.last - receipt.first == 2
        found = last(store, "log")
        assert found.event == Verified("log", "log", 20, 20, True, "The log is unchanged: 20 events.")
        assert found.metadata.actor == "eve"
        of_one = ef.Query.of(tags="$verified:verified_seen")
        assert [(each.event.kind, each.event.proved, each.event.head) for each in store.read(of_one)] == [
            ("rows", True, 20),
            ("ledger", True, 20),
        ]
        assert admin.record() is None


def test_a_result_says_what_is_not_proved() -> None:
    """The first failure of a projection, the first flaw of a log; a generation of the past does not count."""
    good = Proof("a", 1, 0, 9, 5, 5, 0, 0, True, "ok")
    bad = Proof("a", 1, 1, 8, 5, 4, 0, 0, False, "Event 7 was handled twice. " + "x" * MAX_VERDICT)
    past = Proof("b", 1, 0, 9, 5, 5, 0, 0, False, "of other history", provable=False)
    damaged = LogProof("sqlite", 9, True, (Flaw("the index hides it", 3),))
    found = {each.subject: each for each in results_of([bad, damaged, past, good])}
    assert (found["a"].proved, found["a"].head, found["a"].events) == (False, 9, 10)
    assert found["a"].verdict.startswith("Event 7 was handled twice.")
    assert len(found["a"].verdict) == MAX_VERDICT
    assert found["b"].proved
    assert found["log"].verdict == "The log is damaged: 1 flaw, the first: the index hides it"


def test_the_command_records_if_it_is_asked_to(tmp_path: Path) -> None:
    """Otherwise `eventfold verify` writes nothing."""
    path = str(tmp_path / "flights.db")
    with ef.Store(path) as store:
        store.append(Departed("c-1", 1, 1))
    assert run("verify", path).code == 0
    with ef.Store(path) as store:
        assert store.count(ef.Query.of(types="$verified")) == 0
    assert run("verify", path, "--record").code == 0
    with ef.Store(path) as store:
        assert last(store, "log").event.head == 1


def test_a_result_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    """Not a verification that seems to be recorded."""
    with ef.Store(str(tmp_path / "flights.db")) as store:
        proof = store.projections.verify_log()
    with pytest.raises(StoreClosed):
        store.projections.record(proof)
