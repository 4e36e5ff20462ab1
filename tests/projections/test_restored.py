"""A log restored from a backup, with read models ahead of it: refused, and repaired as the message says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.engines.addresses import without_secrets
from tests.cli.commands import Ran, run
from tests.projections.flights import flights, folded

MODULE = """
import eventfold as ef
from tests.projections import flights as given

class Kept(given.CarrierMonth, name="kept", target={target!r}):
    def evolve(self, event: given.Departed | given.Cancelled) -> None:
        super().evolve(event)

class Mailed(ef.Subscription, name="mailed", start="now", target={target!r}):
    def send(self, event: given.Departed) -> None: ...
"""


class Restored:
    """A store of 20 events that once had 50, and what was stored elsewhere of the 50."""

    def __init__(self, folder: Path, url: str, backup: str, target: str) -> None:
        self.folder, self.url, self.lost = folder, backup, url
        module = f"m{uuid4().hex[:8]}"
        (folder / f"{module}.py").write_text(MODULE.format(target=target))
        self.codes = [f"{module}:Kept", f"{module}:Mailed"]
        with ef.Store(url) as store:
            assert self.do("run", url, *self.codes, "--once").code == 0  # registered from the start
            store.extend(flights(20))
            assert self.do("run", url, *self.codes, "--once").code == 0
            with ef.Store(backup) as copy:
                store.copy_to(copy, keep_identity=True)
            store.extend(flights(30, 20))
            assert self.do("run", url, *self.codes, "--once").code == 0

    def do(self, *words: str) -> Ran:
        """Run a command in the folder of the classes."""
        return run(*words, "--import-path", str(self.folder))

    def follow(self, remedy: str) -> Ran:
        """Run the command of a message literally; only a password is added."""
        found = re.search(r"eventfold ([a-z]+ [a-z]+ .+ [a-z_]+(?: --[a-z]+)*)[.;)]", remedy)
        assert found is not None, remedy
        words = [self.url if each == without_secrets(self.url) else each for each in shlex.split(found[1])]
        return run(*words, "--import-path", str(self.folder))


@pytest.fixture(params=["sqlite", "postgres"])
def restored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restored]:
    """Return one on both engines, with the rows in another database of the same kind."""
    if request.param == "sqlite":
        yield Restored(tmp_path, f"{tmp_path}/store.db", f"{tmp_path}/backup.db", f"sqlite:{tmp_path}/rows.db")
        return
    server = request.getfixturevalue("server")
    here, there, rows = (server.url(schema=f"s{uuid4().hex[:12]}") for _ in range(3))
    yield Restored(tmp_path, here, there, rows)


def test_a_read_model_ahead_of_a_restored_log_is_repaired_as_the_message_says(restored: Restored) -> None:
    """Runners refuse it, status and verify name it; rebuilt and switched, it is the fold of the restored log."""
    refused = restored.do("run", restored.url, restored.codes[0], "--once")
    assert refused.code == 7
    assert "position 50" in refused.err
    assert restored.do("projections", "list", restored.url).lines[0]["kind"] == "rows"
    (status,) = restored.do("projections", "status", restored.url, "kept").lines
    assert status["state"] == "stopped"
    shown = shlex.quote(without_secrets(restored.url))
    assert f"eventfold projections rebuild {shown} kept --switch" in status["sentence"]
    assert restored.do("verify", restored.url, "kept").code == 1
    repair = restored.follow(refused.err)
    assert repair.code == 0, repair.err
    assert restored.do("run", restored.url, restored.codes[0], "--once").code == 0
    (status,) = restored.do("projections", "status", restored.url, "kept").lines
    assert (status["behind"], status["generation"]) == (0, 2)
    verified = restored.do("verify", restored.url, "kept")
    assert verified.code == 0, verified.out
    before, now = sorted(verified.lines, key=lambda proof: proof["generation"])
    assert (now["proved"], now["provable"]) == (True, True)
    assert (before["proved"], before["provable"]) == (False, False)  # for a rollback, of the lost history
    assert "not provable" in before["verdict"]
    assert "–" in restored.do("verify", restored.url, "kept", "--table").out
    with ef.Store(restored.url) as store:
        expected = folded(r.event for r in store.read(until=20))
        kept = import_module(restored.codes[0].partition(":")[0]).Kept
        seen = sorted((r.carrier, r.month, r.flights, r.delay, r.cancelled) for r in store.rows(kept))
        assert seen == expected


def test_effects_ahead_of_a_restored_log_begin_again_as_the_message_says(restored: Restored) -> None:
    """It is unknown which were done: the operator removes its progress, and it begins where its class says."""
    refused = restored.do("run", restored.url, restored.codes[1], "--once")
    assert refused.code == 7
    repair = restored.follow(refused.err)
    assert repair.code == 0, repair.err
    assert repair.lines[0]["position"] == 50
    assert restored.do("run", restored.url, restored.codes[1], "--once").code == 0
    assert restored.do("verify", restored.url, "mailed").code == 0


def test_a_half_built_generation_of_the_lost_log_is_not_gone_on_with(restored: Restored) -> None:
    """A generation that was being built when the log was restored is rebuilt from its beginning."""
    name = restored.codes[0]
    assert restored.do("projections", "rebuild", restored.lost, name).code == 0
    assert restored.do("projections", "rebuild", restored.url, name, "--switch").code == 0
    assert [p["proved"] for p in restored.do("verify", restored.url, name).lines if p["generation"] == 3] == [True]


def test_a_database_that_is_away_hides_nothing_else(tmp_path: Path) -> None:
    """Status still reports every other read model, and the reason for the one that cannot be read."""
    restored = Restored(tmp_path, f"{tmp_path}/store.db", f"{tmp_path}/backup.db", f"sqlite:{tmp_path}/rows.db")
    with ef.Store(f"{tmp_path}/store.db") as store, store.follow(name="billing") as follower:
        next(iter(follower))
        follower.acknowledge()
    for file in tmp_path.glob("rows.db*"):
        file.unlink()
    (tmp_path / "rows.db").mkdir()
    found = {line["name"]: line for line in restored.do("projections", "status", f"{tmp_path}/store.db").lines}
    assert {name: line["state"] for name, line in found.items()} == {
        "billing": "idle",
        "kept": "away",
        "mailed": "away",
    }
    assert "rows.db" in found["kept"]["sentence"]
    assert run("projections", "list", f"{tmp_path}/store.db").code == 0
    assert restored.do("projections", "status", f"{tmp_path}/store.db", "kept").code == 1


def test_a_cursor_of_another_epoch_that_agrees_is_followed(tmp_path: Path) -> None:
    """A restored copy has all events that the follower has seen: the epoch is higher, and it continues."""
    with ef.Store(f"{tmp_path}/store.db") as store:
        store.extend(flights(20))
        with store.follow(name="billing") as follower:
            next(follower.pages())
            follower.acknowledge()
        store.backup(f"{tmp_path}/backup.db")
        epoch = store.engine.epoch
    with ef.Store(f"{tmp_path}/backup.db") as store:
        assert store.engine.epoch > epoch
        store.extend(flights(5, 20))
        with store.follow(name="billing") as follower:
            assert [r.position for r in next(follower.pages())] == [21, 22, 23, 24, 25]
            follower.acknowledge()
        (proof,) = store.projections.verify("billing")
        assert (proof.proved, proof.handled) == (True, 25)


def test_two_projections_of_one_name_are_separated_as_the_message_says(tmp_path: Path) -> None:
    """Moved to another module and changed, it is rebuilt by its new class's name, and has that name from then on."""
    first, second = f"m{uuid4().hex[:8]}", f"m{uuid4().hex[:8]}"
    text = "from tests.projections.flights import *\nimport eventfold as ef\nclass Late(ef.Projection, name='late'):\n"
    text += "    carrier: str\n    n: int = 0\n    def evolve(self, event: Departed) -> None:\n        self.n += %s\n"
    (tmp_path / f"{first}.py").write_text(text % "1")
    (tmp_path / f"{second}.py").write_text(text % "event.delay > 0")
    url, path = str(tmp_path / "store.db"), ("--import-path", str(tmp_path))
    with ef.Store(url) as store:
        store.extend(flights(50))
    assert run("run", url, f"{first}:Late", "--once", *path).code == 0
    refused = run("run", url, f"{second}:Late", "--once", *path)
    assert refused.code == 2
    found = re.search(r"eventfold (projections rebuild (\S+) \S+ --switch)\.", refused.err)
    assert found is not None and found[2] == url
    assert run(*found[1].split(), *path).code == 0
    assert run("run", url, f"{second}:Late", "--once", *path).code == 0
    assert run("projections", "list", url).lines[0]["code"] == f"{second}:Late"
