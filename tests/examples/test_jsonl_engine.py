"""The engine among the examples is found by its scheme, and what it writes survives crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import (
    AppendUnconfirmed,
    NotAStore,
    NotSupported,
    StoreBusy,
    StoreDamaged,
    StoreNotFound,
    StoreUnavailable,
)
from eventfold.testing.conformance.events import amounts, deposit, deposits

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("site")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log may be created."""
    return tmp_path / "log.jsonl"


def python(program: str, site: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process in which the example is installed."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_append_is_a_line_and_a_torn_one_is_removed(path: Path) -> None:
    """The first line is the store's identity. A last line without its end was never acknowledged."""
    with ef.Store(f"jsonl:{path}") as store:
        store.append(*deposits(2), key="k")
        store.append(deposit(amount=3))
        identity = store.engine.store_id
    whole = path.read_bytes()
    assert len(whole.splitlines()) == 3
    path.write_bytes(whole + b'{"events":[')
    with ef.Store(f"jsonl:{path}", create=False) as store:
        assert (amounts(store.read()), store.engine.store_id) == ([1, 2, 3], identity)
        assert path.read_bytes() == whole
        assert store.append(deposit(), key="k").repeated
        assert store.append(deposit(amount=4)).first == 4
    with ef.Store(f"jsonl:{path}") as store:
        assert amounts(store.read()) == [1, 2, 3, 4]


WRITER = """
import sys
import eventfold as ef
from eventfold.testing.conformance.events import deposit
with ef.Store(sys.argv[1]) as store:
    while True:
        print(store.append(deposit(), deposit()).last, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(path: Path, site: Path) -> None:
    """A process that appends is killed, four times: nothing it acknowledged is lost, and no append is half there."""
    acknowledged = 0
    for pause in (0.0, 0.005, 0.01, 0.02):
        writer = python(WRITER, site, f"jsonl:{path}")
        assert writer.stdout is not None
        acknowledged = int(writer.stdout.readline())
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.communicate(timeout=60)[0].split())])
        with path.open("ab") as file:  # as if the kill had hit a write half way
            file.write(b'{"events":[{"position":')
        with ef.Store(f"jsonl:{path}", create=False) as store:
            head = store.head()
            assert head >= acknowledged
            assert head % 2 == 0
            assert [each.position for each in store.read()] == list(range(1, head + 1))


def test_one_process_has_the_file(path: Path, site: Path) -> None:
    """Another process is refused while it is open, and may open it afterwards."""
    program = "import sys, eventfold as ef\nwith ef.Store(sys.argv[1]) as store: print(store.head())"
    with ef.Store(f"jsonl:{path}") as store:
        store.append(deposit())
        refused = python(program, site, f"jsonl:{path}")
        assert StoreBusy.__name__ in refused.communicate(timeout=60)[1]
        assert refused.returncode == 1
    other = python(program, site, f"jsonl:{path}")
    assert other.communicate(timeout=60) == ("1\n", "")


def test_a_forked_child_does_not_write(path: Path, site: Path) -> None:
    """It inherits the lock of the file, so the engine refuses by itself."""
    program = """
import os, sys
import eventfold as ef
with ef.Store(sys.argv[1]) as store:
    child = os.fork()
    if not child:
        try:
            store.head()
        except ef.EventfoldError as error:
            print(error.code, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(store.head())
"""
    assert python(program, site, f"jsonl:{path}").communicate(timeout=60) == ("store-closed\n0\n", "")


def test_a_storm_of_signals_is_survived(path: Path, site: Path) -> None:
    """Exceptions at random moments: everything acknowledged is there once, also after reopening."""
    storm = [sys.executable, "-m", "tests.interrupts.storm", f"jsonl:{path}", "60", "sync"]
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    ran = subprocess.run(storm, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170)
    assert ran.returncode == 0, ran.stderr[-5_000:]
    with ef.Store(f"jsonl:{path}", create=False) as store:
        assert len(list(store.read(raw=True))) == store.head()


def fail_once(monkeypatch: pytest.MonkeyPatch, call: str, problem: BaseException) -> None:
    """The next os.write writes nine bytes and fails, or the next os.fsync fails."""
    real = getattr(os, call)

    def fail(file: int, *content: bytes) -> Any:
        monkeypatch.undo()
        if content:
            real(file, content[0][:9])
        raise problem

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_write_that_fails_is_repeated(call: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is cut back, and the identical append is made again, once."""
    with ef.Store(f"jsonl:{path}") as store:
        store.append(deposit(amount=1))
        fail_once(monkeypatch, call, OSError(5, "input/output error"))
        assert store.append(deposit(amount=2)).first == 2
    with ef.Store(f"jsonl:{path}") as store:
        assert amounts(store.read()) == [1, 2]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_write_that_is_interrupted_leaves_nothing(call: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and file are as before: the next append has the next position, also after reopening."""
    with ef.Store(f"jsonl:{path}") as store:
        store.append(deposit(amount=1))
        fail_once(monkeypatch, call, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            store.append(deposit(amount=2))
        assert amounts(store.read()) == [1]
        assert store.append(deposit(amount=3)).first == 2
    with ef.Store(f"jsonl:{path}") as store:
        assert amounts(store.read()) == [1, 3]


def test_a_disk_that_keeps_failing_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By errors of eventfold; when it works again, the store goes on."""
    with ef.Store(f"jsonl:{path}") as store:
        store.append(deposit(amount=1))

        def fail(file: int) -> None:
            raise OSError(5, "input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((AppendUnconfirmed, StoreUnavailable)):
            store.append(deposit(amount=2))
        with pytest.raises(StoreUnavailable):
            store.head()
        monkeypatch.undo()
        assert store.append(deposit(amount=3)).first == 2


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_gone_takes_no_more_events(how: str, path: Path) -> None:
    """What is written to a file without a name is lost when it is closed, so it is not acknowledged."""
    with ef.Store(f"jsonl:{path}") as store:
        store.append(deposit())
        if how == "removed":
            path.unlink()
        else:
            other = path.with_name("other")
            other.write_bytes(path.read_bytes())
            other.rename(path)
        with pytest.raises(StoreDamaged, match="removed or replaced"):
            store.append(deposit())


def test_a_damaged_line_is_named(path: Path) -> None:
    """Nothing is read, and the file stays as it is."""
    with ef.Store(f"jsonl:{path}") as store:
        store.append(deposit())
        store.append(deposit())
    damaged = path.read_bytes().replace(b'"position":1', b'"position":7', 1)
    path.write_bytes(damaged)
    with pytest.raises(StoreDamaged, match="Line 2"):
        ef.Store(f"jsonl:{path}")
    assert path.read_bytes() == damaged


def test_an_address_without_a_path_is_refused() -> None:
    """With how to write one."""
    with pytest.raises(ef.InvalidInput, match="Write jsonl:PATH"):
        ef.Store("jsonl:")


@pytest.mark.parametrize("content", [b"some text", b'{"name":"x"}\n', b"a\nb"])
def test_a_file_of_something_else_is_left_alone(content: bytes, path: Path) -> None:
    """Its last line is not cut off, whatever it looks like."""
    path.write_bytes(content)
    with pytest.raises(NotAStore):
        ef.Store(f"jsonl:{path}")
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [None, b"", b'{"sto', b'{"store":"0123'])
def test_a_store_whose_creation_was_interrupted_is_created_again(content: bytes | None, path: Path) -> None:
    """Without `create` there is no store yet where the file is missing or empty."""
    if content is not None:
        path.write_bytes(content)
    if not content:
        with pytest.raises(StoreNotFound):
            ef.Store(f"jsonl:{path}", create=False)
    with ef.Store(f"jsonl:{path}") as store:
        assert store.append(deposit()).first == 1


def test_what_it_does_not_offer_is_refused_with_a_remedy(path: Path) -> None:
    """The services that it leaves out are refused as those of any engine are."""
    with ef.Store(f"jsonl:{path}") as store, pytest.raises(NotSupported, match="The jsonl engine"):
        store.backup(str(path.with_name("copy")))


def test_a_log_is_copied_there_and_back(path: Path, tmp_path: Path) -> None:
    """Positions, ids, keys and identity survive a copy from SQLite, and one back."""
    with ef.Store(tmp_path / "log.db") as source, ef.Store(f"jsonl:{path}") as copy:  # type: ignore[arg-type]
        source.append(*deposits(3), key="k")
        assert source.copy_to(copy, keep_identity=True, verify=True).events == 3
        assert copy.engine.store_id == source.engine.store_id
    with ef.Store(f"jsonl:{path}") as copy, ef.Store(tmp_path / "back.db") as back:  # type: ignore[arg-type]
        assert copy.append(deposit(), key="k").repeated
        assert copy.copy_to(back, verify=True).events == 3


def test_the_command_line_finds_it(path: Path, site: Path) -> None:
    """`eventfold init jsonl:…` and the other commands take its addresses."""
    program = "import sys\nfrom eventfold.cli import main\nmain()"
    created = python(program, site, "init", f"jsonl:{path}")
    assert created.communicate(timeout=60)[1] == ""
    types = python(program, site, "stats", f"jsonl:{path}", "--json")
    answer, complaint = types.communicate(timeout=60)
    assert (types.returncode, complaint) == (0, "")
    assert '"engine":"jsonl"' in answer.replace(" ", "")
