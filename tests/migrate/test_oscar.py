"""The tutorial with django-oscar is typed as it stands, and its people use the shop between its commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.migrate.applications import HERE, environment, make
from tests.migrate.sources import address_of
from tests.packaging.environments import run as run_program
from tests.support.memory import tmp_path as tmp_path

PAGE = ROOT / "docs" / "tutorial" / "oscar.md"
PATIENCE_S = 90.0
ORDERS = 6


class Tutorial:
    """The page's commands in their order, and the shop. `do` runs those up to one that begins with some words."""

    def __init__(self, folder: Path, orders: int = ORDERS, address: str | None = None) -> None:
        self.folder, self.address = folder, address or address_of("postgresql", folder)
        make("oscar", self.address, orders)
        self._commands = re.findall(r"^\$ eventfold (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)

    def use(self, *words: object) -> str:
        """Let the shop's people do something, through oscar's own views."""
        return run_program([environment(), HERE / "use_oscar.py", self.address, *words], HERE).strip()

    def do(self, beginning: str, *more: str) -> str:
        """Run the page's commands up to the next one that begins so, and return what that one prints."""
        while True:
            line = self._commands.pop(0)
            is_last = line.startswith(beginning)
            shown = self.eventfold(*shlex.split(line), *(more if is_last else ()))
            if is_last:
                return shown

    def eventfold(self, *words: str) -> str:
        """Run a command that must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "eventfold", *words],
            cwd=self.folder,
            env=os.environ | {"EVENTFOLD_SOURCE": self.address},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"eventfold {' '.join(words)}: {done.stdout[-2_000:]}{done.stderr[-4_000:]}"
        return done.stdout

    def decide_columns(self) -> None:
        """Keep every column that the page's own example leaves open."""
        found = json.loads(self.do("migrate inspect"))
        assert found["tables"] == 93 and len(found["open"]) > 40
        taken = {"order_order.guest_email", "auth_user.email", "auth_user.password"}
        names = {each.removeprefix("the column ") for each in found["open"]} - taken
        keeps = [word for name in sorted(names) for word in ("--keep", name)]
        assert not json.loads(self.do("migrate inspect", *keeps))["open"]

    @property
    def is_done(self) -> bool:
        """Whether every command of the page was run."""
        return not self._commands


def test_the_tutorial_is_true(tmp_path: Path) -> None:
    """Orders are moved to events and back while oscar is used; oscar shows every order at the end, and writes on."""
    tutorial = Tutorial(tmp_path)
    tutorial.decide_columns()
    tutorial.do("migrate capture events.db --install")
    tutorial.do("migrate load")
    tutorial.use("work", 1, 2)
    tutorial.do("migrate capture events.db --once")
    assert json.loads(tutorial.do("migrate compare"))["differing"] == 0
    assert "OrderImported" in tutorial.do("history")
    tutorial.do("migrate cutover events.db --only order_order", "--check")
    tutorial.do("migrate cutover events.db --only order_order")
    shown = tutorial.use("refused", 200_000)
    assert "is written by events since its cutover" in shown
    tutorial.do("migrate capture events.db --once")
    state = json.loads(tutorial.do("migrate status"))
    assert state["phase"].startswith("cut over (")
    assert {each["application"] for each in state["refused"]} == {"oscar"}
    assert tutorial.use("status", 200_000) == "Shipped"
    tutorial.do("migrate rollback")
    number = tutorial.use("work", 2, 2)
    tutorial.do("migrate capture events.db --once")
    assert json.loads(tutorial.do("migrate compare"))["differing"] == 0
    assert int(tutorial.use("check")) == ORDERS + 4
    assert tutorial.use("status", number) == "Packed"
    tutorial.do("migrate capture events.db --remove")
    assert tutorial.is_done
