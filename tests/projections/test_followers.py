"""Followers by name: their progress is stored, leased by one at a time, and verified."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import msgspec
import pytest

import eventfold as ef
from eventfold.core.tally import Tally, event_hash
from eventfold.errors import (
    CursorMismatch,
    InvalidInput,
    InvalidProjection,
    LeaseHeld,
    LeaseLost,
    ProjectionChanged,
    UnknownProjection,
)
from eventfold.projections.catalog import ProjectionCatalog
from tests.projections.flights import CarrierMonth, Departed, edit, flights

DEPARTED = ef.Query.of(types="Departed")


def proof(store: ef.Store, name: str = "billing") -> tuple[bool, int, int]:
    """Return whether it is proved, how many events it has handled, and its position."""
    (found,) = store.projections.verify(name)
    return found.proved, found.handled, found.position


def taken(follower: ef.Follower, count: int) -> list[int]:
    """Return the positions of the next events, each acknowledged."""
    found: list[int] = []
    for recorded in islice(iter(follower), count):
        found.append(recorded.position)
        follower.acknowledge()
    return found


def test_progress_is_kept_by_name_from_what_was_acknowledged(store: ef.Store) -> None:
    """An acknowledged event does not come again, one that was only returned does; every page can be verified."""
    store.extend(flights(1_500), batch=10)
    wanted = [r.position for r in store.read(DEPARTED)]
    with store.follow(DEPARTED, name="billing") as follower:
        first = next(follower.pages())
        follower.acknowledge()
        next(follower.pages())  # returned, and never acknowledged
    assert proof(store) == (True, len(first), first[-1].position)
    with store.follow(DEPARTED, name="billing", after=1_200) as follower:  # the start counts the first time only
        assert taken(follower, 20) == wanted[len(first) : len(first) + 20]
        rest = next(follower.pages())
        follower.acknowledge(rest[4])
    assert proof(store) == (True, len(first) + 25, wanted[len(first) + 24])
    with store.follow(DEPARTED, name="billing") as follower:
        for page in follower.pages(timeout=0):
            follower.acknowledge()
            if not page:
                break
    proved, handled, position = proof(store)
    assert (proved, handled) == (True, len(wanted))
    assert position == 1_500  # past what it did not ask for


def test_one_at_a_time_follows_a_name(shared_url: str) -> None:
    """A second follower is refused with the name of the holder; once that one ends, the name is free at once."""
    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        store.extend(flights(30))
        with store.follow(name="billing") as follower:
            assert len(taken(follower, 3)) == 3
            with (
                other.follow(name="billing") as second,
                pytest.raises(LeaseHeld, match=f"{os.getpid()}:.* already follows billing"),
            ):
                next(second.pages())
            with pytest.raises(LeaseHeld):
                other.projections.remove("billing")
            (status,) = other.projections.status("billing")
            assert (status.state, status.behind) == ("behind", 27)
        with other.follow(name="billing") as second:
            assert taken(second, 2) == [4, 5]
        (status,) = other.projections.status("billing")
        assert status.sentence.startswith("Not followed since ")
        assert "25 events wait" in status.sentence


def test_a_follower_that_was_away_too_long_is_fenced_off(store: ef.Store) -> None:
    """Its lease expired and another follows: its acknowledgement is refused, and the ledger counts each event once."""
    store.extend(flights(40))
    admin = store.projections
    stalled = admin.follower_progress("billing", ef.Query(), 0)
    stalled._lease = 0.2  # pyright: ignore[reportPrivateUsage]
    stalled.claim()
    stalled.end()  # no more renewals: the lease was released, but the follower still believes that it has it
    stalled._heartbeat.join()  # type: ignore[union-attr]  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
    events = [r.stored for r in store.read(limit=10)]
    stalled.note(events)
    with store.follow(name="billing") as follower:
        assert taken(follower, 10) == list(range(1, 11))
        with pytest.raises(LeaseLost):
            stalled.acknowledge(store.cursor(10))
        with pytest.raises(LeaseLost):
            stalled.note(events)
        assert taken(follower, 1) == [11]
    assert proof(store) == (True, 11, 11)


def test_a_changed_question_is_refused_until_the_old_progress_is_given_up(store: ef.Store) -> None:
    """Follow the remedy of the message literally: after `remove`, it begins where it is set to."""
    store.extend(flights(20))
    with store.follow(DEPARTED, name="billing") as follower:
        taken(follower, 5)
    changed = store.follow(name="billing")
    with changed, pytest.raises(ProjectionChanged, match=r"eventfold projections remove \S+ billing"):
        next(changed.pages())
    position = store.projections.remove("billing")
    with pytest.raises(UnknownProjection):
        store.projections.status("billing")
    with store.follow(name="billing", after=position) as follower:
        assert taken(follower, 1) == [position + 1]
    acts = [r.event.act for r in store.read(ef.Query.of(types="$projection-acted"))]
    assert acts == ["forget"]


def test_a_name_means_one_thing(store: ef.Store) -> None:
    """Read models and followers cannot share a name; operations on code and rows are refused for a follower."""
    store.extend(flights(20))
    store.project(CarrierMonth)
    with store.follow(name="carrier_month") as wrong, pytest.raises(InvalidInput, match="read model or subscription"):
        next(wrong.pages())
    with store.follow(name="billing") as follower:
        taken(follower, 1)

    class Billing(CarrierMonth, name="billing"):
        def evolve(self, event: Departed) -> None:
            """Ignore the event."""

    with pytest.raises(InvalidProjection, match="name of a follower"):
        store.project(Billing)
    with pytest.raises(InvalidProjection, match="is a follower"):
        store.projections.rebuild("billing")
    with pytest.raises(InvalidInput, match="cannot be the name"):
        store.follow(name="Billing Dept.")
    nameless = store.follow()
    with nameless, pytest.raises(InvalidInput, match="no name"):
        nameless.acknowledge()
    assert [(known.name, known.kind) for known in store.projections.list()] == [
        ("billing", "follower"),
        ("carrier_month", "rows"),
    ]


def test_what_a_follower_missed_or_took_twice_is_named(store: ef.Store) -> None:
    """The ledger is changed by one event; the proof names that event."""
    store.extend(flights(60))
    with store.follow(name="billing") as follower:
        taken(follower, 50)
    target = store.projections.target("billing")
    (held,) = target.checkpoints("billing")
    for position, what in ((42, "was missed"), (7, "was handled twice")):
        (event,) = store.read(after=position - 1, limit=1)
        one = Tally(1, event_hash(position, event.stored.id))
        forged = held.seen - one if "missed" in what else held.seen + one
        edit(
            target,
            held.place,
            seen=forged,
            handled=forged,
        )
        (found,) = store.projections.verify("billing")
        assert not found.proved
        assert found.place == (position - 1, position)
        assert what in found.verdict


def test_a_follower_of_a_restored_log_stops_and_can_begin_again(store: ef.Store) -> None:
    """Its cursor is ahead of the log: refused; after removal it starts where its reader chooses."""
    store.extend(flights(20))
    with store.follow(name="billing") as follower:
        taken(follower, 20)
    target = store.projections.target("billing")
    (held,) = target.checkpoints("billing")
    edit(target, held.place, position=90, event_id="00" * 16)
    again = store.follow(name="billing")
    with again, pytest.raises(CursorMismatch, match="position 90"):
        next(again.pages())
    assert not proof(store)[0]
    assert store.projections.status("billing")[0].state == "stopped"
    store.projections.remove("billing")
    with store.follow(name="billing", after=15) as follower:
        assert taken(follower, 5) == [16, 17, 18, 19, 20]
    assert proof(store)[:2] == (True, 5)


def test_progress_changed_by_hand_meanwhile_disturbs_no_acknowledgement(store: ef.Store) -> None:
    """A checkpoint whose revision was increased meanwhile is read again; nothing is lost."""
    store.extend(flights(20))
    with store.follow(name="billing") as follower:
        taken(follower, 5)
        target = store.projections.target("billing")
        (held,) = target.checkpoints("billing")
        edit(target, held.place, stopped="")
        assert taken(follower, 5) == [6, 7, 8, 9, 10]
    assert proof(store) == (True, 10, 10)


def test_async_followers_keep_their_progress_alike(url: str) -> None:
    """The same names, awaited: acknowledged one by one and by pages, resumed, refused while leased."""

    async def both() -> None:
        async with ef.AsyncStore(url) as store:
            await store.extend(flights(50))
            async with store.follow(name="billing") as follower:
                count = 0
                async for _ in follower:
                    count += 1
                    if count == 10:
                        await follower.acknowledge()
                        break
                second = store.follow(name="billing")
                with pytest.raises(LeaseHeld):
                    await anext(second.pages())
                second.close()
            async with store.follow(name="billing", after=0) as follower:
                page = await anext(follower.pages())
                assert [r.position for r in page] == list(range(11, 51))
                await follower.acknowledge()
            (found,) = await store.projections.verify("billing")
            assert (found.proved, found.handled) == (True, 50)
            nameless = store.follow()
            with pytest.raises(InvalidInput, match="no name"):
                await nameless.acknowledge()
            nameless.close()

    asyncio.run(both())


READER = """
import os, sys
import eventfold as ef
with ef.Store(sys.argv[1]) as store, store.follow(name="billing", raw=True) as follower:
    done = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    for recorded in follower:
        os.write(done, f"{recorded.position}\\n".encode())
        follower.acknowledge()
