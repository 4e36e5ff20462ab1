"""What is at the path: other programs' files, links, folders, unusual names, missing permissions."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.engines.sqlite.schema import LAYOUT
from eventfold.errors import (
    EventfoldError,
    InvalidInput,
    NotAStore,
    StoreDamaged,
    StoreNotFound,
    StoreReadOnly,
    StoreVersionMismatch,
)
from tests.engines.sqlite.noted import assert_whole, foreign, noted
from tests.engines.sqlite.other import ROOT, Other
from tests.support.programs import Missing


def refused(path: str | Path, error: type[EventfoldError], **options: object) -> EventfoldError:
    """Check that opening raises this error, in two sentences, and changes nothing at the path."""
    before = Path(path).read_bytes() if os.path.isfile(path) else None
    beside = sorted(os.listdir(Path(path).parent)) if os.path.isdir(Path(path).parent) else None
    with pytest.raises(error) as raised:
        ef.Store(str(path), **options)  # type: ignore[arg-type]
    assert type(raised.value) is error
    assert raised.value.what.endswith(".") and raised.value.remedy.endswith(".")
    assert before == (Path(path).read_bytes() if os.path.isfile(path) else None)
    if beside is not None:
        made = set(os.listdir(Path(path).parent)) - set(beside)
        # SQLite's own files, and the lock file, which is waited for because another process may be creating the store.
        assert not {name for name in made if not name.endswith(("-shm", "-wal", ".lock"))}, "something was left behind"
    return raised.value


def test_a_newer_layout_is_refused_with_the_way_to_upgrade(path: str) -> None:
    """The file was written by a later version of eventfold."""
    ef.Store(path).close()
    foreign(path, "PRAGMA user_version = 99")
    error = refused(path, StoreVersionMismatch)
    assert "99" in error.what and "pip install -U eventfold" in error.remedy and error.fields["layout"] == 99


def test_an_empty_file_becomes_a_store_only_where_that_was_asked_for(path: str) -> None:
    """An empty file is what `mktemp` leaves."""
    open(path, "x").close()
    assert "empty" in refused(path, NotAStore, create=False).what
    assert "empty" in refused(path, NotAStore, readonly=True).what
    with ef.Store(path) as store:
        store.append(noted(1))
    assert assert_whole(path) == 1


def test_another_programs_database_is_left_as_it_is(path: str) -> None:
    """Its tables, its journal mode and its version stay."""
    foreign(path, "CREATE TABLE theirs (a)")
    refused(path, NotAStore)
    assert foreign(path, "PRAGMA journal_mode") == [("delete",)]
    Path(path).unlink()
    foreign(path, "PRAGMA user_version = 3")
    refused(path, NotAStore)
    Path(path).unlink()
    foreign(path, "PRAGMA application_id = 77")
    refused(path, NotAStore)


@pytest.mark.parametrize(
    "content", [b"# A text of some length, and no database at all.\n" * 40, b"short", b"\0" * 5000]
)
def test_a_file_that_is_no_database_is_not_a_store(path: str, content: bytes) -> None:
    """The file is a text, a few bytes, or only zeros."""
    Path(path).write_bytes(content)
    refused(path, NotAStore)
    refused(path, NotAStore, readonly=True)


def test_a_store_without_its_tables_is_damaged(path: str) -> None:
    """The file is marked as a store, but the tables of a store are missing."""
    connection = sqlite3.connect(path)
    connection.executescript(
        f"PRAGMA application_id = 0x65666C64; PRAGMA user_version = {LAYOUT}; CREATE TABLE event (a)"
    )
    connection.close()
    refused(path, StoreDamaged)


def test_folders_and_missing_folders_are_named(tmp_path: Path) -> None:
    """The path of a folder is refused, and a file in a folder that does not exist."""
    assert "folder" in refused(tmp_path, NotAStore).what
    assert "folder" in refused(tmp_path / "none" / "log.db", StoreNotFound).what
    refused(tmp_path / "none.db", StoreNotFound, create=False)
    refused(tmp_path / "none.db", StoreNotFound, readonly=True)
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "log.db", StoreNotFound)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "name", ["with space.db", "ünï-çödé 漢字 🎉.db", "%41?mode=ro#x.db", "semi;colon'quote\".db", "-dash"]
)
def test_unusual_file_names_work(tmp_path: Path, name: str) -> None:
    """Nothing in a path is taken for a URI, an option or SQL."""
    path = str(tmp_path / name)
    with ef.Store(path) as store:
        store.append(noted(1))
        store.backup(path + ".copy")
    assert assert_whole(path) == assert_whole(path + ".copy") == 1
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("name", ["nul\0in.db", "lone\udcffsurrogate.db"])
def test_names_that_sqlite_cannot_open_are_refused(tmp_path: Path, name: str) -> None:
    """The refusal comes before a file is created."""
    with pytest.raises(InvalidInput):
        ef.Store(f"{tmp_path}/{name}")
    assert not list(tmp_path.iterdir())


def test_very_long_paths_are_refused_or_work(tmp_path: Path) -> None:
    """A name too long for the file system and a path too long for SQLite are refused; one that just fits works."""
    refused(tmp_path / ("n" * 300), StoreNotFound)
    deep = tmp_path
    while len(str(deep)) < 420:
        deep = deep / ("d" * 40)
    deep.mkdir(parents=True)
    with ef.Store(str(deep / "log.db")) as store:
        store.append(noted(1))
    assert assert_whole(deep / "log.db") == 1
    while len(str(deep)) < 900:
        deep = deep / ("e" * 200)
    deep.mkdir(parents=True)
    refused(deep / "log.db", StoreNotFound)
    refused("/" + "x/" * 3_000 + "log.db", StoreNotFound)


def test_a_relative_path_is_meant_from_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later changes of the working directory have no effect, also for new connections."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with ef.Store("log.db") as store:
        store.append(noted(1))
        monkeypatch.chdir(tmp_path / "b")
        engine_pool = store.engine._file.pool  # type: ignore[attr-defined]
        engine_pool.pause()
        engine_pool.resume()
        store.append(noted(2))
        assert store.count() == 2
    assert assert_whole(tmp_path / "a" / "log.db") == 2
    assert not list((tmp_path / "b").iterdir())


def test_a_link_leads_to_one_store_with_one_lock(tmp_path: Path, process: Callable[..., Other]) -> None:
    """The lock and the write-ahead log are next to the real file, by whichever name it was opened."""
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    path, link = tmp_path / "real" / "log.db", tmp_path / "link.db"
    link.symlink_to("folder/log.db")
    with ef.Store(str(link)) as by_link, ef.Store(str(path)) as by_name:
        by_link.append(noted(1))
        by_name.append(noted(2))
        other = process()
        other(f"store = ef.Store({str(tmp_path / 'folder' / 'log.db')!r})")
        other("engine_of(store)._file.lock.acquire()")
        impatient = ef.Store(str(link), timeout=0.1)
        with pytest.raises(ef.EventfoldError, match="Another process"):
            impatient.append(noted(9))
        other("engine_of(store)._file.lock.release()")
        assert by_link.count() == by_name.count() == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "link.db", "real"]
    assert assert_whole(path) == 2


def test_a_link_that_is_turned_to_another_store_is_noticed(tmp_path: Path) -> None:
    """A deployment may switch a link under a running process: the open store raises."""
    for name in ("one.db", "two.db"):
        with ef.Store(str(tmp_path / name)) as store:
            store.append(noted(1))
    link = tmp_path / "current.db"
    link.symlink_to("one.db")
    with ef.Store(str(link)) as store:
        store.append(noted(2))
        (tmp_path / "next").symlink_to("two.db")
        os.replace(tmp_path / "next", link)
        with pytest.raises(EventfoldError):
            store.using(attempts=1).append(noted(3))
        with pytest.raises(StoreDamaged, match="replaced"):
            store.count()


def test_a_link_to_a_missing_file_creates_the_store_there(tmp_path: Path) -> None:
    """The store is created where the link leads, if that folder exists."""
    link = tmp_path / "link.db"
    link.symlink_to("made.db")
    with ef.Store(str(link)) as store:
        store.append(noted(1))
    assert assert_whole(tmp_path / "made.db") == 1
    (tmp_path / "loose").symlink_to("none/made.db")
    refused(tmp_path / "loose", StoreNotFound)
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", StoreNotFound)


def test_a_renamed_or_removed_store_is_noticed(tmp_path: Path) -> None:
    """No append is acknowledged that went to a file without a name."""
    for end in (lambda path: path.rename(path.with_name("moved")), Path.unlink):
        path = tmp_path / "log.db"
        with ef.Store(str(path)) as store:
            store.append(noted(1))
            end(path)
            with pytest.raises(EventfoldError) as raised:
                store.using(attempts=1).append(noted(2))
            assert raised.value.code in ("append-unconfirmed", "store-damaged")
        for left in tmp_path.iterdir():
            left.unlink()


DROP_PRIVILEGES = "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"


@pytest.fixture
def common_folder() -> str:
    """A folder that every user may enter."""
    import tempfile

    made = tempfile.mkdtemp(prefix="eventfold-")
    os.chmod(made, 0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def unprivileged(process: Callable[..., Other]) -> Other:
    """A process without root's permissions, also where the tests run as root: root may write to every file."""
    if os.geteuid() != 0:
        return process()
    try_out = [*DROP_PRIVILEGES, sys.executable, "-c", "import eventfold.engines.sqlite"]
    if shutil.which("setpriv") is None:
        raise Missing("setpriv", "util-linux")
    if subprocess.run(try_out, cwd=ROOT, capture_output=True, check=False).returncode:
        raise Missing("a Python that another user than root can run")
    return process(*DROP_PRIVILEGES)


