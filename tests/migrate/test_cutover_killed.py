"""kill -9 of a cutover and a rollback at each step: the same command, run again, goes on; status says where it is."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from eventfold.errors import SourceUnavailable
from eventfold.migrate.mapping_text import mapping_text
from tests.migrate.shop import Shop, assert_equal
from tests.migrate.test_cutover import ORDER, decide
from tests.migrate.test_killed import run
from tests.support.memory import tmp_path as tmp_path
from tests.support.repetitions import IS_SLOW

BLOCKS = {
    "sqlite": "sqlite_block:SqliteBlock",
    "postgresql-triggers": "postgres_block:PostgresBlock",
    "postgresql-decoding": "postgres_block:PostgresBlock",
    "mariadb": "mariadb_block:MariadbBlock",
}
# What is run, where it kills itself, and what status says then. Those without a star are left out of short runs.
CUTOVER = (
    ("eventfold.migrate.blocks.{block}.install", "*blocked"),
    ("eventfold.migrate.session:Session.compare", "blocked"),
    ("eventfold.migrate.reverse:ReverseProjection.install", "*blocked"),
)
FOLLOWING = (("eventfold.migrate.reverse:ReverseProjection._write", "*cut over"),)
ROLLBACK = (
    ("eventfold.migrate.reverse:ReverseProjection.catch_up", "cut over"),
    ("eventfold.migrate.session:Session.compare", "cut over"),
    ("eventfold.migrate.moved:MovedTables.record_refusals", "*blocked"),
    ("eventfold.migrate.blocks.{block}.remove", "blocked"),
)


@pytest.mark.parametrize("way", tuple(BLOCKS) if IS_SLOW else ("sqlite",))
def test_a_cutover_and_a_rollback_go_on_after_a_kill_at_each_step(way: str, tmp_path: Path) -> None:
    """At each step one side at most may write, and in the end every row and event is there."""
    shop = Shop(way, tmp_path)
    shop.fill()
    (tmp_path / "migration.toml").write_text(mapping_text(shop.mapping), "utf-8")
    with shop.session() as session:
        shop.begin(session)
    shop.run("UPDATE orders SET total = 3 WHERE id = 3")
    kill(shop, "cutover", CUTOVER)
    assert run(shop, "cutover")[0] == 0
    with shop.session() as session:
        decide(session, ("OrderImported", ORDER), ("OrderPaid", {"id": 3, "status": "paid"}))
    kill(shop, "capture --once", FOLLOWING)
    assert run(shop, "capture --once")[0] == 0
    assert shop.application.rows("SELECT status FROM orders WHERE id IN (3, 100) ORDER BY id") == [("paid",), ("new",)]
    with shop.session() as session:
        decide(session, ("OrderPaid", {"id": 100, "status": "paid"}))
    kill(shop, "rollback", ROLLBACK)
    code, said = run(shop, "rollback")
    assert code == 0 or "None of these tables" in said, said
    shop.run("UPDATE orders SET note = 'by them' WHERE id = 100")
    assert run(shop, "capture --once")[0] == 0
    with shop.session() as session:
        assert session.store.count() > 0 and session.state().phase == "capturing"
        row = next(each for each in shop.rows(session, "orders") if each["id"] == 100)
        assert (row["status"], row["note"], row["total"]) == ("paid", "by them", "12.50")
        assert_equal(shop, session)
    shop.application.close()


def phase_of(shop: Shop) -> str:
    """The phase of the migration, as status says it."""
    _, shown = run(shop, "status")
    return json.loads(shown.splitlines()[-1])["phase"]


def kill(shop: Shop, words: str, steps: tuple[tuple[str, str], ...]) -> None:
    """Kill a command at each of its steps; see what status says, and whether the old application is refused."""
    way = next(each for each in BLOCKS if each == shop.dialect or each == f"{shop.dialect}-{shop.way}")
    module, _, owner = BLOCKS[way].partition(":")
    for place, phase in steps:
        if not IS_SLOW and not phase.startswith("*"):
            continue
        code, said = run(shop, words, (place.replace("{block}.", f"{module}:{owner}."), 1, "after"))
        assert code == -signal.SIGKILL, said
        assert phase_of(shop) == phase.removeprefix("*")
        if not place.endswith("remove"):
            with pytest.raises(SourceUnavailable):
                shop.run("UPDATE orders SET total = 4 WHERE id = 3")


def test_a_cutover_that_was_killed_is_given_up(tmp_path: Path) -> None:
    """A rollback lifts its block, although nothing was switched."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    (tmp_path / "migration.toml").write_text(mapping_text(shop.mapping), "utf-8")
    with shop.session() as session:
        shop.begin(session)
    place = "eventfold.migrate.blocks.sqlite_block:SqliteBlock.install"
    assert run(shop, "cutover", (place, 1, "after"))[0] == -signal.SIGKILL
    code, said = run(shop, "rollback")
    assert code == 0, said
    shop.run("UPDATE orders SET total = 4 WHERE id = 3")
    assert phase_of(shop) == "capturing"
    shop.application.close()
