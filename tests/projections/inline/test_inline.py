"""Inline read models: current after each append without a wait, or the append is rolled back."""

# Private attributes are used on purpose.
# pyright: basic

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import apsw
import pytest

import eventfold as ef
from eventfold.errors import (
    InlineFailed,
    InlineMissing,
    InvalidProjection,
    NotSupported,
    ProjectionChanged,
    UnknownProjection,
)
from eventfold.projections import projection_definition
from eventfold.projections.inline_admin import inline_projector
from tests.projections.inline.bank import (
    Forbidden,
    InlineBalance,
    InlineLedger,
    InlineMoved,
    InlineNoted,
    InlineTotal,
    balances,
    folded,
    ledger,
    proved,
)
from tests.projections.inline.conftest import Open


def test_rows_are_current_with_every_append(opening: Open) -> None:
    """Without a runner or a wait the event is in the rows, in SQL and by key, and the ledger proves it."""
    with opening(inline=[InlineBalance, InlineLedger]) as store:
        for n in range(1, 6):
            store.append(InlineMoved("a", n), InlineNoted("x"), InlineMoved("b", 10 * n))
            assert balances(store) == folded(store) == ledger(store)
        store.append(InlineNoted("y"))
        assert balances(store) == {"a": 15, "b": 150}
        assert proved(store)
        status, _ = store.projections.status()
        assert (status.state, status.sentence) == ("current", "Inline: current with every append.")
        assert (status.position, status.head, status.behind) == (16, 16, 0)
        assert store.wait(InlineBalance, timeout=0.1) == 16
        assert len(store.rows(InlineBalance, wait=16)) == 2


def test_what_was_there_before_is_taken_in_when_the_store_is_opened(opening: Open) -> None:
    """Once the store is open, all events written before are in the rows."""
    with opening() as store:
        store.extend([InlineMoved(f"a{n % 7}", n) for n in range(300) if n not in (13, 17, 19)], batch=9)
    with opening(inline=[InlineBalance, InlineLedger]) as store:
        assert balances(store) == folded(store) == ledger(store)
        store.append(InlineMoved("a1", 5))
        assert balances(store) == folded(store) == ledger(store)
        assert proved(store)


def test_one_that_raises_refuses_its_own_append_alone(opening: Open) -> None:
    """Nothing of the append is written, its rows are unchanged, and the handler's error is the cause."""
    with opening(inline=[InlineBalance, InlineLedger]) as store:
        store.append(InlineMoved("a", 5))
        for events in ((InlineMoved("a", 13),), (InlineMoved("a", 1), InlineMoved("a", 17), InlineNoted("x"))):
            with pytest.raises(InlineFailed) as refused:
                store.append(*events)
            assert isinstance(refused.value.__cause__, Forbidden)
            assert refused.value.fields["type"] == "InlineMoved"
        assert refused.value.fields["projection"] == "inline_ledger"
        assert refused.value.fields["handler"] == "moved"
        assert store.head() == 1
        store.append(InlineMoved("a", 2))
        assert balances(store) == ledger(store) == {"a": 7}
        assert store.rows(InlineBalance)[0].moves == 2
        assert proved(store)


def test_a_row_that_the_database_refuses_harms_its_own_append_alone(opening: Open) -> None:
    """The failing append is identified: the appends that share its commit are written."""
    with opening(inline=[InlineTotal]) as store:
        store.append(InlineMoved("a", 5))
        with pytest.raises(InlineFailed):
            store.append(InlineMoved("a", 19))
        store.append(InlineMoved("a", 1))
        assert [row.total for row in store.rows(InlineTotal)] == [6]
        assert store.head() == 2
        assert proved(store)


def test_a_row_can_be_deleted_and_created_again(opening: Open) -> None:
    """`keep` deletes the row within the append that makes it False; a later append creates it again."""
    with opening(inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 1_000))
        store.append(InlineMoved("a", -1_000))
        assert store.rows(InlineBalance) == []
        with pytest.raises(InlineFailed):
            store.append(InlineMoved("a", 13))
        assert store.rows(InlineBalance) == []
        store.append(InlineMoved("a", 3))
        assert store.rows(InlineBalance) == [InlineBalance("a", 3, 1, [3])]


