"""Help: it fits the terminal, its examples run, and the reference page says the same."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from eventfold.cli.command import EXAMPLES, examples_of
from tests.cli.commands import APPS, PATIENCE, environment, plain, run, started, too_wide
from tests.cli.reference import PAGE, commands, rewritten
from tests.cli.stores import bank_file

NAMES = [path.split()[1:] for path, _ in commands()]


@pytest.mark.parametrize("words", [[], ["demo"], *NAMES], ids=" ".join)
def test_help_fits_eighty_columns(words: list[str]) -> None:
    """Each command's help, and that of the whole."""
    ran = run(*words, "--help", TERM="dumb")
    assert ran.code == 0
    assert not too_wide(ran.out)
    assert "Usage: eventfold" in ran.out


WITH_EXAMPLES = [words for words in NAMES if len(words) == 1 or words[0] in ("demo", "migrate")]


@pytest.mark.parametrize("words", WITH_EXAMPLES, ids=" ".join)
def test_each_command_has_examples_in_its_help(words: list[str]) -> None:
    """In full, one in a line, to be typed as they stand."""
    shown = plain(run(*words, "--help").out)
    examples = examples_of(" ".join(words))
    assert examples
    for _, line in examples:
        assert f"     {line}" in shown
        assert len(line) <= 75


def test_no_example_is_left_over() -> None:
    """Every example belongs to a command."""
    assert set(EXAMPLES) <= {words[-1] for words in NAMES} | {" ".join(words) for words in NAMES}


# Examples that take minutes, a network or a cluster: tests/demo and tests/engines/jetstream run them.
ELSEWHERE = {"exchange", "flights", "shop", "fetch", "cluster", "snapshot"}
LINES = [pytest.param(line, id=line) for name, each in EXAMPLES.items() if name not in ELSEWHERE for _, line in each]


# The steps of a migration that come before a command, in their order.
STEPS = (
    "migrate inspect shop.db --keep customer.email",
    "migrate capture events.db shop.db --install",
    "migrate load events.db shop.db",
)


def prepare_migration(line: str, folder: Path) -> None:
    """Take the steps of a migration that come before a line."""
    command = line.split()[2]
    before = {"inspect": 0, "load": 2, "capture": 1 if "--install" in line else 3}.get(command, len(STEPS))
    steps = [*STEPS[:before]]
    if command == "rollback":
        steps.append("migrate cutover events.db shop.db" + " --only orders" * ("--only orders" in line))
    with contextlib.chdir(folder):
        for step in steps:
            ran = run(*step.split())
            assert ran.code == 0, ran.err


@pytest.mark.parametrize("line", LINES)
def test_every_example_runs(line: str, tmp_path: Path) -> None:
    """In a shell, in a folder with a small bank in it and its State; an endless one until Ctrl-C."""
    bank_file(tmp_path)
    for each in ("bank.py", "paid.csv"):
        shutil.copy(APPS / each, tmp_path)
    if line.startswith("eventfold migrate"):
        with contextlib.closing(apsw.Connection(str(tmp_path / "shop.db"))) as shop:
            shop.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, email TEXT NOT NULL)")
            shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT NOT NULL)")
    if line.startswith("eventfold migrate"):
        prepare_migration(line, tmp_path)
    endless = line.startswith(("eventfold tail", "eventfold serve", "eventfold dev")) or "--watch" in line
    if endless and not {"--once", "--print-config"} & {*line.split()}:
        with started(*line.split()[1:], folder=tmp_path) as running:
            assert running.line()
            running.send(signal.SIGINT)
            assert running.end()[0] == (130 if "tail" in line else 0)
        return
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", re.sub(r"(^|\| |\$\()eventfold ", rf"\1{sys.executable} -m eventfold ", line)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "line", [line for name in ("exchange", "flights") for _, line in EXAMPLES[name] if "--limit" in line]
)
def test_the_demo_runs_from_the_command_line(line: str, tmp_path: Path) -> None:
    """Its short example, whose store can be read afterwards."""
    words = [word if word != "2000" else "200" for word in line.split()[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "eventfold", *words], cwd=tmp_path, capture_output=True, timeout=120, env=environment()
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(run("read", str(tmp_path / "first.db"), "--count").out) > 200


def test_the_reference_page_is_what_the_commands_say() -> None:
    """After a change: python -m tests.cli.reference."""
    page = PAGE.read_text("utf-8")
    assert rewritten(page) == page, "update it: python -m tests.cli.reference"


def test_the_reference_page_names_every_option() -> None:
    """No option is hidden."""
    page = PAGE.read_text("utf-8")
    for path, command in commands():
        for each in command.params:
            for spelling in (*each.opts, *each.secondary_opts):
                if each.param_type_name == "option" and each.name != "help":
                    assert f"`{spelling.strip()}" in page, f"{path} {spelling}"


def test_completion_offers_what_the_store_has(tmp_path: Path) -> None:
    """After --type its types, after --tag its tags; a store that is not there is neither made nor complained about."""
    bank_file(tmp_path)

    def offered(line: str) -> list[str]:
        wanted = {
            "_EVENTFOLD_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_TYPER_COMPLETE_ARGS": line,
        }
        done = subprocess.run(
            [sys.executable, "-m", "eventfold"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment(wanted),
            timeout=PATIENCE,
        )
        assert done.stderr == ""
        return [each.split("\t")[0] for each in done.stdout.split()]

    assert offered("eventfold read bank.db --type ") == ["Closed", "Deposited", "Opened", "Withdrawn"]
    assert offered("eventfold read bank.db --tag account:") == ["account:a-1", "account:a-2"]
    assert offered("eventfold read none.db --tag ") == []
    assert not (tmp_path / "none.db").exists()
