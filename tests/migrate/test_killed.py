"""kill -9 of the commands at every step: the same command, run again, goes on, and every row is equal afterwards."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.migrate.mapping_text import mapping_text
from eventfold.migrate.progress import Ledger, Migration
from tests.migrate.shop import Shop
from tests.support.memory import tmp_path as tmp_path  # what is killed is the process, not the machine
from tests.support.repetitions import IS_SLOW

PATIENCE_S = 60.0
# Each step is a place in the code at which the process kills itself, by the name of a method and which of its calls.
# In the suite the process kills itself after some of them, by EVENTFOLD_SLOW=1 before and after each, on each source.
STEPS = (
    ("capture --install", "eventfold.migrate.sources.{recorder}:install", 1),
    ("load", "eventfold.migrate.load:Loader._sort", 2),
    ("load", "eventfold.migrate.load:Loader._append_one", 1),
    ("load", "eventfold.migrate.progress:Ledger.add", 2),
    ("compare", "eventfold.migrate.compare:Comparer._read_rows", 1),
    ("compare", "eventfold.migrate.capture:Capture._write", 1),
    ("compare", "eventfold.migrate.compare:Comparer._record", 1),
    ("capture --once", "eventfold.migrate.capture:Capture._write", 1),
    ("capture --once", "eventfold.migrate.sources.{recorder}:acknowledge", 1),
    ("capture --remove", "eventfold.migrate.sources.{recorder}:remove", 1),
)
IN_THE_SUITE = {("load", "Loader._append_one"), ("compare", "Capture._write"), ("capture --once", "Capture._write")}
RECORDERS = {
    "sqlite": "sqlite_triggers:SqliteTriggers",
    "postgresql-triggers": "postgres_triggers:PostgresTriggers",
    "postgresql-decoding": "postgres_decoding:PostgresDecoding",
}
# Commands are forks of one process that has imported everything and opened nothing: a new one would take a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["eventfold.cli", "eventfold.migrate.session", "eventfold.migrate.hidden", __name__])


def command_line(words: list[str], said: str, killed: tuple[str, int, str] | None) -> None:
    """Run a command in this process, what it says into a file; with `killed`, up to where it kills itself."""
    from eventfold.cli import main

    with Path(said).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
        if killed is not None:
            arrange_death(*killed)
        sys.argv = ["eventfold", *words]
        main()


def arrange_death(place: str, which: int, when: str) -> None:
    """Let this process kill itself before or after one of the calls of a method."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, method = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    original, left = getattr(owner, method), [which]

    def dying(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0] and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = original(*given, **named)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, method, dying)


def command(shop: Shop, words: str) -> list[str]:
    """Return the arguments of a command of this shop's migration."""
    name, *options = words.split()
    if "--install" in options and shop.way is not None:
        options += ["--by", shop.way]
    mapping = [] if name == "status" else ["--mapping", str(Path(shop.store_path).with_name("migration.toml"))]
    return ["migrate", name, shop.store_path, shop.address, *mapping, *options]


def run(shop: Shop, words: str, killed: tuple[str, int, str] | None = None) -> tuple[int | None, str]:
    """Run a command, to its end or to where it kills itself. Returns its exit code, and what it said."""
    said = Path(shop.store_path).with_name("said.txt")
    process = PROCESSES.Process(target=command_line, args=(command(shop, words), str(said), killed))
    process.start()
    process.join(PATIENCE_S)
    try:
        assert not process.is_alive(), said.read_text("utf-8")
    finally:
        process.kill()
        process.join()
    return process.exitcode, said.read_text("utf-8")


