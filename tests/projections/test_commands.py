"""The output of `eventfold projections …` and `eventfold run`: in 80 columns, on both engines."""

from __future__ import annotations

import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.engines.addresses import without_secrets
from tests.cli.commands import on_terminal, plain, run, started
from tests.projections.flights import flights

MODULE = """
import os, time
import eventfold as ef
from tests.projections import flights as given

class Plain(given.CarrierMonth, name="plain"):
    def evolve(self, event: given.Departed | given.Cancelled) -> None:
        time.sleep(float(os.environ.get("PACE", 0)))
        super().evolve(event)

class Apart(ef.Projection, name="apart", on_error="park", attempts=1):
    carrier: str
    flights: int = 0
    def evolve(self, event: given.Departed) -> None:
        if event.delay == 5:
            raise ValueError("five")
        self.flights += 1

class Stops(Apart, name="stops", on_error="stop", attempts=1):
    pass
"""


class Shell:
    """A store and a terminal."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder / "air_models.py").write_text(MODULE)

    @property
    def shown(self) -> str:
        """The address as commands of messages name it."""
        return shlex.quote(without_secrets(self.url))

    def __call__(self, *words: str, code: int = 0, group: str = "projections", **env: str) -> str:
        """Return what a command prints; check that it is never wider than the terminal."""
        command = [group, *words[:1], self.url, *words[1:]] if group else [words[0], self.url, *words[1:]]
        ended, shown = on_terminal(*command, folder=self.folder, **env)
        text = plain(shown)
        assert ended == code, text
        assert max(map(len, text.splitlines()), default=0) <= 80, text
        return " ".join(text.split())


@pytest.fixture
def tmp_path(disk_path: Path) -> Path:
    """A folder on disk."""
    return disk_path


@pytest.fixture
def shell(shared_url: str, tmp_path: Path) -> Shell:
    """Return a store of 200 flights, without projections yet."""
    with ef.Store(shared_url) as store:
        store.extend(flights(200), batch=5)
    return Shell(tmp_path, shared_url)


def test_every_command_reports_what_it_did_in_eighty_columns(shell: Shell) -> None:
    """From the first run to the last rollback, each command prints its sentence."""
    models = ("air_models:Plain", "air_models:Apart", "air_models:Stops")
    output = shell("run", *models, "--once", code=1, group="")
    assert "stops stopped at event 16 (Departed), in evolve, after 1 attempt: ValueError: five." in output
    assert f"eventfold projections skip {shell.shown} stops 16 --because" in output
    assert "plain rows 1 air_models:Plain" in shell("list")
    output = shell("status")
    assert "name state position behind seconds events/s trend parked" in output
    assert "apart: Parked: " in output
    assert "since event 16 (Departed): ValueError: five; other keys are current. Fix the handler, then" in output
    assert f"retry: eventfold projections retry {shell.shown} apart. Slowest handler: evolve," in output
    assert "stops: Stopped at event 16 (Departed) in evolve after 1 attempt: ValueError: five." in output
    output = shell("status", "plain")
    assert "level 0 plain: Current; no runner is working on it. Slowest handler: evolve," in output
    assert "handled_digest" in shell("show", "plain")
    assert "All rows are equal. The old generation is still live." in shell("rebuild", "plain")
    assert "generation 2: " in shell("compare", "plain")
    assert "plain was switched: generation 2 is live now. To go back:" in shell("switch", "plain")
    output = shell("rollback", "plain")
    assert "plain was rolled back: generation 1 is live again, at position" in output
    output = shell("rebuild", "plain", "--at", "50")
    assert "at position 50 " in output
    assert f"To drop it: eventfold projections discard {shell.shown} plain --generation 3" in output
    shell("compare", "plain", "--generation", "3", code=1)
    assert "has no generation 9: it has 1, 2, 3." in shell("compare", "plain", "--generation", "9", code=1)
    assert "plain has one generation fewer." in shell("discard", "plain", "--generation", "3")
    assert "plain is paused: too late." in shell("pause", "plain", "--because", "too late")
    assert "plain: Paused: too late." in shell("status", "plain")
    assert "plain is resumed." in shell("resume", "plain")
    output = shell("parked", "apart")
    assert "16 Departed" in output
    assert "later events of these keys only wait for these; --all lists them." in output
    assert "waits for an earlier event of" in shell("parked", "apart", "--all")
    assert "due: its runner retries" in shell("retry", "apart", "16")
    assert "stops skips event 16: five." in shell("skip", "stops", "16", "--because", "five")
    assert "plain continues from its position" in shell("accept", "plain")
    assert "stops is removed; it was at position" in shell("remove", "stops")
    assert "events, each exactly once" in shell("verify", group="")


def test_an_interrupted_rebuild_is_continued(shell: Shell) -> None:
    """Ctrl-C in the middle: finished work is kept, the next rebuild continues there, and no row differs."""
    shell("run", "air_models:Plain", "--once", group="")
    before = ["projections", "rebuild", shell.url, "plain"]
    code, shown = on_terminal(*before, folder=shell.folder, interrupt_after="events/s", PACE="0.05")
    assert code == 130, shown
    with ef.Store(shell.url) as store:
        (left,) = [each for each in store.projections.checkpoints("plain") if each.place.generation == 2]
    assert 0 < left.position < 200
    assert left.holder == ""
    assert "generation 2: " in shell("rebuild", "plain")
    with ef.Store(shell.url) as store:
        (done,) = [each for each in store.projections.checkpoints("plain") if each.place.generation == 2]
    assert done.seen.count == 200
    assert done.token > left.token


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_runner_asked_to_end_finishes_its_page(shell: Shell, number: signal.Signals) -> None:
    """It exits with 0, releases the lease at once, and has logged the failures while it ran."""
    codes = ["air_models:Plain", "air_models:Apart", "air_models:Stops"]
    with started("run", shell.url, *codes, folder=shell.folder) as running:
        with ef.Store(shell.url) as store:
            ends = time.monotonic() + 60
            while not _through(store):
                assert time.monotonic() < ends
                time.sleep(0.05)
        running.send(number)
        code, _, output = running.end()
    assert code == 0
    assert "stops stopped at event 16 (Departed), in evolve, after 1 attempt: ValueError: five." in output
    assert "apart parked event 16 (Departed) of" in output
    with ef.Store(shell.url) as store:
        assert not [each.holder for each in store.projections.status() if each.holder]


def test_a_runner_of_changed_code_waits_for_the_switch_and_goes_on(shell: Shell) -> None:
    """It starts before the switch, writes nothing into the rows of the old code, and then updates its own."""
    shell("run", "air_models:Plain", "--once", group="")
    module = shell.folder / "air_models.py"
    module.write_text(
        module.read_text().replace("super().evolve(event)", "super().evolve(event)\n        self.cancelled += 0")
    )
    shell("rebuild", "plain")
    with started("run", shell.url, "air_models:Plain", "--wait-for-switch", folder=shell.folder) as running:
        assert running._process.stderr is not None
        assert select.select([running._process.stderr], [], [], 60)[0], "it does not say that it waits"
        with ef.Store(shell.url) as store:
            head = store.extend(flights(20, 200)) + 200
        assert positions(shell) == {"plain": 200}
        shell("switch", "plain")
        with ef.Store(shell.url) as store:
            head += store.extend(flights(20, 220))
            assert store.wait("plain", head, timeout=60) >= head
        running.send(signal.SIGTERM)
        code, _, output = running.end()
    assert code == 0 and "plain waits until the rows are of its code: The code of plain has changed" in output
    assert "plain works again." in output


def test_a_changed_read_model_is_left_out_and_the_others_run(shell: Shell) -> None:
    """The runner names it, with what to do; it goes on until it is stopped, and its exit code says that one failed."""
    models = ("air_models:Plain", "air_models:Apart")
    shell("run", *models, "--once", group="")
    module = shell.folder / "air_models.py"
    module.write_text(module.read_text().replace("event.delay == 5", "event.delay == 6"))
    with ef.Store(shell.url) as store:
        head = store.extend(flights(20, 200)) + 200
    output = shell("run", *models, "--once", code=1, group="")
    assert "The code of apart has changed" in output and "eventfold projections rebuild" in output
    assert positions(shell) == {"plain": head, "apart": 200}
    with ef.Store(shell.url) as store:
        store.extend(flights(20, 220))
        with started("run", shell.url, *models, folder=shell.folder) as running:
            store.wait("plain", timeout=60)
            running.send(signal.SIGTERM)
            code, _, output = running.end()
        assert code == 1
        assert "apart is not run, the others are: The code of apart has changed" in output
        assert "Then start this runner again." in output
        assert positions(shell) == {"plain": head + 20, "apart": 200}
    with started("run", shell.url, "air_models:Apart", folder=shell.folder) as running:
        code, _, output = running.end()  # nothing is left to run
    assert code == 1 and "The code of apart has changed" in output
    shell("rebuild", "apart", "--switch")
    shell("run", *models, "--once", group="")
    found = positions(shell)  # the rebuild and the switch are events, too
    assert found["plain"] == found["apart"] > head + 20


def positions(shell: Shell) -> dict[str, int]:
    """Return the positions of the read models."""
    with ef.Store(shell.url) as store:
        return {each.name: each.position for each in store.projections.status()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_runner_at_once(shell: Shell, number: signal.Signals) -> None:
    """The first signal waits for the current handler (endless here), the second does not: 128 + its number."""
    (shell.folder / "endless.py").write_text(
        "import time\nimport eventfold as ef\nfrom tests.projections.flights import Departed\n\n"
        "class Endless(ef.Projection):\n    carrier: str\n"
        "    def evolve(self, event: Departed) -> None:\n        print('begun', flush=True)\n        time.sleep(600)\n"
    )
    with started("run", shell.url, "endless:Endless", folder=shell.folder) as running:
        assert running.line() == "begun"
        running.send(number)
        with pytest.raises(subprocess.TimeoutExpired):
            running._process.wait(2)
        running.send(number)
        assert running.end()[0] == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_runner_asked_to_end_while_it_starts_ends_in_order(shell: Shell, number: signal.Signals) -> None:
    """From the import of its module on, a signal is a request to stop, and the exit code is 0."""
    (shell.folder / "slow.py").write_text(
        "import time\nimport eventfold as ef\nfrom tests.projections.flights import Departed\n"
        "print('imported', flush=True)\ntime.sleep(0.5)\n\n"
        "class Slow(ef.Projection):\n    carrier: str\n    def evolve(self, event: Departed) -> None: ...\n"
    )
    with started("run", shell.url, "slow:Slow", folder=shell.folder) as running:
        assert running.line() == "imported"
        running.send(number)
        assert running.end()[0] == 0


def _through(store: ef.Store) -> bool:
    """Return whether all three have come as far as they can."""
    found = store.projections.status() if len(store.projections.list()) == 3 else []
    return bool(found) and all(each.position >= 200 or each.state == "stopped" for each in found)


def test_a_handler_of_an_unwritten_type_is_warned_of_without_a_source_line(shell: Shell) -> None:
    """The warning names the nearest type; a line of the library's own code would not help."""
    (shell.folder / "slips.py").write_text(
        "import eventfold as ef\n\nclass Depart(ef.Event):\n    carrier: ef.Tag\n\nclass Slip(ef.Projection):\n"
        "    carrier: str\n    def evolve(self, event: Depart) -> None: ...\n"
    )
    output = shell("run", "slips:Slip", "--once", group="")
    assert output == "slip handles Depart, which the log does not have; it has Departed."
    assert "slip: Current; the log has no event that it handles yet." in shell("status", "slip")


def test_a_type_that_was_not_written_yet_is_not_warned_of(shell: Shell) -> None:
    """The log's similar type has a class of its own, so the handler's type is not that one under another name."""
    (shell.folder / "soon.py").write_text(
        "import eventfold as ef\n\nclass Departed(ef.Event):\n    carrier: ef.Tag\n\n"
        "class Depart(ef.Event):\n    carrier: ef.Tag\n\nclass Soon(ef.Projection):\n"
        "    carrier: str\n    def evolve(self, event: Depart) -> None: ...\n"
    )
    assert "which the log does not have" not in shell("run", "soon:Soon", "--once", group="")


def test_output_to_a_pipe_is_json_lines(shell: Shell) -> None:
    """With output to a pipe every command prints JSON lines."""
    with ef.Store(shell.url) as store, store.follow(ef.Query.of(types="Departed"), name="billing") as follower:
        next(iter(follower))
    assert run("projections", "pause", shell.url, "billing", "--because", "so").lines == [
        {"name": "billing", "done": "paused"}
    ]
    (facts,) = run("projections", "status", shell.url).lines
    assert {"trend", "rate", "slowest", "micros", "seconds", "behind", "sentence"} <= facts.keys()
