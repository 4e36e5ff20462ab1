"""A shop of django-oscar is moved to events and back under load: through its own views, and `kill -9` of the capture.

Its people buy, pack and write notes while changes begin to be recorded, rows are loaded, and changes are captured; the
cutover of its orders refuses them in the middle of a checkout. Then events lead, and it goes back; at last every table
is cut over and rolled back. After each way rows and events are equal, oscar shows every order, and writes on.

Knows: the tutorial of the tests, oscar's views. Does not know: how tables become events.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from uuid import uuid4

import psycopg

from soak.rounds import Round
from tests.migrate.applications import HERE, environment
from tests.migrate.test_oscar import PATIENCE_S, Tutorial

ORDERS, PEOPLE = 60, 2
SHOPPING_S = 15.0  # how long people use the shop before each step


def oscar(turn: Round) -> None:
    """Move the shop to events and back once."""
    name = f"oscar_{uuid4().hex[:10]}"
    with psycopg.connect(turn.server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    address = psycopg.conninfo.conninfo_to_dict(turn.server)
    url = f"postgresql://{address['user']}:{address.get('password', '')}@{address['host']}:{address['port']}/{name}"
    _Move(turn, Tutorial(turn.folder, ORDERS, url)).run()
    turn.count("moves there and back")


class _Move:
    """One move of a shop. People are processes of oscar, which end when a write is refused."""

    def __init__(self, turn: Round, tutorial: Tutorial) -> None:
        self._turn, self._tutorial, self._seed = turn, tutorial, turn.dice.randrange(10_000)

    def run(self) -> None:
        """Go there and back, twice: with the orders, then with everything."""
        tutorial = self._tutorial
        found = json.loads(tutorial.eventfold("migrate", "inspect"))["open"]
        keeps = [word for each in found for word in ("--keep", each.removeprefix("the column "))]
        tutorial.eventfold("migrate", "inspect", *keeps)  # all of them: a dropped column cannot be written back
        people = self._people()
        try:
            time.sleep(SHOPPING_S / 3)
            tutorial.eventfold("migrate", "capture", "events.db", "--install")
            time.sleep(SHOPPING_S / 3)
            tutorial.eventfold("migrate", "load", "events.db")
            self._capture_and_kill()
            self._compare("while people buy")
            cutover = ("migrate", "cutover", "events.db", "--only", "order_order")
            tutorial.eventfold(*cutover)
        finally:
            refused = self._end(people)
        if refused < PEOPLE:
            self._turn.findings.add(f"{PEOPLE - refused} of {PEOPLE} people were not refused by the block")
        self._lead()
        tutorial.eventfold("migrate", "rollback", "events.db")
        self._write_on("after the rollback of orders")
        tutorial.eventfold("migrate", "cutover", "events.db")
        tutorial.eventfold("migrate", "capture", "events.db", "--once")
        tutorial.eventfold("migrate", "rollback", "events.db")
        self._write_on("after the rollback of everything")

    def _people(self) -> list[subprocess.Popen[str]]:
        self._seed += PEOPLE
        return [
            subprocess.Popen(
                [
                    str(environment()),
                    str(HERE / "use_oscar.py"),
                    self._tutorial.address,
                    "until",
                    str(self._seed + number),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
            for number in range(PEOPLE)
        ]

    def _end(self, people: list[subprocess.Popen[str]]) -> int:
        """Wait until each was refused. Returns how many were."""
        refused = 0
        for each in people:
            try:
                shown, _ = each.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                each.kill()
                shown, _ = each.communicate()
            last = shown.strip().splitlines()[-1] if shown.strip() else ""
            if "is written by events since its cutover" in shown and last.startswith("bought "):
                refused += 1
                self._turn.count("orders under load", int(last.split()[1]))
            else:
                self._turn.findings.add(f"people ended with {shown[-1_000:]}")
        return refused

    def _capture_and_kill(self) -> None:
        """Capture as a service does, and kill it some times."""
        for _ in range(self._turn.dice.randint(1, 3)):
            running = subprocess.Popen(
                [sys.executable, "-m", "eventfold", "migrate", "capture", "events.db"],
                cwd=self._tutorial.folder,
                env=os.environ | {"EVENTFOLD_SOURCE": self._tutorial.address},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(self._turn.dice.uniform(1.0, SHOPPING_S / 2))
            running.send_signal(signal.SIGKILL)
            running.wait(PATIENCE_S)
            self._turn.count("kills")

    def _lead(self) -> None:
        """Decide, and see that oscar shows what was decided."""
        tutorial = self._tutorial
        for number in range(1, 21):
            data = json.dumps({"id": number, "status": "Shipped"})
            tutorial.eventfold("append", "events.db", "OrderShipped", "--tag", f"order:{number}", "-d", data)
        tutorial.eventfold("migrate", "capture", "events.db", "--once")
        if tutorial.use("status", 200_000) != "Shipped":
            self._turn.findings.add("an order that was shipped by an event is not shipped in oscar")
        self._compare("while events lead")

    def _write_on(self, when: str) -> None:
        tutorial = self._tutorial
        number = tutorial.use("work", self._seed, 4)
        tutorial.eventfold("migrate", "capture", "events.db", "--once")
        self._compare(when)
        if tutorial.use("status", number) != "Packed" or int(tutorial.use("check")) < ORDERS + 4:
            self._turn.findings.add(f"{when} oscar does not show what it wrote")

    def _compare(self, when: str) -> None:
        found = json.loads(self._tutorial.eventfold("migrate", "compare", "events.db"))
        self._turn.count("rows compared", found["rows"])
        if found["differing"]:
            self._turn.findings.add(f"rows and events differ {when}: {found}"[:2_000])