@pytest.mark.parametrize("way", tuple(RECORDERS) if IS_SLOW else ("sqlite",))
def test_a_migration_goes_on_after_a_kill_at_each_step(way: str, tmp_path: Path) -> None:
    """Before and after each step: the command is repeated, changes are made in between, nothing is lost or doubled."""
    shop = Shop(way, tmp_path)
    shop.fill()
    (tmp_path / "migration.toml").write_text(mapping_text(shop.mapping), "utf-8")
    module, _, owner = RECORDERS[way].partition(":")
    killed_at: set[int] = set()
    for number, (words, place, count) in enumerate(STEPS):
        method = place.replace("{recorder}:", f"{module}:{owner}.")
        if words.startswith(("capture --once", "compare")):
            shop.run("UPDATE orders SET total = ? WHERE id = ?", number + 0.25, number)
        if IS_SLOW or (words, place.rpartition(":")[2]) in IN_THE_SUITE:
            for when in ("before", "after") if IS_SLOW else ("after",):
                if words.startswith(("capture --once", "compare")):
                    shop.run("DELETE FROM line WHERE order_id = ?", number + 10 * (when == "after"))
                code, said = run(shop, words, (method, count, when))
                if code == -signal.SIGKILL:
                    killed_at.add(number)
                else:  # the step before was not repeated, so there was nothing to do
                    assert "Everything is loaded" in said or code == 0, said
        if STEPS[number + 1 : number + 2] and STEPS[number + 1][0] == words:
            continue  # the next step repeats it
        code, said = run(shop, words)
        assert code == 0 or "Everything is loaded" in said, said
        if number == len(STEPS) - 2:
            code, said = run(shop, "compare")
            assert code == 0, said
    assert len(killed_at) == (len(STEPS) if IS_SLOW else len(IN_THE_SUITE))
    with ef.Store(shop.store_path) as store:
        assert Ledger(store, "migration").read().capture is None
        assert isinstance(store.state(Migration("migration")), Migration)
        ids = [each.id for each in store.read(raw=True)]
        assert len(ids) == len(set(ids))
    shop.application.close()


def test_a_capture_that_runs_is_killed_and_another_takes_over(tmp_path: Path) -> None:
    """While it runs no second one begins; after kill -9 the next one goes on at once."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    (tmp_path / "migration.toml").write_text(mapping_text(shop.mapping), "utf-8")
    with shop.session() as session:
        shop.begin(session)
    running = subprocess.Popen([sys.executable, "-m", "eventfold", *command(shop, "capture")], stderr=subprocess.PIPE)
    try:
        shop.run("UPDATE orders SET note = 'first' WHERE id = 1")
        ends = time.monotonic() + PATIENCE_S
        with ef.Store(shop.store_path) as store:
            while not store.count(ef.Query.of(types="OrderChanged")):
                assert time.monotonic() < ends and running.poll() is None
                time.sleep(0.02)
        assert run(shop, "capture --once")[0] == 5
        code, said = run(shop, "compare")  # it waits for what the other one captures
        assert code == 0, said
        running.send_signal(signal.SIGKILL)
        running.wait(PATIENCE_S)
    finally:
        running.kill()
        running.communicate()
    shop.run("UPDATE orders SET note = 'second' WHERE id = 1")
    assert run(shop, "capture --once")[0] == 0
    code, said = run(shop, "status")
    assert code == 0 and "capturing" in said
    assert run(shop, "compare")[0] == 0
    shop.application.close()


def test_a_comparison_for_days_is_killed_and_begun_again(tmp_path: Path) -> None:
    """Its results are in the store; the next one goes on, and a difference in any of its passes is its exit code."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    (tmp_path / "migration.toml").write_text(mapping_text(shop.mapping), "utf-8")
    with shop.session() as session:
        shop.begin(session)
    words = "compare --watch --every 1s --for"
    code, said = run(shop, f"{words} 50s", ("eventfold.migrate.compare:Comparer._record", 2, "after"))
    assert code == -signal.SIGKILL, said
    with ef.Store(shop.store_path) as store:
        assert store.count(ef.Query.of(types="$migration-compared")) == 2
    assert run(shop, f"{words} 1s")[0] == 0
    shop.run("UPDATE orders SET note = 'unseen' WHERE id = 4")
    shop.run("DELETE FROM eventfold_migration_change")
    code, said = run(shop, f"{words} 1s")
    assert code == 8 and "1 of 45 rows differ: orders: 1 different (note 1)" in said
    shop.application.close()