def test_a_repeat_writes_nothing_and_folds_nothing(opening: Open) -> None:
    """The repeat is found by event ids, by key, by a command id, and next to a conflict."""
    with opening(inline=[InlineBalance, InlineLedger]) as store:
        draft = ef.Draft(InlineMoved("a", 5), id=UUID(int=7))
        first = store.append(draft)
        assert store.append(draft).first == first.first
        assert store.append(draft, unless=ef.Query.of(types=InlineMoved)).repeated
        store.append(InlineMoved("a", 2), key="k")
        assert store.append(InlineMoved("a", 2), key="k").repeated
        with pytest.raises(ef.AppendConflict):
            store.append(InlineMoved("a", 2), unless=ef.Query.of(types=InlineMoved))
        store.using(command_id="c").decide(lambda: [InlineMoved("a", 3)])
        store.using(command_id="c").decide(lambda: [InlineMoved("a", 3)])
        assert balances(store) == ledger(store) == folded(store) == {"a": 10}
        assert proved(store)


def test_a_process_without_the_code_cannot_append_its_events(opening: Open, url: str) -> None:
    """This holds for a process that was open before and for a later one; they can append events it does not handle."""
    with ef.Store(url) as before, opening(inline=[InlineBalance]) as store, opening() as later:
        store.append(InlineMoved("a", 5), key="k")
        for other in (before, later):
            with pytest.raises(InlineMissing) as refused:
                other.append(InlineNoted("x"), InlineMoved("a", 1))
            assert refused.value.fields["projection"] == "inline_balance"
            assert "inline_balance" in refused.value.what
            with pytest.raises(InlineMissing):
                other.decide(lambda: [InlineMoved("a", 1)])
            other.append(InlineNoted("harmless"))
            assert other.append(InlineMoved("a", 5), key="k").repeated  # it was written: the receipt shows it
        assert balances(store) == {"a": 5}
        assert store.head() == 3
        assert proved(store)
        assert store.projections.status(InlineBalance)[0].behind == 0


def test_an_inline_read_model_can_be_removed(opening: Open) -> None:
    """Any process can remove it, without its code: appends continue without it, also in a process that has the code."""
    with opening(inline=[InlineBalance]) as store, opening() as other:
        store.append(InlineMoved("a", 5))
        assert other.projections.remove("inline_balance") == 1
        other.append(InlineMoved("a", 1))
        store.append(InlineMoved("a", 13))
        with pytest.raises(ef.EventfoldError):
            store.rows(InlineBalance)
    with opening() as other:
        other.append(InlineMoved("b", 1))
        other.project(InlineLedger)
        assert ledger(other) == folded(other)


def test_a_removed_read_model_that_is_registered_again_is_built_from_the_beginning(opening: Open) -> None:
    """Rows that a process cached before the removal are not used for the new rows."""

    with opening(inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 5))
        store.projections.remove(InlineBalance)
        store.append(InlineMoved("a", 1), InlineMoved("b", 2))
        with opening(inline=[InlineBalance]) as again:
            assert balances(again) == {"a": 6, "b": 2}
            store.append(InlineMoved("a", 1))
            again.append(InlineMoved("a", 1))
            store.append(InlineMoved("a", 1))
            assert balances(store) == folded(store) == {"a": 9, "b": 2}
            assert proved(store)


def test_what_cannot_be_kept_within_appends_is_refused(opening: Open) -> None:
    """Effects, other databases, parking, splitting by key, all events: each is refused with a reason."""

    class Mailed(ef.Subscription, start="now"):
        def moved(self, event: InlineMoved) -> None: ...

    class Parked(ef.Projection, on_error="park"):
        account: str

        def evolve(self, event: InlineMoved) -> None: ...

    class Split(ef.Projection, partitions=2):
        account: str

        def evolve(self, event: InlineMoved) -> None: ...

    class Elsewhere(ef.Projection, target="other.db"):
        account: str

        def evolve(self, event: InlineMoved) -> None: ...

    class Everything(ef.Projection):
        type: str

        @staticmethod
        def key(event: ef.Event) -> str:
            return type(event).__name__

        def evolve(self, event: ef.Event) -> None: ...

    for each in (Mailed, Parked, Split, Elsewhere, Everything):
        with pytest.raises(InvalidProjection, match="cannot be updated by appends"), opening(inline=[each]):
            raise AssertionError("it was taken")
    with opening() as store:
        assert store.append(InlineMoved("a", 13)).first == 1  # and they left no record


def test_the_memory_engine_refuses_inline_read_models() -> None:
    """The error names the engines that can."""
    with pytest.raises(NotSupported, match="SQLite") as refused:
        ef.Store("memory:", inline=[InlineBalance])
    assert refused.value.fields["capability"] == "inline"


