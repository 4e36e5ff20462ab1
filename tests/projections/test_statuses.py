"""The status of many read models at once: what it says of each, and how many statements it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import eventfold as ef
from eventfold.errors import InvalidProjection
from eventfold.projections.admin import ProjectionAdmin
from eventfold.targets.sql.target import SqlTarget
from tests.projections.flights import Departed


def read_model(name: str, **options: Any) -> type[ef.Projection]:
    """A read model of this name, which counts departures; it fails at a delay of 13."""

    class Counted(ef.Projection, name=name, on_error="park", attempts=1, **options):
        carrier: str
        n: int = 0

        def evolve(self, event: Departed) -> None:
            """Count."""
            self.n += 1 // (event.delay - 13) + 1

    return Counted


@contextmanager
def statements(admin: ProjectionAdmin, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that a target runs, and the calls of the engine."""
    run: list[str] = []
    target = admin.catalog.target_at()
    with monkeypatch.context() as patched:
        if isinstance(target, SqlTarget):
            execute = target.execute

            def counted(connection: Any, sql: str, parameters: Any = ()) -> Any:
                run.append(sql)
                return execute(connection, sql, parameters)

            patched.setattr(target, "execute", counted)
        else:
            engine: sa.Engine = target._connections.default_pool  # type: ignore[attr-defined]
            sa.event.listen(engine, "before_cursor_execute", lambda _c, _cur, sql, *_: run.append(sql))
        for name in ("head", "position_at", "count", "read", "event_id"):
            call = getattr(admin.log.engine, name)

            def counting(*args: Any, _call: Any = call, _name: str = name, **options: Any) -> Any:
                run.append(_name)
                return _call(*args, **options)

            patched.setattr(admin.log.engine, name, counting)
        yield run


@pytest.fixture(params=["own", "sqlite+pysqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ef.Store]:
    """A store whose read models are in its own file, or in one behind SQLAlchemy."""
    target = None if request.param == "own" else f"sqlite+pysqlite:///{tmp_path / 'rows.db'}"
    with ef.Store(str(tmp_path / "flights.db"), target=target) as found:
        found.extend([Departed(f"c-{n}", 1, n) for n in range(20)])
        yield found


def test_twenty_read_models_take_as_many_statements_as_two(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One head, one moment of the log, all checkpoints in one statement, all parked events in another."""
    numbers = list[list[str]]()
    for names in (range(2), range(2, 20)):
        store.project(*[read_model(f"status_of_many_{n:02}") for n in names])
        with statements(store.projections, monkeypatch) as run:
            found = store.projections.status()
        numbers.append(sorted(run))
    assert len(found) == 20
    assert {each.state for each in found} == {"parked"}
    assert numbers[0] == numbers[1]
    assert numbers[1].count("head") == 1
    assert "count" not in numbers[1]


def test_the_status_of_all_is_that_of_each(store: ef.Store) -> None:
    """Current, parked, stopped, paused, behind by different numbers of events, in partitions, and a follower."""
    models = [read_model(f"status_of_each_{n}", partitions=n) for n in (1, 2)]
    store.project(*models)
    store.projections.pause(models[1], "the database moves")
    store.extend([Departed(f"c-{n}", 1, n) for n in range(5)])
    store.project(models[0])
    store.append(Departed("c-1", 1, 1))
    with store.follow(name="status_of_each_follower") as follower:
        next(iter(follower))
        follower.acknowledge()
        together = store.projections.status()
        alone = [store.projections.status(each.name)[0] for each in together]
    assert [each.name for each in together] == ["status_of_each_1", "status_of_each_2", "status_of_each_follower"]
    assert list(map(at_no_time, together)) == list(map(at_no_time, alone))
    assert list(map(at_no_time, store.projections.status(*models))) == list(map(at_no_time, together[:2]))


def at_no_time(status: Any) -> Any:
    """The status without what changes from one moment to the next."""
    return msgspec.structs.replace(status, seconds=0.0)


def test_a_read_model_whose_class_is_away_does_not_hide_the_others(tmp_path: Path) -> None:
    """Its status says why; the status of it alone raises the error."""
    path = str(tmp_path / "flights.db")
    here, there = read_model("status_here"), read_model("status_there", target=f"sqlite:{tmp_path / 'rows.db'}")
    with ef.Store(path) as store:
        store.append(Departed("c-1", 1, 1))
        store.project(here, there)
        assert [each.state for each in store.projections.status()] == ["idle", "idle"]
    with ef.Store(path) as store:
        assert [each.state for each in store.projections.status()] == ["idle", "away"]
        with pytest.raises(InvalidProjection):
            store.projections.status("status_there")
