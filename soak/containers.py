"""Containers with one host name, each with processes numbered from 1, share a store: leases and effects.

Knows: namespaces. Does not know: how a holder of a lease is named.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import eventfold as ef
from eventfold.processes import effect
from soak import children, machine
from soak.check import check
from soak.clients import Place
from soak.facts import Fragile, Greeting, Noted, PerSeat, PerWriter, Seat, letter, take
from soak.history import History, lines
from soak.rounds import Round

HOST = "one-name"
EVENTS = 25
LEASE = 2.0  # seconds
TIMEOUT_S = 40.0
IN_HAND = 2  # events that one container may have begun without saving its progress


@effect(start="beginning", name="soak_errand", first_delay=0.01, max_delay=0.05)
def errand(event: ef.Recorded[Noted]) -> None:
    """Take a few milliseconds, and note the begin and the end, in the history of the container."""
    history = History(Path(os.environ["SOAK_ERRANDS"]), os.environ["SOAK_CONTAINER"])
    history.write("began", event.id.hex, time.monotonic_ns())
    time.sleep(0.004)
    history.write("ended", event.id.hex, time.monotonic_ns())
    history.close()


def sqlite(turn: Round) -> None:
    """Containers share one file."""
    _together(turn, Place(str(turn.folder / "store.db"), turn.folder, ""))


def postgres(turn: Round) -> None:
    """Containers share one database."""
    _together(turn, Place(turn.schema(), turn.folder, ""))


def _together(turn: Round, place: Place) -> None:
    """Run the same effect in several containers. In some rounds one is killed, or stopped for longer than a lease."""
    os.environ["SOAK_ERRANDS"] = str(turn.folder)
    with place.open() as store:
        store.run_until_idle(errand, PerWriter, PerSeat, Fragile, Greeting, letter)
    fate = ("none", "none", "killed", "stopped")[turn.index % 4]
    boxes = {
        name: children.fork(turn.folder, _box, place, name, number, name="container")
        for number, name in enumerate(("left", "right", "third")[: turn.dice.choice((2, 2, 3))])
    }
    turn.count("containers", len(boxes))
    _append(turn, place, EVENTS // 2)
    befallen = _befall(turn, fate, boxes)
    _append(turn, place, EVENTS - EVENTS // 2)
    _await_errands(turn, place)
    children.kill(boxes.values())
    turn.count("rounds of containers")
    with place.open() as store:
        ids = [recorded.id.hex for recorded in store.read(ef.Query.of(types=[Noted]))]
    _judge(turn, ids, befallen)
    turn.count("events", len(check(place, turn.findings)))


def _box(place: Place, name: str, number: int) -> None:
    def runner() -> None:
        os.environ["SOAK_CONTAINER"] = f"errand-{name}"
        with place.open() as store:
            store.projections.catalog.lease = LEASE  # the default is longer than a round
            with store.run(errand, PerWriter):
                threading.Event().wait()

    def first() -> None:
        for _ in range(number * 3):  # so that the runner's number differs from those in the other containers
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        os.waitpid(children.fork(place.folder, runner, name="runner"), 0)

    machine.container(HOST, first)


def _append(turn: Round, place: Place, count: int) -> None:
    history = History(place.folder, f"w{count}-{turn.dice.getrandbits(20)}")
    with place.open() as store:
        for number in range(count):
            op = f"{turn.dice.getrandbits(40):x}.{number}"
            history.asked(op, 1)
            receipt = store.append(Noted("w", op, 0, 1))
            history.written(op, receipt.epoch, receipt.first, receipt.event_ids, repeated=receipt.repeated)
            if number % 6 == 0:
                history.asked(f"{op}s", 1)
                receipt = store.decide(take, Seat("s1"), f"{op}s").receipt
                assert receipt is not None
                history.written(f"{op}s", receipt.epoch, receipt.first, receipt.event_ids, repeated=receipt.repeated)
            time.sleep(turn.dice.uniform(0.0, 0.01))


def _befall(turn: Round, fate: str, boxes: dict[str, int]) -> str:
    """Kill the container that is working, or stop it for longer than its lease. Returns its name, or ""."""
    ends = time.monotonic() + TIMEOUT_S
    while not (found := sorted(turn.folder.glob("errand-*.history"), key=lambda path: path.stat().st_mtime_ns)):
        if time.monotonic() > ends:
            turn.findings.add("no container began to work")
            return ""
        time.sleep(0.005)
    if fate == "none":
        return ""
    name = found[-1].stem.removeprefix("errand-")
    runner = boxes[name]
    while inner := Path(f"/proc/{runner}/task/{runner}/children").read_text().split():
        runner = int(inner[0])
    if fate == "killed":
        os.kill(runner, signal.SIGKILL)
        turn.count("kills")
        return name
    os.kill(runner, signal.SIGSTOP)
    time.sleep(LEASE * 1.5)
    os.kill(runner, signal.SIGCONT)
    return name


def _await_errands(turn: Round, place: Place) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends:
        done = {
            words[1] for path in turn.folder.glob("errand-*.history") for words in lines(path) if words[0] == "ended"
        }
        if len(done) >= EVENTS:
            return
        time.sleep(0.02)
    turn.findings.add("the effect was not done for every event")


def _judge(turn: Round, ids: list[str], befallen: str) -> None:
    """Check that each was done at least once, and again only if its container was killed or stopped for too long."""
    began = dict[str, list[tuple[int, str]]]()
    for path in turn.folder.glob("errand-*.history"):
        for words in lines(path):
            if words[0] == "began":
                began.setdefault(words[1], []).append((int(words[2]), path.stem.removeprefix("errand-")))
    missing = [identity for identity in ids if identity not in began]
    if missing:
        turn.findings.add(f"the effect was never done for {len(missing)} events")
    twice = {identity: sorted(runs) for identity, runs in began.items() if len(runs) > 1}
    foreign = [runs for runs in twice.values() if befallen not in {name for _, name in runs}]
    if foreign:
        turn.findings.add(f"an effect was done twice, by holders that lived on: {foreign[:2]}")
    if len(twice) > IN_HAND:
        turn.findings.add(f"the effect was done twice for {len(twice)} events")
    turn.count("repeated effects", len(twice))
