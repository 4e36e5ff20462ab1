"""One runner for read models, processes and effects; from the application and from the shell."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import InvalidProcess

MODULE = """
import eventfold as ef
from eventfold.processes import effect


class Placed(ef.Event):
    order: ef.Tag
    amount: int


class Confirmed(ef.Event):
    order: ef.Tag


class Orders(ef.Projection):
    order: str
    amount: int = 0
    confirmed: bool = False

    def evolve(self, event: Placed | Confirmed) -> None:
        if isinstance(event, Placed):
            self.amount = event.amount
        else:
            self.confirmed = True


class Confirming(ef.Process, start="beginning"):
    order: ef.Tag
    placed: bool = False

    def evolve(self, event: Placed) -> None:
        self.placed = True

    def react(self, event: Placed) -> Confirmed:
        return Confirmed(self.order)


@effect(start="beginning")
def tell(event: Confirmed) -> None:
    with open("mails.txt", "a") as file:
        file.write(event.order + "\\n")
"""


@pytest.fixture
def tmp_path(disk_path: Path) -> Path:
    """A folder on disk."""
    return disk_path


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that declares a read model, a process and an effect, and a store with an order."""
    (tmp_path / "allthings.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("allthings", None)
    return tmp_path


def test_settling_does_all_there_is_to_do(shop: Path) -> None:
    """What a process writes comes into the read model, and out by the effect, before `run_until_idle` returns."""
    import allthings  # pyright: ignore[reportMissingImports]

    with ef.Store("shop.db") as store:
        store.append(allthings.Placed("o-1", 80))
        store.run_until_idle(allthings.Orders, allthings.Confirming, allthings.tell)
        assert store.rows(allthings.Orders) == [allthings.Orders("o-1", 80, True)]
    assert (shop / "mails.txt").read_text() == "o-1\n"


def test_an_async_store_runs_them_too(shop: Path) -> None:
    """`async with store.run(…)`, or `await store.run(…)` and `stop`."""
    import allthings  # pyright: ignore[reportMissingImports]

    async def main() -> None:
        async with ef.AsyncStore("shop.db") as store:
            async with store.run(allthings.Orders, allthings.Confirming) as running:
                await store.append(allthings.Placed("o-1", 80))
                async with store.follow(ef.Query.of(types=[allthings.Confirmed])) as follower:
                    await anext(aiter(follower))
                await store.wait(allthings.Orders)
                assert running.running and not running.failed
            assert (await store.rows(allthings.Orders))[0].confirmed
            begun = await store.run(allthings.Orders)
            await begun.stop()
            assert await begun.wait(60)

    asyncio.run(asyncio.wait_for(main(), 90))


def test_the_shell_runs_a_whole_module(shop: Path) -> None:
    """`eventfold run STORE MODULE` takes all it declares; `--once` ends when all there is to do now is done."""
    import allthings  # pyright: ignore[reportMissingImports]

    with ef.Store("shop.db") as store:
        store.append(allthings.Placed("o-1", 80))
    command = [sys.executable, "-m", "eventfold", "run", "shop.db", "allthings"]
    subprocess.run([*command, "--once"], cwd=shop, check=True, timeout=60)
    with ef.Store("shop.db") as store:
        assert store.rows(allthings.Orders) == [allthings.Orders("o-1", 80, True)]
        going = subprocess.Popen(command, cwd=shop, stderr=subprocess.PIPE, text=True)
        try:
            store.append(allthings.Placed("o-2", 7))
            ends = time.monotonic() + 90
            while "o-2" not in (shop / "mails.txt").read_text() and time.monotonic() < ends:
                time.sleep(0.05)
            os.kill(going.pid, signal.SIGTERM)
            _, said = going.communicate(timeout=60)
        finally:
            going.kill()
    assert (going.returncode, said) == (0, "")
    assert (shop / "mails.txt").read_text() == "o-1\no-2\n"


def test_arguments_that_cannot_be_run_are_refused(shop: Path) -> None:
    """An empty list, two of one name, and an object that is none of the three."""
    import allthings  # pyright: ignore[reportMissingImports]

    class Clash(ef.Projection, name="confirming"):
        order: str

        def evolve(self, event: allthings.Placed) -> None:
            """Nothing."""

    with ef.Store("memory:") as store:
        with pytest.raises(InvalidProcess, match="nothing to run"):
            store.run()
        with pytest.raises(InvalidProcess, match="Two of the things to run are named confirming"):
            store.run_until_idle(allthings.Confirming, Clash)
    ran = subprocess.run(
        [sys.executable, "-m", "eventfold", "run", "shop.db", "allthings:Placed"],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode != 0
    assert "cannot be run" in ran.stderr