def test_a_file_that_may_not_be_written_can_be_read(common_folder: str, unprivileged: Other) -> None:
    """File and folder are read-only: reads work, appends raise an error that says that nothing was written."""
    path = f"{common_folder}/log.db"
    with ef.Store(path) as store:
        store.append(noted(1))
    for each in os.listdir(common_folder):
        os.chmod(f"{common_folder}/{each}", 0o444)
    os.chmod(common_folder, 0o555)
    for options in ("", ", readonly=True"):
        unprivileged(f"store = ef.Store({path!r}{options})")
        assert unprivileged("[each.event.n for each in store.read()]") == [1]
        unprivileged.start("store.append(noted(2))")
        outcome = unprivileged.outcome()
        assert outcome["error"] == StoreReadOnly.__name__ and "Nothing was written" in outcome["text"], outcome
        unprivileged("store.close()")


def test_a_folder_that_may_not_be_written_takes_no_store(common_folder: str, unprivileged: Other) -> None:
    """Creating the store is refused with a remedy."""
    os.chmod(common_folder, 0o555)
    unprivileged.start(f"ef.Store('{common_folder}/new.db')")
    outcome = unprivileged.outcome()
    assert outcome["error"] in ("StoreReadOnly", "StoreNotFound"), outcome
    assert not os.listdir(common_folder)


