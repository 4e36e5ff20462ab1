"""How commands end: exit codes, words instead of tracebacks, pipes that break, and how quickly one begins."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventfold import errors
from eventfold.cli.exit_codes import EXIT_CODE_MEANINGS, exit_code_of
from eventfold.store import Store
from tests.cli.commands import COMMAND, PATIENCE, environment, process, run, started


def every_error() -> list[type[errors.EventfoldError]]:
    """Every class of the tree."""
    found = [errors.EventfoldError]
    for each in found:
        found.extend(each.__subclasses__())
    return [each for each in found if each.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_ends_with_a_documented_code(kind: type[errors.EventfoldError]) -> None:
    """No error of the library is without a code, and no code without its line in the table."""
    assert exit_code_of(kind("It failed.", "Fix it.")) in dict(EXIT_CODE_MEANINGS)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidQuery, 2),
        (errors.InvalidUrl, 2),
        (errors.AppendConflict, 3),
        (errors.EventIdReused, 3),
        (errors.StoreNotFound, 4),
        (errors.NotAStore, 4),
        (errors.StoreBusy, 5),
        (errors.StoreDamaged, 5),
        (errors.AppendUnconfirmed, 6),
        (errors.CursorMismatch, 7),
        (errors.CorruptEvent, 1),
        (errors.MissingExtra, 1),
    ],
)
def test_what_scripts_must_tell_apart_has_its_own_code(kind: type[errors.EventfoldError], code: int) -> None:
    """Refused input, conflicts, nothing there, not now, unconfirmed, a foreign cursor."""
    assert exit_code_of(kind("It failed.", "Fix it.")) == code


def test_an_error_is_two_sentences_or_one_object(tmp_path: Path) -> None:
    """Text by default, in a pipe too; with --json an object with a stable code and the facts."""
    (tmp_path / "note.txt").write_text("just a note, long enough to be read as something else than a store" * 20)
    ran = run("read", str(tmp_path / "note.txt"))
    assert ran.code == 4 and ran.out == ""
    assert len(ran.err.splitlines()) == 2
    error = run("read", str(tmp_path / "note.txt"), "--json").error
    assert error["error"] == "not-a-store" and {"what", "remedy"} <= set(error)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["read", "nonsense://x"], 2),
        (["read", "."], 4),
        (["read", "bank.db", "--since", "soon"], 2),
        (["read", "bank.db", "--where", "x"], 2),
        (["read", "bank.db", "--limit", "-1"], 2),
        (["read", "bank.db", "--nonsense"], 2),
        (["tags", "bank.db", "a", "b"], 2),
        (["nonsense"], 2),
        (["init", "nowhere/at/all/bank.db"], 4),
        (["cursor", "bank.db", "efc1_xx"], 7),
        (["cursor", "bank.db", "99"], 2),
        (["state", "bank.db"], 2),
        (["history", "bank.db", "--tag", "x\x07"], 2),
        (["backup", "bank.db", "bank.db"], 2),
    ],
)
def test_no_mistake_of_a_user_makes_a_traceback(bank: str, tmp_path: Path, words: list[str], code: int) -> None:
    """From a process of its own, as anyone would run it."""
    ran = process(*words, folder=tmp_path)
    assert ran.code == code, ran.err
    assert ran.err and "Traceback" not in ran.err


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """`eventfold read many.db | head -n 1` ends with 0, and says nothing."""
    url = str(tmp_path / "many.db")
    assert run("append", url, "--create", input="\n".join(['{"type":"Counted"}'] * 5000)).code == 0
    for flags in ("--json", "--table"):
        line = f"{' '.join(COMMAND)} read {url} {flags} | head -n 1"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=environment(), timeout=PATIENCE
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_reported(bank: str) -> None:
    """What could not be written is not passed over in silence."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "read", bank],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr and "Traceback" not in done.stderr


def test_an_import_is_interrupted_cleanly(tmp_path: Path) -> None:
    """Ctrl-C while lines are awaited: 130, and what was written stays."""
    url = str(tmp_path / "some.db")
    running = subprocess.Popen(
        [*COMMAND, "append", url, "--create", "--batch", "1", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write('{"type":"A"}\n')
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["last"] == 1
        for _ in range(20):  # an interrupt that meets a destructor is lost in Python itself; people press again
            running.send_signal(signal.SIGINT)
            try:
                running.wait(1)
                break
            except subprocess.TimeoutExpired:
                continue
        _, error = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == 130
    assert error == "The first 1 event of the input is in the log.\n"
    assert run("read", url, "--count").out == "1\n"


def test_a_store_that_may_only_be_read_can_be_read(bank: str, tmp_path: Path) -> None:
    """And appending to it is refused with code 5, or allowed to who may do anything."""
    path = Path(bank)
    path.chmod(0o444)
    assert len(run("read", bank).lines) == 6
    ran = run("append", bank, "Noted")
    assert ran.code == (0 if os.geteuid() == 0 else 5)


BLOCKED = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusal())
sys.argv = ["eventfold", *{words!r}]
from eventfold.cli import main
main()
"""


@pytest.mark.parametrize(
    ("blocked", "words", "extra"),
    [
        (["typer"], ["read", "memory:"], "eventfold[cli]"),
        (["duckdb"], ["demo", "flights", "--limit", "3"], "eventfold[demo]"),
        (["psycopg"], ["read", "postgresql://unknown@127.0.0.1:1/none"], "eventfold[postgres]"),
    ],
)
def test_a_missing_extra_is_named(blocked: list[str], words: list[str], extra: str, tmp_path: Path) -> None:
    """Two sentences, the second of which can be typed."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked, words=words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "pip install" in done.stderr and extra in done.stderr
    assert len(done.stderr.splitlines()) == 2


def spent(command: Sequence[str], folder: Path) -> float:
    """The seconds of processor time that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_version_is_printed_quickly_and_alone(tmp_path: Path) -> None:
    """Neither engine nor demo nor terminal library is imported for it; under 200 ms of processor time, at best.

    On a machine on which Python alone takes more than 10 ms to start, under twenty times as long as that.
    """
    ran = process("--version", folder=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("eventfold ") and len(ran.out.splitlines()) == 1
    assert run("--version").out == run("-V").out == ran.out
    best, most, tries = 9.0, 0.2, 15  # a machine that is busy with other things slows every one of them
    while best >= most and tries:
        most = max(0.2, 20 * spent([sys.executable, "-c", "pass"], tmp_path))
        best = min(best, spent([*COMMAND, "--version"], tmp_path))
        tries -= 1
    assert best < most


def test_a_command_imports_only_what_it_needs(bank: str, tmp_path: Path) -> None:
    """Reading a file in a pipe loads neither rich, nor another engine, nor the demo."""
    code = """
import sys
sys.argv = ["eventfold", *sys.argv[1:]]
from eventfold.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "read", bank],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    loaded = set(done.stderr.split())
    assert "eventfold.engines.sqlite" in loaded
    assert not loaded & {"rich", "psycopg", "duckdb", "eventfold.demo", "eventfold.engines.memory", "eventfold.testing"}


def test_two_commands_may_use_one_store_at_once(bank: str, tmp_path: Path) -> None:
    """A tail that looks on does not keep anyone from writing, and a closed store leaves no lock."""
    with started("tail", bank, "--json", "--after", "6", folder=tmp_path) as running:
        with Store(bank) as store:
            assert store.head() == 6
        assert run("append", bank, "Noted").code == 0
        assert json.loads(running.line())["position"] == 7
