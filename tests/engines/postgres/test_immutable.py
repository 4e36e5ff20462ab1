"""The database itself keeps the log unchanged: no UPDATE, no TRUNCATE, no DELETE."""

from __future__ import annotations

import psycopg
import pytest

from eventfold.core.query import Query
from eventfold.errors import CorruptEvent
from eventfold.ports.messages import Span
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, sql

CHANGES = (
    "UPDATE {s}.event SET data = 'forged'",
    "UPDATE {s}.event SET data = 'forged' WHERE false",
    "UPDATE {s}.tag SET tag = 'forged'",
    "UPDATE {s}.request SET first = 7",
    "DELETE FROM {s}.event WHERE position = 1",
    "DELETE FROM {s}.tag",
    "DELETE FROM {s}.request",
    "TRUNCATE {s}.event",
    "TRUNCATE {s}.tag, {s}.request",
    "INSERT INTO {s}.event SELECT * FROM {s}.event ON CONFLICT (id) DO UPDATE SET data = 'forged'",
    "INSERT INTO {s}.event SELECT * FROM {s}.event ON CONFLICT (position) DO UPDATE SET data = 'forged'",
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_every_change_is_refused(url: str, schema: str, engine: Opened, change: str, role: str) -> None:
    """This holds even for the owner, and in a session that switches ordinary triggers off."""
    engine.append(event("Deposited", "account:a-1"), key="k-1")
    engine.append(event("Deposited", "account:a-1"))
    before = engine.everything()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET session_replication_role = {role}".encode())
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(change.format(s=schema).encode())
    assert refused.value.sqlstate == "EF005"
    assert "immutable" in str(refused.value)
    assert engine.everything() == before
    assert engine.tags()[0].count == 2


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_no_range_can_be_sealed_so_nothing_can_be_deleted(url: str, schema: str, engine: Opened, role: str) -> None:
    """Not even the owner can delete events, as long as events cannot be archived elsewhere."""
    engine.append(event("Deposited", "account:a-1"))
    engine.append(event("Deposited", "account:a-1"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET session_replication_role = {role}".encode())
        for change in (
            "INSERT INTO {s}.sealed (first, last, digest, kept) VALUES (1, 1, 'x', 'elsewhere')",
            "UPDATE {s}.sealed SET last = 9",
            "DELETE FROM {s}.sealed",
            "TRUNCATE {s}.sealed",
            "DELETE FROM {s}.event WHERE position = 1",
            "DELETE FROM {s}.event WHERE false",
        ):
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(change.format(s=schema).encode())
            assert refused.value.sqlstate == "EF005"
    assert len(engine.everything()) == 2


def tampering(url: str, schema: str, change: str) -> None:
    """Do what only a role can do that may drop the triggers."""
    guards = [f"ALTER TABLE {schema}.event {verb} TRIGGER ALL" for verb in ("DISABLE", "ENABLE")]
    sql(url, guards[0], change.format(s=schema), guards[1])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {s}.event SET data = 'forged' WHERE position = 2",
        "UPDATE {s}.event SET type = 'Forged' WHERE position = 2",
        "UPDATE {s}.event SET occurred = 7 WHERE position = 2",
        "DELETE FROM {s}.event WHERE position = 2",
    ],
)
def test_rows_changed_by_a_superuser_are_noticed(
    url: str, schema: str, engine: Opened, mode: str, opening: Open, change: str
) -> None:
    """A superuser changes or deletes a row: every read that covers it fails."""
    engine.append(*[event("Deposited", "account:a-1") for _ in range(3)])
    tampering(url, schema, change)
    met = opening(mode=mode)
    for span in (Span(), Span(backwards=True), Span(limit=1, after=1), Span(limit=1, until=2, backwards=True)):
        with pytest.raises(CorruptEvent) as caught:
            met.read(Query(), span)
        assert caught.value.fields["position"] == 2
    assert len(met.read(Query(), Span(after=2)).events) == 1


def test_an_append_that_fails_leaves_nothing(url: str, schema: str, engine: Opened) -> None:
    """A failure inside an append leaves no event, no tag, no key and no gap."""
    sql(
        url,
        f"CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.tag = 'boom' THEN RAISE 'planted'; END IF; RETURN NEW; END $$",
        f"CREATE TRIGGER fail BEFORE INSERT ON {schema}.tag FOR EACH ROW EXECUTE FUNCTION {schema}.fail()",
    )
    with pytest.raises(Exception, match="planted"):
        engine.append_many([request(event("A", "x")), request(event("B", "boom"), key="k")])
    assert (engine.head().position, engine.replication.keys(), engine.tags(), engine.types()) == (0, [], [], [])
    assert engine.append(event("A", "x")).first == 1


def test_payloads_are_kept_to_the_byte(engine: Opened) -> None:
    """Key order, spaces, NUL and data that is not JSON are kept: jsonb would lose all of them."""
    for data in (b'{"b": 1,\n "a": 2}', b'{"x":"\\u0000"}', bytes(range(256)), b"", b"\x00" * 100_000):
        engine.append(event(data=data, codec="raw", metadata=b'{"z":1,"a":2}', key="k-7"))
        assert engine.everything()[-1].data == data
        assert engine.everything()[-1].metadata == b'{"z":1,"a":2}'