def test_one_whose_past_it_cannot_take_is_not_enrolled(opening: Open) -> None:
    """The store is not opened, and appends of other processes go on."""
    with opening() as store:
        store.append(InlineMoved("a", 13))
        with pytest.raises(ef.EventfoldError) as refused, opening(inline=[InlineBalance]):
            raise AssertionError("it was taken")
        assert refused.value.code == "projection-stopped"
        store.append(InlineMoved("a", 1))


def test_operations_that_do_not_apply_to_inline_read_models_are_refused(opening: Open) -> None:
    """It cannot be paused or rolled back; project and run do nothing for it; a copy into the store is refused."""
    with opening(inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 1))
        for act in (lambda d: d.pause(InlineBalance, because="x"), lambda d: d.rollback(InlineBalance)):
            with pytest.raises(InvalidProjection, match="updated by every append"):
                act(store.projections)
        store.project(InlineBalance, timeout=0.5)
        store.append(InlineNoted("n"))
        store.project(InlineBalance, timeout=0.5)
        assert balances(store) == {"a": 1}


def test_a_store_that_keeps_some_takes_no_copy(url: str) -> None:
    """Copied events would be missing in their rows."""
    with ef.Store("memory:") as source, ef.Store(url, inline=[InlineBalance]) as store:
        source.append(InlineMoved("a", 1), key="k")
        for keep_identity in (False, True):
            with pytest.raises(NotSupported, match="inline_balance"):
                source.copy_to(store, keep_identity=keep_identity)
        assert store.head() == 0


class InlineRule(ef.Projection):
    """A sum by account."""

    account: str
    balance: int = 0

    def evolve(self, event: InlineMoved) -> None:
        """Add once."""
        self.balance += event.amount


class Changed(ef.Projection, name="inline_rule"):
    """A class of the same name with another rule."""

    account: str
    balance: int = 0

    @staticmethod
    def key(event: InlineMoved | InlineNoted) -> str | None:
        """Return None: a note does not concern an account."""
        return event.account if isinstance(event, InlineMoved) else None

    def evolve(self, event: InlineMoved | InlineNoted) -> None:
        """Add twice."""
        if isinstance(event, InlineMoved):
            self.balance += 2 * event.amount


class Accepted(ef.Projection, name="inline_rule"):
    """The same name, and the same rule in other code."""

    account: str
    balance: int = 0

    @staticmethod
    def key(event: InlineMoved | InlineNoted) -> str | None:
        """Return None: a note does not concern an account."""
        return event.account if isinstance(event, InlineMoved) else None

    def evolve(self, event: InlineMoved | InlineNoted) -> None:
        """Add once."""
        if isinstance(event, InlineMoved):
            self.balance = self.balance + event.amount


Changed.__qualname__ = Accepted.__qualname__ = "InlineRule"  # as after an edit of the class in its module


def test_changed_code_is_refused_until_it_is_accepted(opening: Open) -> None:
    """The store does not open with it until it is accepted; after that, processes with the old code are refused."""

    with opening(inline=[InlineRule]) as store:
        store.append(InlineMoved("a", 1))
        with pytest.raises(ProjectionChanged), opening(inline=[Accepted]):
            raise AssertionError("it was taken")
        store.append(InlineMoved("a", 1))
        store.projections.accept(Accepted)
        with pytest.raises(InlineMissing, match="by other code"):
            store.append(InlineMoved("a", 1))
        with opening(inline=[Accepted]) as new:
            new.append(InlineMoved("a", 1))
            new.append(InlineNoted("x"))
            assert [row.balance for row in new.rows(Accepted)] == [3]
            assert proved(new)


def test_changed_code_is_built_beside_and_exchanged_between_two_appends(opening: Open) -> None:
    """Appends use the old code until the switch, which folds the events written in the meantime."""

    with opening(inline=[InlineRule]) as store:
        store.append(InlineMoved("a", 1))
        with opening() as other:
            assert other.projections.rebuild(Changed) == 2
            store.append(InlineMoved("a", 2))
            assert [row.balance for row in store.rows(InlineRule)] == [3]
            comparison = other.projections.compare(Changed)
            assert (comparison.rows, comparison.different) == ((1, 1), 1)
            store.append(InlineMoved("b", 2))
            other.projections.switch(Changed)
        with pytest.raises(InlineMissing, match="by other code"):
            store.append(InlineMoved("a", 1))
        with opening(inline=[Changed]) as new:
            new.append(InlineMoved("a", 3))
            assert {row.account: row.balance for row in new.rows(Changed)} == {"a": 12, "b": 4}
            assert proved(new)
            assert new.projections.status(Changed)[0].generation == 2


