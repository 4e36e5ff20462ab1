"""`verify_rows`: read models are folded again next to the live rows, and every row is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection, UnknownProjection
from tests.cli.commands import ANSI, on_terminal
from tests.projections.flights import CarrierMonth, Departed, Split, flights
from tests.projections.test_handlers import mark_of, tally


class Picky(ef.Projection, name="picky", on_error="park", attempts=1):
    """A read model that parks every late flight, and all later events of its carrier."""

    carrier: str
    flights: int = 0
    limit = 70

    def evolve(self, event: Departed) -> None:
        """Count one."""
        if event.delay > type(self).limit:
            raise ValueError("too late")
        self.flights += 1


def changed(store: ef.Store, projection: Any, sql: str) -> None:
    """Change a row of the live generation without the library."""
    target = store.projections.target(projection)
    with target.connect(write=True) as connection:  # type: ignore[attr-defined]
        target._driver.execute(connection, sql)  # type: ignore[attr-defined]


def live_only(store: ef.Store, projection: Any) -> bool:
    """Return whether the scratch generation was deleted."""
    return {held.place.generation for held in store.projections.checkpoints(projection)} == {1}


def test_rows_that_are_what_the_log_folds_to_are_proved(either: ef.Store) -> None:
    """Unpartitioned and split by key, in both modes; progress reaches the last position; no scratch rows stay."""
    either.extend(flights(700))
    either.project(CarrierMonth, Split)
    seen: list[tuple[int, int]] = []
    proofs = either.projections.verify_rows(progress=lambda position, last: seen.append((position, last)))
    assert [(proof.name, proof.proved, proof.different) for proof in proofs] == [
        ("carrier_month", True, 0),
        ("split_month", True, 0),
    ]
    assert [proof.rows for proof in proofs] == [len(either.rows(CarrierMonth)), len(either.rows(Split))]
    assert seen[-1] == (700, 700)
    assert live_only(either, CarrierMonth)


@pytest.mark.parametrize(
    ("sql", "before", "after"),
    [
        ("UPDATE {table} SET delay = delay + 1 WHERE carrier = 'c0' AND month = 1", True, True),
        ("DELETE FROM {table} WHERE carrier = 'c0' AND month = 1", False, True),
        ("UPDATE {table} SET carrier = 'zz' WHERE carrier = 'c0' AND month = 1", True, True),
    ],
    ids=["a value", "a row", "a key"],
)
def test_a_changed_row_is_found_where_the_ledger_cannot_see_it(
    shared_url: str, sql: str, before: bool, after: bool
) -> None:
    """The ledger proves which events were handled; a cell that was changed by hand is found only by folding again."""
    with ef.Store(shared_url) as store:
        store.extend(flights(500))
        store.project(CarrierMonth)
        table = store.projections.target(CarrierMonth).address and "carrier_month__1"
        changed(store, CarrierMonth, sql.format(table=f'"{table}"'))
        assert all(proof.proved for proof in store.projections.verify())
        (proof,) = store.projections.verify_rows(CarrierMonth)
        assert not proof.proved
        assert proof.different == len(proof.differences) == (2 if "'zz'" in sql else 1)
        first = next(each for each in proof.differences if each.key == ("c0", 1))
        if "'zz'" not in sql:
            assert (first.before is not None, first.after is not None) == (before, after)
        assert live_only(store, CarrierMonth)


def test_what_is_parked_or_skipped_is_left_out_on_both_sides(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds also if a handler that failed then would not fail now."""
    with ef.Store(shared_url) as store:
        store.extend(flights(300))
        store.project(Picky)
        parked = store.projections.parked(Picky)
        assert len(parked) > 3
        store.projections.skip(Picky, parked[0].position, because="a test")
        store.project(Picky)
        monkeypatch.setattr(Picky, "limit", 1_000)
        (proof,) = store.projections.verify_rows(Picky)
        assert proof.proved, proof


def test_tables_of_a_read_model_in_sql_are_compared_row_by_row(shared_url: str) -> None:
    """Rows that SQL handlers write are compared as well."""
    counted = tally(mark_of(shared_url))
    with ef.Store(shared_url) as store:
        store.extend(flights(200), batch=20)
        store.project(counted)
        (proof,) = store.projections.verify_rows(counted)
        assert proof.proved, proof
        changed(store, counted, "UPDATE tally__1 SET n = n + 1 WHERE kind = 'departed'")
        (proof,) = store.projections.verify_rows(counted)
        assert (proof.proved, proof.different) == (False, 2)


def test_rows_that_change_meanwhile_are_compared_again(shared_url: str) -> None:
    """A comparison with a moving read model ends in a proof at a later position, never in false differences."""
    with ef.Store(shared_url) as store:
        store.extend(flights(300))
        store.project(CarrierMonth)
        more = iter(range(2))

        def move(_position: int, _last: int) -> None:
            if (number := next(more, None)) is not None:
                store.extend(flights(100, 300 + 100 * number))
                store.project(CarrierMonth)

        (proof,) = store.projections.verify_rows(CarrierMonth, progress=move)
        assert proof.proved, proof
        assert proof.position == 500


def test_what_has_no_rows_and_what_is_not_known_is_refused(store: ef.Store) -> None:
    """The error comes before anything is folded."""

    class Nothing(ef.Subscription, start="now"):
        def handle(self, event: Departed) -> None:
            """Do nothing."""

    store.project(Nothing)
    with pytest.raises(InvalidProjection, match="has no rows"):
        store.projections.verify_rows(Nothing)
    with pytest.raises(UnknownProjection):
        store.projections.verify_rows("nothing_at_all")
    assert store.projections.verify_rows() == []


def test_the_command_shows_the_rows_that_differ_in_80_columns(tmp_path: Path) -> None:
    """A line for each read model, then the differing rows, live and folded from the log; the exit code is 1."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        store.extend(flights(100))
        store.project(CarrierMonth)
        changed(store, CarrierMonth, "UPDATE carrier_month__1 SET delay = 4711 WHERE carrier = 'c0' AND month = 1")
    code, shown = on_terminal("verify", "store.db", "--rows", folder=tmp_path)
    text = " ".join(ANSI.sub("", shown).split())
    assert code == 1
    assert "1 of 24 rows differ from rows folded again." in text
    assert "carrier_month, row c0, 1:" in text
    assert "4711" in text
