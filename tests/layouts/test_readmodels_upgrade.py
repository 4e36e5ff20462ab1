"""Control tables of read models of layout 1 are brought to layout 2 at their first use, on every target."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.engines import open_engine, upgrade_layout
from eventfold.errors import TargetUnavailable
from eventfold.ports.target import PartitionKey
from tests.layouts.kept import FOLDER
from tests.projections.interleaved import BAD, Flaky, Taken, right_in_the_end, seats
from tests.support.servers.postgres import shared
from tests.targets.conftest import PLACES, elsewhere  # noqa: F401

# The difference of layout 1: the same tables without checksums, and with other names for two columns.
DOWNGRADE = [
    "ALTER TABLE eventfold_projection DROP COLUMN checksum",
    "ALTER TABLE eventfold_checkpoint DROP COLUMN checksum",
    "ALTER TABLE eventfold_checkpoint DROP COLUMN lease_checksum",
    "ALTER TABLE eventfold_checkpoint RENAME COLUMN expires_at TO expires",
    "ALTER TABLE eventfold_checkpoint RENAME COLUMN renewed_at TO beat",
    "ALTER TABLE eventfold_entry DROP COLUMN checksum",
    "ALTER TABLE eventfold_mark DROP COLUMN checksum",
    "DROP TABLE eventfold_command",
    "DROP TABLE eventfold_layout",
]


@pytest.fixture(autouse=True)
def _bearable() -> Iterator[None]:
    BAD.clear()
    yield
    BAD.clear()


def kept(folder: Path) -> str:
    """Copy a store of layout 1, written by its own release: a read model with parked events, and a follower."""
    path = folder / "old.db"
    path.write_bytes(gzip.decompress((FOLDER / "readmodels-1.store.gz").read_bytes()))
    return str(path)


def test_records_of_the_release_of_layout_1_are_still_read(tmp_path: Path) -> None:
    """After `eventfold upgrade` entries, ledger and a follower's progress are those that were written."""
    url = kept(tmp_path)
    run(upgrade_layout(open_engine(url, "sync", False, {}), None, copies=False))
    with ef.Store(url, create=False) as store:
        parked = store.projections.parked("old_flaky")
        assert [(entry.position, entry.state, entry.attempts) for entry in parked] == [
            (2, "parked", 1),
            (3, "parked", 0),
            (5, "parked", 1),
            (6, "parked", 0),
        ]
        assert all(proof.proved for proof in store.projections.verify())
        assert store.projections.retry("old_flaky", 2) == 2
        assert [held.position for held in store.projections.checkpoints("billing")] == [6]


def test_processes_of_the_previous_release_cannot_write_after_an_upgrade(tmp_path: Path) -> None:
    """They would write rows without checksums: the columns that they name do not exist any more."""
    url = kept(tmp_path)
    run(upgrade_layout(open_engine(url, "sync", False, {}), None, copies=False))
    with ef.Store(url, create=False) as store:
        assert store.projections.status()
        target = store.projections.target("old_flaky")
        for of_then in ("SET beat = 0, revision = revision + 1", "SET holder = '', expires = 0"):
            with pytest.raises(TargetUnavailable), target.transaction(PartitionKey("old_flaky", 1)) as tx:
                tx.execute(f"UPDATE eventfold_checkpoint {of_then}")


def written_and_read_on(url: str) -> None:
    """Write rows, convert them to layout 1, open and use them, and open them once more."""
    with ef.Store(url) as store:
        for n in (1, 2, 3):
            store.append(Taken("s1", n))
        BAD.add(2)
        store.project(Flaky)
        BAD.clear()
        for statement in DOWNGRADE:
            with store.projections.target(Flaky).transaction(PartitionKey("flaky", 1)) as tx:
                tx.execute(statement)
    for _ in range(2):
        with ef.Store(url) as store:
            assert [entry.position for entry in store.projections.parked(Flaky)] == [2, 3]
            assert all(proof.proved for proof in store.projections.verify(Flaky))
    with ef.Store(url) as store:
        right_in_the_end(store)
        assert seats(store) == 3


@pytest.mark.parametrize("elsewhere", [each for each in PLACES if each not in ("parquet",)][:4], indirect=True)
def test_tables_elsewhere_are_brought_to_the_layout_when_they_are_used(elsewhere: str, tmp_path: Path) -> None:  # noqa: F811
    """This covers SQLite and PostgreSQL by SQLAlchemy, PostgreSQL, and DuckDB."""
    assert elsewhere
    written_and_read_on(str(tmp_path / "store.db"))


@pytest.mark.parametrize("elsewhere", PLACES[5:6], indirect=True)
def test_tables_in_mariadb_are_brought_to_the_layout_piece_by_piece(elsewhere: str, tmp_path: Path) -> None:  # noqa: F811
    """Every statement commits by itself there; a finished step is not repeated."""
    assert elsewhere
    written_and_read_on(str(tmp_path / "store.db"))


def test_tables_beside_the_log_in_postgresql_are_brought_to_the_layout() -> None:
    """The upgrade is one transaction."""
    written_and_read_on(shared().url(schema=f"s{uuid4().hex[:12]}"))


def test_tables_of_a_later_layout_are_refused(tmp_path: Path) -> None:
    """Their meaning is not known to this version."""
    url = str(tmp_path / "store.db")
    with ef.Store(url) as store:
        store.append(Taken("s1", 1))
        store.project(Flaky)
        with store.projections.target(Flaky).transaction(PartitionKey("flaky", 1)) as tx:
            tx.execute("UPDATE eventfold_layout SET layout = 3")
    with ef.Store(url) as store, pytest.raises(TargetUnavailable, match="newer eventfold"):
        store.project(Flaky)
