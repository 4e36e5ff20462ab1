"""How often an append waits for the server: once, and twice if read models are folded within it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.errors import AppendUnconfirmed, InlineFailed
from eventfold.ports.messages import AppendRequest
from eventfold.projections import projection_definition
from eventfold.targets.sql.transaction import SqlTransaction
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import event, sql, tagged
from tests.engines.postgres.test_lost import proxy, through  # noqa: F401 (a fixture)
from tests.projections.flights import edit
from tests.projections.inline.bank import InlineBalance, InlineMoved, proved
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.proxy import Proxy


@pytest.fixture
def store(server: PostgresServer, proxy: Proxy, schema: str) -> Iterator[ef.Store]:  # noqa: F811
    """A store with an inline read model, behind the proxy; its rows and prepared statements exist."""
    with ef.Store(through(server, proxy), schema=schema, inline=[InlineBalance], patience=0) as store:
        for _ in range(8):
            store.append(InlineMoved("a", 1))
        yield store


def test_a_plain_append_is_one_round_trip(server: PostgresServer, proxy: Proxy, opening: Open, mode: str) -> None:  # noqa: F811
    """Also under a condition, and with several events."""
    engine = opening(through(server, proxy), mode)
    for _ in range(2):
        engine.append(event("Deposited", "account:a-1"))
        engine.append(event("Taken", "seat:1"), event("Paid"), unless=tagged("seat:none"), after=0)
    before = proxy.round_trips
    engine.append(event("Deposited", "account:a-1"))
    assert proxy.round_trips - before == 1
    engine.append(event("Taken", "seat:1"), event("Paid"), unless=tagged("seat:none"), after=0)
    assert proxy.round_trips - before == 2


def test_an_append_with_an_inline_read_model_is_two_round_trips(store: ef.Store, proxy: Proxy) -> None:  # noqa: F811
    """A row that is not in memory is read first, in a third."""
    before = proxy.round_trips
    store.append(InlineMoved("a", 1))
    assert proxy.round_trips - before == 2
    store.append(InlineMoved("b", 1))
    assert proxy.round_trips - before == 2 + 3
    assert {row.account: row.moves for row in store.rows(InlineBalance)} == {"a": 9, "b": 1}


def test_a_lost_answer_to_the_commit_is_unconfirmed_and_its_repetition_written_once(
    store: ef.Store,
    proxy: Proxy,  # noqa: F811
) -> None:
    """Rows and events of the lost append are both there; the next append reads the row again."""
    request = AppendRequest((store.registry.encode(InlineMoved("a", 1)),))
    proxy.lose_answer(b"COMMIT")
    with pytest.raises(AppendUnconfirmed):
        run(store.engine.append_many([request]))
    assert proxy.lost.is_set()
    assert run(store.engine.append_many([request]))[0].repeated is True
    store.append(InlineMoved("a", 1))
    assert [row.moves for row in store.rows(InlineBalance)] == [10] == [store.head()]


def test_a_lost_request_to_commit_has_written_nothing(store: ef.Store, proxy: Proxy) -> None:  # noqa: F811
    """The client cannot know that, so the append is unconfirmed; the repetition writes it."""
    request = AppendRequest((store.registry.encode(InlineMoved("a", 1)),))
    proxy.lose_request(b"COMMIT")
    with pytest.raises(AppendUnconfirmed):
        run(store.engine.append_many([request]))
    assert store.head() == 8
    assert run(store.engine.append_many([request]))[0].repeated is False
    assert [row.moves for row in store.rows(InlineBalance)] == [9] == [store.head()]


def test_a_statement_that_fails_in_the_pipeline_commits_nothing(store: ef.Store, url: str, schema: str) -> None:
    """A trigger refuses the row: the append is refused, the events are not in the log, and the connection works on."""
    sql(
        url,
        f"CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = 'no more'; END $$",
        f"CREATE TRIGGER no BEFORE UPDATE ON {table(url, schema)} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
    )
    with pytest.raises(InlineFailed, match="no more"):
        store.append(InlineMoved("a", 1))
    assert store.head() == 8
    sql(url, f"DROP FUNCTION {schema}.no() CASCADE")
    store.append(InlineMoved("a", 1))
    assert [row.moves for row in store.rows(InlineBalance)] == [9] == [store.head()]


def test_a_checkpoint_that_changed_is_read_again(store: ef.Store) -> None:
    """Another process changed it without an append: the pipeline, whose UPDATE finds no row, commits nothing."""
    target = store.projections.target(InlineBalance)
    (held,) = target.checkpoints(projection_definition(InlineBalance).name)
    edit(target, held.place, stats="")
    store.append(InlineMoved("a", 1))
    assert [row.moves for row in store.rows(InlineBalance)] == [9] == [store.head()]
    assert proved(store)


def test_an_interrupt_in_the_pipeline_leaves_no_connection_in_it(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the rows were sent: nothing is committed, and the next append uses a connection that works."""
    request = AppendRequest((store.registry.encode(InlineMoved("a", 1)),))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqlTransaction, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(store.engine.append_many([request]))
    assert store.head() == 8
    assert run(store.engine.append_many([request]))[0].repeated is False
    assert [row.moves for row in store.rows(InlineBalance)] == [9] == [store.head()]
    assert proved(store)


def table(url: str, schema: str) -> str:
    """Return the table of the read model's rows."""
    found = f"SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = '{schema}'"
    (name,) = [row[0] for row in sql(url, found) if "balance" in row[0].lower()]
    return name