def test_a_file_that_may_not_be_read_is_refused(common_folder: str, unprivileged: Other) -> None:
    """Another user's store raises an error of the library."""
    path = f"{common_folder}/log.db"
    ef.Store(path).close()
    for each in os.listdir(common_folder):
        os.chmod(f"{common_folder}/{each}", 0o000)
    unprivileged.start(f"ef.Store({path!r})")
    outcome = unprivileged.outcome()
    assert issubclass(getattr(__import__("eventfold.errors").errors, outcome["error"]), EventfoldError), outcome


def test_a_lock_file_that_may_not_be_written_is_named(common_folder: str, unprivileged: Other) -> None:
    """The lock file was left by another user, without permissions for others."""
    path = f"{common_folder}/log.db"
    ef.Store(path).close()
    for each in os.listdir(common_folder):
        os.chmod(f"{common_folder}/{each}", 0o666)
    os.chmod(common_folder, 0o777)
    Path(path + ".lock").touch()
    os.chmod(path + ".lock", 0o600)
    unprivileged(f"store = ef.Store({path!r})")
    unprivileged.start("store.append(noted(1))")
    if os.geteuid() == 0:
        outcome = unprivileged.outcome()
        assert outcome["error"] == "StoreReadOnly" and ".lock" in outcome["text"], outcome
    else:
        unprivileged.answer()
