"""Effects, processes and followers go on at their positions in the copy that replaces a store, or do not start."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.errors import LeaseLost, ProgressUnknown, ProjectionStopped, TargetUnavailable
from eventfold.ports.target import CheckpointChanged
from eventfold.processes import Process, after, effect
from tests.cli.commands import run as run_command
from tests.support.servers.postgres import shared


class Ordered(ef.Event, type="moved-ordered"):
    """An order that a mail is sent about."""

    order: ef.Tag


class Reminded(ef.Event, type="moved-reminded"):
    """A timer's event."""

    order: ef.Tag


SENT: list[str] = []
BAD: set[str] = set()
HOLD = threading.Event()  # cleared: mails of orders that begin with "slow" wait
BEGUN = threading.Event()


@effect(start="beginning", name="moved_mail", attempts=1, partitions=2)
def mail(event: Ordered) -> None:
    """Send a mail, which the tests count."""
    if event.order in BAD:
        raise ConnectionError("out of reach")
    if event.order.startswith("slow"):
        BEGUN.set()
        assert HOLD.wait(100)
    SENT.append(event.order)


@effect(start="now", name="moved_late")
def late(event: Ordered) -> None:
    """Send another mail, by an effect that started later."""
    SENT.append(f"late {event.order}")


class Reminding(Process, name="moved_reminding", start="beginning"):
    """Sends a reminder a year later."""

    order: ef.Tag
    reminded: int = 0

    def evolve(self, event: Ordered | Reminded) -> None:
        """Count reminders."""
        self.reminded += isinstance(event, Reminded)

    def react(self, event: Ordered | Reminded) -> object:
        """Ask for a reminder, once."""
        if isinstance(event, Ordered):
            return after(days=365, event=Reminded(self.order))
        SENT.append(f"reminded {event.order}")
        return None


class Totals(ef.Projection, name="moved_totals"):
    """A read model, which is built again in the copy."""

    order: str
    count: int = 0

    def evolve(self, event: Ordered) -> None:
        """Add one."""
        self.count += 1


@pytest.fixture(autouse=True)
def _nothing_sent() -> Iterator[None]:
    SENT.clear()
    BAD.clear()
    HOLD.set()
    BEGUN.clear()
    yield
    HOLD.set()


