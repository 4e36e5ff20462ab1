"""`verify` over a whole store: the log by its engine's own check, then every ledger; in both modes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.async_admin import AsyncProjectionAdmin
from eventfold.projections.verify import LogProof
from tests.cli.commands import ANSI, on_terminal, run
from tests.engines.sqlite.test_flips import unguarded
from tests.projections.flights import CarrierMonth, flights

OF_THE_STORE = {
    "close",
    "inline",
    "follower_progress",
    "log",
    "observe",
    "observed_by",
    "over",
    "own_target",
    "project",
    "select",
    "run",
    "target",
    "using",
    "wait",
}


def forged(path: Path) -> None:
    """Write a store in which another program has changed the index of tags."""
    with ef.Store(str(path)) as store:
        store.extend(flights(50))
        store.project(CarrierMonth)
    unguarded(str(path), "UPDATE posting SET tag = tag + 1000 WHERE tag > 0")


def test_an_honest_log_and_an_honest_ledger_are_proved(either: ef.Store) -> None:
    """The proof shows whether the engine has a check of its own, and progress goes up to the whole."""
    either.extend(flights(2_500))
    either.project(CarrierMonth)
    reports: list[tuple[int, int]] = []
    found: LogProof = either.projections.verify_log(lambda done, whole: reports.append((done, whole)))
    assert found.proved
    assert found.events == 2_500
    assert found.checked == (found.engine != "memory")
    assert not found.checked or reports[-1] == (2_500, 2_500)
    reports.clear()
    (proof,) = either.projections.verify(progress=lambda done, whole: reports.append((done, whole)))
    assert proof.proved
    assert reports[-1] == (2_500, 2_500)


def test_the_command_checks_the_log_too(tmp_path: Path) -> None:
    """A changed log fails the command, though every ledger is right; with names, it verifies only these."""
    forged(tmp_path / "store.db")
    url = str(tmp_path / "store.db")
    ran = run("verify", url)
    log, ledger = ran.lines
    assert ran.code == 1
    assert (log["log"], log["proved"], log["checked"]) == ("sqlite", False, True)
    assert len(log["flaws"]) >= 3
    assert ledger["proved"]
    for words in (("--no-log",), ("carrier_month",)):
        ran = run("verify", url, *words)
        assert ran.code == 0
        assert len(ran.lines) == 1
    assert run("verify", url, "carrier_month", "--log").code == 1


def test_a_terminal_shows_what_is_wrong_in_80_columns(tmp_path: Path) -> None:
    """First the log, then a line for each checkpoint; no line is wider than the terminal."""
    forged(tmp_path / "store.db")
    code, shown = on_terminal("verify", "store.db", folder=tmp_path)
    assert code == 1
    assert "The log is damaged" in shown
    assert "✓  carrier_month        50  50 events, each exactly once" in ANSI.sub("", shown)
    code, shown = on_terminal("verify", "store.db", "--no-log", folder=tmp_path)
    assert code == 0
    assert "is damaged" not in shown


def test_a_store_with_nothing_kept_says_so(tmp_path: Path) -> None:
    """Only the log is verified."""
    url = str(tmp_path / "store.db")
    ef.Store(url).close()
    assert run("verify", url, "--no-log", "--table").out.startswith("This store has no read model")
    assert run("verify", url, "--table").out.startswith("The log is unchanged: 0 events")
    assert run("verify", f"memory:{tmp_path.name}").code == 4


@pytest.mark.parametrize(
    "name", sorted(n for n, v in inspect.getmembers(ProjectionAdmin) if n[0] != "_" and callable(v))
)
def test_the_administration_has_a_twin(name: str) -> None:
    """Every query and operation exists for async users, with the same arguments."""
    if name in OF_THE_STORE:
        return
    mine, theirs = (
        list(inspect.signature(getattr(admin, name)).parameters.values())
        for admin in (ProjectionAdmin, AsyncProjectionAdmin)
    )
    assert [(p.name, p.kind) for p in mine] == [(p.name, p.kind) for p in theirs]
    assert inspect.iscoroutinefunction(getattr(AsyncProjectionAdmin, name))
