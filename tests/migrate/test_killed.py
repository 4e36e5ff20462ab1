"""kill -9 of the commands at every step: the same command, run again, goes on, and every row is equal afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.migrate.mapping_text import mapping_text
from eventfold.migrate.progress import Ledger, Migration
from tests.migrate.shop import Shop, assert_equal
from tests.support.memory import tmp_path as tmp_path  # what is killed is the process, not the machine
from tests.support.repetitions import IS_SLOW

PATIENCE_S = 60.0
# Each step is a place in the code at which the process kills itself, by the name of a method and which of its calls.
STEPS = (
    ("capture --install", "eventfold.migrate.sources.{recorder}:install", 1),
    ("load", "eventfold.migrate.load:Loader._sort", 2),
    ("load", "eventfold.migrate.load:Loader._append_one", 2),
    ("load", "eventfold.migrate.progress:Ledger.add", 2),
    ("capture --once", "eventfold.migrate.capture:Capture._write", 1),
    ("capture --once", "eventfold.migrate.sources.{recorder}:acknowledge", 1),
    ("capture --remove", "eventfold.migrate.sources.{recorder}:remove", 1),
)
RECORDERS = {
    "sqlite": "sqlite_triggers:SqliteTriggers",
    "postgresql-triggers": "postgres_triggers:PostgresTriggers",
    "postgresql-decoding": "postgres_decoding:PostgresDecoding",
}
KILLING = """
import importlib, os, signal, sys
module, _, path = sys.argv[1].partition(":")
owner = importlib.import_module(module)
*classes, method = path.split(".")
for each in classes:
    owner = getattr(owner, each)
original, left, when = getattr(owner, method), int(sys.argv[2]), sys.argv[3]

def dying(*given, **named):
    global left
    left -= 1
    if not left and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = original(*given, **named)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(owner, method, dying)
sys.argv = ["eventfold", *sys.argv[4:]]
from eventfold.cli import main
main()
"""


def command(shop: Shop, words: str) -> list[str]:
    """Return the arguments of a command of this shop's migration."""
    name, *options = words.split()
    if "--install" in options and shop.way is not None:
        options += ["--by", shop.way]
    mapping = [] if name == "status" else ["--mapping", str(Path(shop.store_path).with_name("migration.toml"))]
    return ["migrate", name, shop.store_path, shop.address, *mapping, *options]


def run(shop: Shop, words: str, *killed: str) -> subprocess.CompletedProcess[str]:
    """Run a command, to its end or to where it kills itself."""
    start = [sys.executable, "-c", KILLING, *killed] if killed else [sys.executable, "-m", "eventfold"]
    return subprocess.run(
        [*start, *command(shop, words)], capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ
    )


@pytest.mark.parametrize("way", tuple(RECORDERS) if IS_SLOW else ("sqlite",))
def test_a_migration_goes_on_after_a_kill_at_each_step(way: str, tmp_path: Path) -> None:
    """Before and after each step: the command is repeated, changes are made in between, nothing is lost or doubled."""
    shop = Shop(way, tmp_path)
    shop.fill()
    (tmp_path / "migration.toml").write_text(mapping_text(shop.mapping), "utf-8")
    module, _, owner = RECORDERS[way].partition(":")
    for number, (words, place, count) in enumerate(STEPS):
        method = place.replace("{recorder}:", f"{module}:{owner}.")
        for when in ("before", "after") if IS_SLOW else ("after",):
            if words.startswith("capture --once"):
                shop.run("UPDATE orders SET total = ? WHERE id = ?", number + 0.25, number)
                shop.run("DELETE FROM line WHERE order_id = ?", 10 + number + (when == "after"))
            done = run(shop, words, method, str(count), when)
            if done.returncode != -signal.SIGKILL:  # the step before was not repeated, so there was nothing to do
                assert "Everything is loaded" in done.stderr or done.returncode == 0, done.stderr
        again = run(shop, words)
        assert again.returncode == 0 or "Everything is loaded" in again.stderr, again.stderr
        if number == len(STEPS) - 2:
            with shop.session() as session:
                assert_equal(shop, session)
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
    assert run(shop, "capture --install").returncode == 0
    assert run(shop, "load").returncode == 0
    running = subprocess.Popen([sys.executable, "-m", "eventfold", *command(shop, "capture")], stderr=subprocess.PIPE)
    try:
        shop.run("UPDATE orders SET note = 'first' WHERE id = 1")
        ends = time.monotonic() + PATIENCE_S
        with ef.Store(shop.store_path) as store:
            while not store.count(ef.Query.of(types="OrderChanged")):
                assert time.monotonic() < ends and running.poll() is None
                time.sleep(0.02)
        second = run(shop, "capture --once")
        assert second.returncode == 5
        running.send_signal(signal.SIGKILL)
        running.wait(PATIENCE_S)
    finally:
        running.kill()
        running.communicate()
    shop.run("UPDATE orders SET note = 'second' WHERE id = 1")
    assert run(shop, "capture --once").returncode == 0
    shown = run(shop, "status")
    assert shown.returncode == 0 and "capturing" in shown.stdout
    with shop.session() as session:
        assert_equal(shop, session)
    shop.application.close()