Place = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a function that makes the address of a new store of an engine."""

    def address(engine: str) -> str:
        if engine == "memory":
            return f"memory:{uuid4().hex}"
        if engine == "sqlite":
            return str(tmp_path / f"{uuid4().hex}.db")
        return shared().url(schema=f"s{uuid4().hex[:12]}")

    return address


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.01)


WAYS = [
    ("memory", "sqlite"),
    ("sqlite", "memory"),
    ("sqlite", "sqlite"),
    ("sqlite", "postgres"),
    ("postgres", "sqlite"),
]


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_each_effect_is_done_once_before_and_after(here: str, there: str, place: Place) -> None:
    """Mails, failed mails, processes with timers and followers go on; read models are built again."""
    work = (mail, late, Reminding)
    with ef.Store(place(here)) as source, ef.Store(place(there)) as copy:
        source.run_until_idle(late)
        BAD.add("o-2")
        source.append(Ordered("o-1"))
        source.append(Ordered("o-2"), Ordered("o-3"))
        with source.run(*work, Totals):
            until(lambda: sorted(SENT) == ["late o-1", "late o-2", "late o-3", "o-1", "o-3"])
            for name in ("moved_mail", "moved_late", "moved_reminding", "moved_totals"):
                source.wait(name)
        with source.follow(ef.Query.of(types=[Ordered]), name="billing") as follower:
            given = [recorded.position for _, recorded in zip(range(2), follower, strict=False)]
            follower.acknowledge()
        source.append(Ordered("o-4"))
        copied = source.copy_to(copy, keep_identity=True)
        assert sorted(copied.progress) == ["billing", "moved_late", "moved_mail", "moved_reminding"]
        BAD.clear()
        for name in ("moved_mail", "moved_late", "moved_reminding", "billing"):
            assert all(proof.proved for proof in copy.projections.verify(name)), name
        assert copy.projections.retry("moved_mail") == 1
        year = 366 * 24 * 3600 * 1_000_000
        copy.run_until_idle(*work, Totals, clock=lambda: time.time_ns() // 1000 + year)
        copy.append(Ordered("o-5"))
        copy.run_until_idle(*work, Totals)
        once = [f"{late}o-{n}" for late in ("", "late ") for n in range(1, 6)]
        assert sorted(SENT) == sorted([*once, *(f"reminded o-{n}" for n in range(1, 5))])
        assert sum(row.count for row in copy.rows(Totals)) == 5
        with copy.follow(ef.Query.of(types=[Ordered]), name="billing") as follower:
            rest = [recorded.event.order for _, recorded in zip(range(5 - len(given)), follower, strict=False)]
        assert rest == [f"o-{n}" for n in range(len(given) + 1, 6)]
        for name in ("moved_mail", "moved_late", "moved_reminding", "billing"):
            assert all(proof.proved for proof in copy.projections.verify(name)), name


@pytest.mark.parametrize("here", ["sqlite", "postgres"])
def test_nothing_goes_on_in_the_old_store(here: str, place: Place) -> None:
    """A live runner finishes its current event, whose progress is copied, and does no more; a follower raises."""
    with ef.Store(place(here)) as source, ef.Store(place("sqlite")) as copy:
        source.append(Ordered("slow-1"))
        HOLD.clear()
        with source.run(mail), source.follow(name="billing") as follower:
            next(iter(follower))
            assert BEGUN.wait(60)
            threading.Timer(0.3, HOLD.set).start()
            source.copy_to(copy, keep_identity=True)
            source.append(Ordered("old"))
            with pytest.raises(LeaseLost):
                follower.acknowledge()
            copy.append(Ordered("new"))
            copy.run_until_idle(mail)
            assert SENT == ["slow-1", "new"]
        with pytest.raises(ProjectionStopped, match="paused: the store was copied"):
            source.run_until_idle(mail)
        with pytest.raises(ProjectionStopped, match="paused"):
            next(iter(source.follow(name="billing")))
        assert source.projections.status(mail)[0].state == "paused"
        source.projections.resume(mail)
        source.run_until_idle(mail)
        assert SENT == ["slow-1", "new", "old"]


def test_an_interrupted_copy_takes_progress_along_when_it_goes_on(place: Place) -> None:
    """Half-way the copy starts no effect, since its log has not reached their positions; afterwards they go on."""

    def interrupt(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with ef.Store(place("sqlite")) as source, ef.Store(place("sqlite")) as copy:
        source.extend(Ordered(f"o-{n}") for n in range(1_100))
        source.run_until_idle(late)
        source.append(Ordered("last"))
        source.run_until_idle(late)
        with pytest.raises(KeyboardInterrupt):
            source.copy_to(copy, keep_identity=True, progress=interrupt)
        with pytest.raises(ef.EventfoldError):
            copy.run_until_idle(late)
        source.copy_to(copy, keep_identity=True)
        copy.append(Ordered("new"))
        copy.run_until_idle(late)
        assert SENT == ["late last", "late new"]


@pytest.mark.parametrize("step", ["pause", "lease"])
def test_a_copy_fails_while_effects_cannot_be_paused_in_the_old_store(
    step: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their checkpoints change each time: the copy ends with an error, before it takes over the identity."""
    with ef.Store(place("sqlite")) as source, ef.Store(place("sqlite")) as copy:
        source.append(Ordered("o-1"))
        source.run_until_idle(mail)
        target: Any = source.projections.target(mail)
        real, asked = target.control, list[str]()

        @contextmanager
        def disturbed(name: str) -> Iterator[Any]:
            asked.append(name)
            with real(name) as tx:
                yield tx
                if step == "pause" or len(asked) > 1:
                    raise CheckpointChanged

        monkeypatch.setattr(target, "control", disturbed)
        with pytest.raises(TargetUnavailable, match="Try again"):
            source.copy_to(copy, keep_identity=True)
        assert copy.engine.store_id != source.engine.store_id
        monkeypatch.undo()
        assert source.copy_to(copy, keep_identity=True).progress == ("moved_mail",)
        copy.append(Ordered("o-2"))
        copy.run_until_idle(mail)
        assert SENT == ["o-1", "o-2"]


def test_a_copy_with_an_identity_of_its_own_repeats_no_effect(place: Place) -> None:
    """It has the progress of the time of the copy; the source goes on, and a later copy takes the later progress."""
    with ef.Store(place("sqlite")) as source, ef.Store(place("sqlite")) as copy:
        source.append(Ordered("o-1"))
        source.run_until_idle(mail)
        assert source.copy_to(copy).progress == ("moved_mail",)
        source.append(Ordered("o-2"))
        source.run_until_idle(mail)
        source.copy_to(copy)
        copy.run_until_idle(mail)
        assert SENT == ["o-1", "o-2"]


