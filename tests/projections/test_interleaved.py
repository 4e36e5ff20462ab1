"""Commands of operators interleaved with steps of runners: in every order rows contain every event once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.errors import UnknownProjection
from tests.projections.interleaved import (
    BAD,
    Act,
    Flaky,
    Taken,
    every_interleaving,
    prepared,
    rebuilt,
    retried_and_run,
    right_in_the_end,
    seats,
)

ACTS: dict[str, Act] = {
    "retry": lambda store: store.projections.retry(Flaky),
    "retry one": lambda store: store.projections.retry(Flaky, 1),
    "skip": lambda store: store.projections.skip(Flaky, 2, because="chance"),
    "skip the first": lambda store: store.projections.skip(Flaky, 1, because="chance"),
    "retry and run": retried_and_run,
    "pause": lambda store: store.projections.pause(Flaky, "lunch"),
    "resume": lambda store: store.projections.resume(Flaky),
    "rebuild and switch": rebuilt,
    "roll back": lambda store: store.projections.rollback(Flaky),
    "discard": lambda store: store.projections.discard(Flaky),
    "forget": lambda store: store.projections.remove(Flaky),
}
GENERATIONS = ["rebuild and switch", "roll back", "discard"]
ENTRIES = ["retry", "skip", "skip the first"]
OTHERS = ["pause", "resume", "rebuild and switch", "roll back", "discard", "forget"]
PAIRS = [
    *((one, other) for one in ENTRIES for other in ("retry one", "skip", "skip the first", "retry and run")),
    *((one, "retry and run") for one in OTHERS),
    ("pause", "rebuild and switch"),
    ("resume", "pause"),
    ("rebuild and switch", "pause"),
    ("rebuild and switch", "roll back"),
    ("rebuild and switch", "rebuild and switch"),
    ("roll back", "roll back"),
    ("discard", "rebuild and switch"),
    ("forget", "rebuild and switch"),
]


@pytest.fixture(autouse=True)
def _bearable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(
        "eventfold.projections.rebuilds.CATCH_UP_TIMEOUT_S", 0.05
    )  # one does not wait for a transaction of the other
    BAD.clear()
    yield
    BAD.clear()


def schema(server: object) -> str:
    """Return a new store on the server."""
    return server.url(schema=f"s{uuid4().hex[:12]}")  # type: ignore[attr-defined]


def test_what_comes_between_the_calls_of_a_command_doubles_and_loses_nothing(tmp_path: Path) -> None:
    """Run every command, with every other one before each of its calls to the target, on a SQLite file."""
    for one, other in PAIRS:
        previous = not {one, other}.isdisjoint(GENERATIONS)
        calls = every_interleaving(lambda: str(tmp_path / f"{uuid4().hex}.db"), ACTS[one], ACTS[other], previous)
        assert calls >= 3, (one, other)


@pytest.mark.parametrize(("one", "other"), [("retry", "retry and run"), ("skip", "retry and run"), ("retry", "skip")])
def test_retries_and_skips_come_between_each_other_on_a_server(
    request: pytest.FixtureRequest, one: str, other: str
) -> None:
    """The same on PostgreSQL, where only row locks separate them."""
    server = request.getfixturevalue("server")
    assert every_interleaving(lambda: schema(server), ACTS[one], ACTS[other], previous=False) >= 3


def test_operators_and_a_runner_at_once_handle_every_event_once(shared_url: str) -> None:
    """Two operators retry and skip parked events while the runner handles them: each is in the rows, or skipped."""
    seats_of = 12
    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        BAD.add(1)
        store.extend(Taken(f"s{seat}", n) for n in (1, 2, 3) for seat in range(seats_of))
        store.project(Flaky)
        assert len(store.projections.parked(Flaky)) == 3 * seats_of
        BAD.clear()

        def operate(mine: ef.Store, first: int) -> None:
            for position in range(1 + first, 3 * seats_of + 1, 2):
                with suppress(UnknownProjection):  # handled already
                    if position % 3:
                        mine.projections.retry(Flaky, position)
                    else:
                        mine.projections.skip(Flaky, position, because="chance")

        with store.run(Flaky):
            threads = [threading.Thread(target=operate, args=(each, n)) for n, each in enumerate((store, other))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        right_in_the_end(store)


def acts(store: ef.Store) -> list[str]:
    """Return the commands in the log."""
    return [r.event.act for r in store.read(ef.Query.of(types="$projection-acted"))]


@pytest.mark.parametrize("written", [False, True])
def test_a_command_cut_short_before_it_is_in_the_log_is_written_by_the_next(
    shared_url: str, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Killed between the target's commit and the log, or between the log and its confirmation: it is logged once."""
    with ef.Store(shared_url) as store:
        prepared(store, previous=False)
        target = store.projections.target(Flaky)

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            if written:
                patched.setattr(type(target), "remove_command", killed)
            else:
                log = store.projections.log
                appender = log.appender
                patched.setattr("eventfold.projections.commands.AppendRequest", killed)
                assert appender is log.appender
            with pytest.raises(KeyboardInterrupt):
                store.using(actor="teller-7").projections.skip(Flaky, 2, because="chance")
        assert acts(store) == (["skip"] if written else [])
        (noted,) = target.pending_commands(store.engine.store_id)
    with ef.Store(shared_url) as store:
        with pytest.raises(UnknownProjection, match="has not parked event 2"):
            store.projections.skip(Flaky, 2, because="chance")
        assert acts(store) == ["skip"]
        store.projections.retry(Flaky)
        assert acts(store) == ["skip", "retry"]
        (skip, _) = store.read(ef.Query.of(types="$projection-acted"))
        assert (skip.id.hex, skip.metadata.actor) == (noted.id, "teller-7")
        right_in_the_end(store)
        assert seats(store) == 2


def test_a_command_that_changes_nothing_is_not_written_into_the_log(file_store: ef.Store) -> None:
    """It is already paused; no parked event can be retried; the code is unchanged."""
    store = file_store
    store.append(Taken("s1", 1))
    store.project(Flaky)
    for act in ("pause", "retry", "resume", "accept", "pause"):
        more = ("lunch",) if act == "pause" else ()
        for _ in range(2):
            getattr(store.projections, act)(Flaky, *more)
    assert acts(store) == ["pause", "resume", "pause"]
