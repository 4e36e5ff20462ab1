"""The documentation page on PostgreSQL runs on PostgreSQL, beside the run of every page without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_python import run
from tests.engines.postgres.given import sql


def test_the_page_runs_on_a_server(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks run in order, and the SQL that it prints creates the roles."""
    monkeypatch.setenv("DATABASE_URL", url)
    try:
        ran = run(ROOT / "docs" / "how-to" / "postgresql.md", tmp_path)
        assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
        assert sql(url, "SELECT count(*) FROM eventfold.event") == [(2,)]
        sql(url, ran.stdout.strip().rpartition("\n")[0])
        granted = "SELECT has_function_privilege('shop_writer', p.oid, 'EXECUTE') FROM pg_proc p"
        assert sql(url, f"{granted} WHERE p.pronamespace = 'eventfold'::regnamespace AND proname = 'append'") == [
            (True,)
        ]
    finally:
        sql(url, "DROP SCHEMA IF EXISTS eventfold CASCADE", "DROP ROLE IF EXISTS shop_writer, shop_reader")
