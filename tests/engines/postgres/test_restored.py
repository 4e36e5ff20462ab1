"""Dumps restored by PostgreSQL's own tools, and restores that the database cannot notice: a new epoch begins."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import run as eventfold
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, sql
from tests.support.programs import needs_program
from tests.support.servers.postgres import programs

needs_tools = needs_program(
    "pg_dump", "postgresql-client", lambda: all((programs() / name).exists() for name in ("pg_dump", "pg_restore"))
)


def tool(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own tools."""
    done = subprocess.run([programs() / name, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@needs_tools
def test_a_dump_restored_in_the_same_cluster_begins_a_new_epoch(
    url: str, schema: str, opening: Open, tmp_path: Path
) -> None:
    """Its last events are lost and their positions reused: old receipts and cursors must not be accepted."""
    engine = opening()
    engine.append(event("Opened", "account:a-1"), key="k-1")
    dump = str(tmp_path / "dump")
    tool("pg_dump", "-Fc", "-n", schema, "-f", dump, url)
    lost = engine.append(event("Deposited", "account:a-1"))
    engine.end()
    sql(url, f"DROP SCHEMA {schema} CASCADE")
    tool("pg_restore", "-d", url, dump)
    restored = opening()
    assert restored.store_id == lost.store
    assert (lost.epoch, restored.epoch) == (1, 2)
    assert restored.append(event("Opened", "account:a-2")).first == lost.first
    assert restored.event_id(lost.first) != lost.ids[0]
    assert opening().epoch == 2, "once"
    assert restored.receipt_of("k-1").first == 1
    with pytest.raises(Exception, match="immutable"):
        sql(url, f"DELETE FROM {schema}.event")


def test_maintenance_keeps_the_epoch(url: str, schema: str, opening: Open) -> None:
    """Rewriting the table, and opening as another user, are not restores."""
    opening().append(event())
    sql(
        url,
        f"VACUUM FULL {schema}.store",
        f"ALTER TABLE {schema}.store SET (fillfactor = 50)",
        f"REINDEX SCHEMA {schema}",
    )
    assert opening().epoch == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_restored_begins_a_new_epoch(url: str, schema: str, opening: Open, mode: str) -> None:
    """Two restores that the database cannot know: point-in-time recovery on the same timeline, a volume rolled back."""
    opening().append(event())
    done = Opened(url, mode, schema=schema).restored()
    assert (done.store, done.ended, done.epoch) == (opening().store_id, 1, 2)
    assert opening().epoch == 2
    (line,) = eventfold("restored", f"{url}?schema={schema}", "--json").lines
    assert line == {"store": done.store, "ended": 2, "epoch": 3}
    assert "is now in epoch 4" in " ".join(eventfold("restored", f"{url}?schema={schema}", "--table").out.split())
    assert "no backup" in eventfold("restored", "memory:").err
