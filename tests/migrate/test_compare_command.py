"""`eventfold migrate compare`: what it prints, how it ends, and that it goes on through what fails for a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventfold.cli import migration_compare
from eventfold.cli.migration_compare import Watching
from eventfold.cli.output import Output
from eventfold.errors import SourceUnavailable
from eventfold.migrate.comparison import Comparison
from eventfold.migrate.mapping_text import mapping_text
from tests.cli.commands import run
from tests.migrate.shop import Shop
from tests.migrate.test_capture import opened, pass_over
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk


def compared(shop: Shop, *options: str) -> tuple[int, str, str]:
    """Run the command. Returns its exit code, its output and its errors."""
    mapping = Path(shop.store_path).with_name("migration.toml")
    mapping.write_text(mapping_text(shop.mapping), "utf-8")
    done = run("migrate", "compare", shop.store_path, shop.address, "--mapping", str(mapping), *options)
    return done.code, done.out, done.err


def test_differences_are_printed_and_are_an_exit_code_of_their_own(tmp_path: Path) -> None:
    """As a table with both values and the event that gave ours; as one JSON object; a limit says how many more."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    with shop.session() as session:
        shop.begin(session)
    code, out, _ = compared(shop, "--table")
    assert code == 0 and out.startswith("all 45 rows of 3 tables are equal")
    shop.run("UPDATE orders SET total = 7, note = 'a\x1b[31mb' WHERE id = 2")
    shop.run("DELETE FROM line WHERE order_id < 3")
    shop.run("DELETE FROM eventfold_migration_change")
    code, out, _ = compared(shop, "--table")
    assert code == 8
    lines = [line.split() for line in out.splitlines()]
    assert next(each for each in lines if "total" in each)[:5] == ["orders", "2", "total", '"2.50"', '"7.00"']
    assert ["line", "0/1", "a", "row", "no", "row"] in [each[:6] for each in lines]
    assert "OrderImported" in out and "\x1b" not in out and "4 of 42 rows differ" in out
    code, out, _ = compared(shop, "--json", "--limit", "1")
    found = json.loads(out)
    assert code == 8 and not found["equal"] and found["differing"] == 4 and len(found["differences"]) == 2
    assert compared(shop, "--only", "customer", "--table")[1].startswith("all 5 rows of 1 table are equal")
    code, _, err = compared(shop, "--only", "nothing")
    assert code == 2 and "no table of this migration" in err
    assert compared(shop, "--for", "1d")[0] == compared(shop, "--watch", "--every", "often")[0] == 2
    shop.application.close()


def watching(passes: list[Callable[[], Comparison]], monkeypatch: pytest.MonkeyPatch) -> int:
    """Watch until the passes are over, and return the exit code."""
    monkeypatch.setattr(migration_compare, "RECONNECT_S", 0.01)
    left: Iterator[Callable[[], Comparison]] = iter(passes)

    def once() -> Comparison:
        following = next(left, None)
        if following is None:
            raise KeyboardInterrupt
        return following()

    return Watching(Output(False), once, 0.01, None).run()


def test_watching_goes_on_through_lost_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is cut while rows are read is an error of this pass only; the exit code says how it was."""
    with contextmanager(opened)("postgresql-triggers", tmp_path) as (shop, _):

        def cut(_: object) -> None:
            shop.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )

        def once(progress: Callable[[object], None] = lambda _: None) -> Comparison:
            with shop.session() as session:
                return session.compare(progress=progress)

        def cut_once() -> Comparison:
            return once(cut)

        with pytest.raises(SourceUnavailable):
            cut_once()
        assert watching([cut_once, once], monkeypatch) == 0
        assert watching([once, cut_once], monkeypatch) == 1
        with shop.session() as session:
            shop.run("UPDATE orders SET note = 'unseen' WHERE id = 4")
            pass_over(shop, session)
            differing = session.compare()
        assert watching([lambda: differing, cut_once], monkeypatch) == 8