def test_a_switch_to_rows_of_the_same_code_is_noticed_by_who_appends(opening: Open) -> None:
    """Cached rows belong to the generation that was live; after the switch they are not used."""
    with opening(inline=[InlineBalance]) as store, opening(inline=[InlineBalance]) as other:
        store.append(InlineMoved("a", 1))
        other.projections.rebuild(InlineBalance)
        store.append(InlineMoved("a", 2))
        other.projections.switch(InlineBalance)
        store.append(InlineMoved("a", 4))
        other.append(InlineMoved("b", 4))
        store.append(InlineMoved("b", 4))
        assert balances(store) == folded(store) == {"a": 7, "b": 8}
        assert proved(store)


def test_an_append_cannot_join_a_transaction(url: str) -> None:
    """Its positions are assigned at COMMIT, too late to fold: with one transaction at once, and with a later COMMIT."""
    if "postgresql" not in url:
        pytest.skip("only PostgreSQL lets an append join a transaction")
    import psycopg

    from eventfold.engines.postgres.errors import refusal

    plain = url.partition("?")[0]
    with ef.Store(url) as store, psycopg.connect(plain) as mine:
        store.in_transaction(mine).append(InlineMoved("a", 1))
        with ef.Store(url, inline=[InlineBalance]) as keeping:
            with pytest.raises(psycopg.Error) as late:
                mine.commit()
            error = refusal(late.value)
            assert isinstance(error, NotSupported)
            for each in (store, keeping):
                with pytest.raises(NotSupported, match="inline_balance"):
                    each.in_transaction(mine).append(InlineMoved("a", 1))
                mine.rollback()
            keeping.in_transaction(mine).append(InlineNoted("x"))
            mine.commit()
            assert balances(keeping) == {}
            assert keeping.head() == 1


def test_what_was_changed_by_hand_is_noticed(opening: Open) -> None:
    """The checkpoint was changed by hand since the last append: rows are read again, and the append succeeds."""
    with opening(inline=[InlineBalance, InlineLedger]) as store:
        store.append(InlineMoved("a", 1))
        for each in (InlineBalance, InlineLedger):
            target = store.projections.target(each)
            with target.control(projection_definition(each).name) as tx:
                tx.save_record(tx.record())
        store.append(InlineMoved("a", 2))
        assert balances(store) == ledger(store) == {"a": 3}
        assert proved(store)


def test_rows_of_a_commit_that_failed_are_remembered_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the rows nor the ledger of a transaction that was rolled back at COMMIT are cached."""
    with ef.Store(str(tmp_path / "store.db"), inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 1))
        writer = store.engine._writer

        def full(connection: apsw.Connection, _head: object) -> None:
            writer._rollback(connection)
            raise apsw.FullError("disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(writer, "_commit", full)
            with pytest.raises(ef.EventfoldError) as refused:
                store.append(InlineMoved("a", 5))
        assert refused.value.code == "store-full"
        store.append(InlineMoved("a", 2))
        assert balances(store) == folded(store) == {"a": 3}
        assert proved(store)


def test_missing_tables_are_reported_and_the_read_model_can_be_removed(tmp_path: Path) -> None:
    """The control table was dropped: every append is refused, and the error names the way to remove the read model."""
    url, plan = str(tmp_path / "store.db"), projection_definition(InlineBalance)
    with ef.Store(url, inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 1))
        connection = apsw.Connection(url)
        connection.execute("DELETE FROM eventfold_checkpoint")
        connection.close()
        store.append(InlineNoted("x"))
    with ef.Store(url) as other, pytest.raises(InlineMissing):
        other.append(InlineMoved("a", 1))
    with ef.Store(url) as store:
        store.projections.log.engine.services.inline.set_projector(
            inline_projector(store.projections.log, store.projections.target(InlineBalance), [plan])
        )
        with pytest.raises(UnknownProjection, match=r"remove \S+ inline_balance"):
            store.append(InlineMoved("a", 1))
        store.projections.remove("inline_balance")
        store.append(InlineMoved("a", 1))
    with ef.Store(url, inline=[InlineBalance]) as store:
        assert balances(store) == folded(store) == {"a": 2}