@pytest.mark.parametrize("engines", [("sqlite", "postgres"), ("postgres", "sqlite"), ("memory", "sqlite")])
def test_progress_goes_along_for_async_stores(engines: tuple[str, str], place: Place) -> None:
    """The same holds for AsyncStore."""
    here, there = map(place, engines)

    async def move() -> None:
        async with ef.AsyncStore(here) as source, ef.AsyncStore(there) as copy:
            await source.append(Ordered("o-1"))
            await source.run_until_idle(mail)
            assert (await source.copy_to(copy, keep_identity=True)).progress == ("moved_mail",)
            await copy.append(Ordered("o-2"))
            await copy.run_until_idle(mail)

    asyncio.run(move())
    assert SENT == ["o-1", "o-2"]


def test_an_effect_whose_progress_is_not_known_does_not_start(place: Place, tmp_path: Path) -> None:
    """Where the progress was not copied it refuses to start, and names the command that sets it; read models run."""
    url = place("sqlite")
    with ef.Store(place("sqlite"), target="memory:") as source, ef.Store(url) as copy:
        source.append(Ordered("o-1"))
        source.run_until_idle(mail, Reminding)
        source.append(Ordered("o-2"))
        source.copy_to(copy, keep_identity=True)
    SENT.clear()
    elsewhere = f"sqlite:{tmp_path}/other.db"
    with ef.Store(url, target=elsewhere) as copy:
        copy.project(Totals)
        for work in (mail, Reminding):
            with pytest.raises(ProgressUnknown, match=r"projections begin .*--at POSITION"):
                copy.run_until_idle(work)
            with pytest.raises(ProgressUnknown):
                copy.run(work)
        with pytest.raises(ProgressUnknown, match=r"after=store\.cursor"):
            next(iter(copy.follow(name="billing")))
        assert SENT == []
        assert copy.projections.begin(mail, 1) == 1
        copy.run_until_idle(mail)
        assert SENT == ["o-2"]
        with copy.follow(name="billing", after=copy.cursor(1)) as follower:
            assert next(iter(follower)).position == 2
        assert all(proof.proved for proof in copy.projections.verify(mail))


def test_a_store_that_was_never_copied_needs_no_begin(place: Place) -> None:
    """Effects begin where their classes say, in a new store and in later epochs of a store that has their progress."""
    url = place("sqlite")
    with ef.Store(url) as store:
        store.append(Ordered("o-1"))
        store.project(Totals)
        store.run_until_idle(Reminding)
    assert run_command("restored", url).code == 0
    with ef.Store(url) as store:
        assert store.engine.epoch == 2
        store.run_until_idle(mail)
        assert SENT == ["o-1"]


def test_a_backup_goes_on_where_the_store_was(place: Place, tmp_path: Path) -> None:
    """A copy of the file contains the progress."""
    with ef.Store(place("sqlite")) as store:
        store.append(Ordered("o-1"))
        store.run_until_idle(mail)
        store.backup(str(tmp_path / "backup.db"))
    with ef.Store(str(tmp_path / "backup.db")) as store:
        store.append(Ordered("o-2"))
        store.run_until_idle(mail)
    assert SENT == ["o-1", "o-2"]


def test_the_commands_copy_and_begin_report_progress(place: Place, tmp_path: Path) -> None:
    """`copy --keep-identity` names what goes on in the copy; `projections begin` sets an effect's position."""
    here, there = place("sqlite"), place("sqlite")
    module = f"moved_{uuid4().hex[:8]}"
    (tmp_path / f"{module}.py").write_text("from tests.log.copying.test_progress import mail\n")
    with ef.Store(here) as source:
        source.append(Ordered("o-1"), Ordered("o-2"))
        source.append(Ordered("o-3"))
        source.run_until_idle(mail)
    done = run_command("copy", here, there, "--keep-identity", "--json")
    assert done.code == 0, done.err
    assert done.lines[0]["progress"] == ["moved_mail"]
    begun = run_command("projections", "begin", there, "moved_mail", "--at", "2", "--import-path", str(tmp_path))
    assert begun.code == 0, begun.err
    SENT.clear()
    with ef.Store(there) as copy:
        assert "begin" in [recorded.event.act for recorded in copy.read(ef.Query.of(tags="$projection:moved_mail"))]
        copy.run_until_idle(mail)
    assert SENT == ["o-3"]