"""


def test_a_follower_killed_at_any_moment_skips_nothing_and_its_ledger_counts_once(tmp_path: Path) -> None:
    """Killed a dozen times: events come in order, at most the current one twice; the ledger counts each once."""
    url, done = str(tmp_path / "store.db"), tmp_path / "done"
    done.touch()
    chance, root = random.Random(7), Path(__file__).parents[2]
    with ef.Store(url) as store:
        store.extend(flights(2_000), batch=100)
        for _ in range(12):
            reader = subprocess.Popen([sys.executable, "-c", READER, url, str(done)], cwd=root)
            before = len(done.read_bytes())
            ends = time.monotonic() + 60
            while len(done.read_bytes()) == before and time.monotonic() < ends:
                time.sleep(0.01)
            time.sleep(chance.random() * 0.03)
            os.kill(reader.pid, signal.SIGKILL)
            reader.wait()
        positions = [int(line) for line in done.read_text().splitlines()]
        repeated = sum(b == a for a, b in pairwise(positions))
        assert sorted(set(positions)) == list(range(1, max(positions) + 1)) == sorted(positions[:1] + steps(positions))
        assert repeated <= 12
        with store.follow(name="billing") as follower:
            for page in follower.pages(timeout=0):
                if not page:
                    break
                follower.acknowledge()
        assert proof(store) == (True, 2_000, 2_000)


def steps(positions: list[int]) -> list[int]:
    """Return the positions that were handled for the first time, after the first."""
    return [b for a, b in pairwise(positions) if b != a]


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use leases of one second, so that waiting for one is short."""
    init = ProjectionCatalog.__init__
    short = lambda catalog, *given, **named: init(catalog, *given, **named | {"lease": 1.0})  # noqa: E731
    monkeypatch.setattr(ProjectionCatalog, "__init__", short)
    yield


def test_a_lease_outlives_a_slow_reader(store: ef.Store) -> None:
    """A follower that needs longer than the lease for an event keeps it, since its heartbeat renews it."""
    store.extend(flights(5))
    store.projections.catalog.lease = 3.0
    with store.follow(name="billing") as follower:
        next(iter(follower))
        time.sleep(4)
        second = store.follow(name="billing")
        with second, pytest.raises(LeaseHeld):
            next(second.pages())
        follower.acknowledge()
    assert proof(store) == (True, 1, 1)
    assert msgspec.json.decode(store.projections.checkpoints("billing")[0].stats)["micros"] > 1e6
