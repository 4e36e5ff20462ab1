"""Errors at the nth call of the file system: the process survives, and its answers were correct.

Knows: operations that may fail. Does not know: which of them a store uses when.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import apsw

from soak import children, clients
from soak.check import Allowed, check
from soak.clients import Place
from soak.disks import Failing, Layer
from soak.history import History, lines
from soak.rounds import Round

OPERATIONS = ("write", "write", "write", "sync", "sync", "truncate", "read", "read", "open", "size", "lock", "delete")
FAULTS = 8  # in one process


def nth_call(turn: Round) -> None:
    """Plant faults one after the other in one process, and check the store from another one."""
    place = Place(str(turn.folder / "store.db"), turn.folder, f"sqlite:{turn.folder / 'rows.db'}")
    pid = children.fork(turn.folder, _suffer, place, turn.seed, name="suffer")
    if children.wait([pid], 60.0):
        turn.findings.add("the process that met the errors did not end well")
    for words in lines(turn.folder / "faults.history"):
        if words[0] == "fired":
            turn.count("faults", int(words[1]))
    turn.count("events", len(check(place, turn.findings, Allowed(progress=True))))


def _suffer(place: Place, seed: str) -> None:
    dice, failing = random.Random(seed), Failing()
    layer = Layer(failing)
    counts = History(place.folder, "faults")
    stop = time.monotonic() + 50.0
    with place.open_within(5.0) as store:
        history = History(place.folder, "w")
        runner = threading.Thread(target=clients.run, args=(place, 40.0), daemon=True)
        if dice.random() < 0.7:
            runner.start()
        number = 0
        for _ in range(FAULTS):
            operation = dice.choice(OPERATIONS)
            failing.arm(operation, dice.randrange(1, 40), dice.choice((1, 1, 1, 2, 5)), _error(operation, dice))
            turns = 0
            while failing.times and turns < 25 and time.monotonic() < stop:
                number, turns = number + 1, turns + 1
                clients.attempt(store, history, clients.plan(dice, "w", number))
            failing.disarm()
            for _ in range(3):
                number += 1
                clients.attempt(store, history, clients.plan(dice, "w", number))
        counts.write("fired", failing.fired)
    del layer


def _error(operation: str, dice: random.Random) -> Callable[[], Exception]:
    if operation == "open":
        return lambda: apsw.CantOpenError("planted")
    if operation == "write" and dice.random() < 0.3:
        return lambda: apsw.FullError("planted")
    if operation == "lock":
        return lambda: apsw.BusyError("planted")
    return lambda: apsw.IOError("planted")
