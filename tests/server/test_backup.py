"""Backups over HTTP: the copy, and that no file is left, whatever ends the transfer."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from eventfold import AsyncStore, NewEvent, Store
from eventfold.concurrency import in_thread
from eventfold.errors import StoreFull
from eventfold.server import Settings, application
from eventfold.server.backup_copy import _Copying, backup_copy, remove_left_copies
from eventfold.server.settings import BackupSettings
from tests.server.serving import Served, wait_until

BYTES = 100_000  # of each event: the copy is larger than the buffers of a connection


def bank(folder: Path, events: int = 1) -> Path:
    """A store with large events."""
    path = folder / "bank.db"
    with Store(str(path)) as store:
        for _ in range(events):
            store.append_encoded(NewEvent.of("Opened", b'"' + b"x" * BYTES + b'"', tags=["account:a-1"]))
    return path


def files(folder: Path) -> set[str]:
    """Everything in a folder, besides the side files of the store and the log of the server."""
    return {each.name for each in folder.iterdir() if not each.name.startswith(("bank.db", "server.log"))}


def test_the_copy_is_a_store_in_a_new_epoch(tmp_path: Path) -> None:
    """It has the length that was announced, and the same events."""
    path = bank(tmp_path, events=3)
    with TestClient(application({"bank": str(path)})) as client:
        answer = client.get("/v1/stores/bank/backup")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.sqlite3"
    assert answer.headers["content-disposition"] == 'attachment; filename="bank.db"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert files(tmp_path) == set()
    copied = tmp_path / "copy"
    copied.write_bytes(answer.content)
    with Store(str(path)) as store, Store(str(copied), create=False) as copy:
        assert [each.id for each in store.read(raw=True)] == [each.id for each in copy.read(raw=True)]
        assert copy.engine.store_id == store.engine.store_id
        assert copy.engine.epoch != store.engine.epoch


def test_an_engine_without_copies_says_what_to_use() -> None:
    """The status is 501."""
    with TestClient(application(AsyncStore("memory:"))) as client:
        answer = client.get("/v1/backup")
    assert (answer.status_code, answer.json()["code"]) == (501, "not-supported")
    assert "pg_dump" in answer.json()["detail"]


def test_the_copy_is_made_in_the_folder_of_the_settings(tmp_path: Path) -> None:
    """A folder that cannot be used is a problem, and another one is used while the store's own is full."""
    path = bank(tmp_path)
    other = tmp_path / "other"
    settings = Settings(backup=BackupSettings(folder=str(other)))
    with TestClient(application(str(path), settings=settings)) as client:
        missing = client.get("/v1/backup")
        assert (missing.status_code, missing.json()["code"]) == (503, "store-unavailable")
        other.mkdir()
        assert client.get("/v1/backup").status_code == 200
    assert not list(other.iterdir())


def test_a_disk_without_space_for_the_copy_is_a_problem(tmp_path: Path) -> None:
    """Nothing is left, and the store still works."""

    class Full(AsyncStore):
        async def backup(self, path: str) -> None:
            await in_thread(Path(path).write_bytes, b"half")
            raise StoreFull("The disk is full.", "Make space.")

    with TestClient(application(Full(str(bank(tmp_path))))) as client:
        answer = client.get("/v1/backup")
        assert (answer.status_code, answer.json()["code"]) == (507, "store-full")
        assert client.get("/v1/head").json()["position"] == 1
    assert files(tmp_path) == set()


def test_one_copy_of_a_store_is_made_at_a_time(tmp_path: Path) -> None:
    """Another request is refused with the time to wait."""

    class Slow(AsyncStore):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            self.begun, self.gate = threading.Event(), threading.Event()

        async def backup(self, path: str) -> None:
            self.begun.set()
            await in_thread(self.gate.wait, 60)
            await super().backup(path)

    store = Slow(str(bank(tmp_path)))
    found = list[Any]()
    with TestClient(application(store)) as client:
        first = threading.Thread(target=lambda: found.append(client.get("/v1/backup")))
        first.start()
        assert store.begun.wait(60)
        refused = client.get("/v1/backup")
        assert refused.status_code == 503
        assert refused.json()["code"] == "server-busy"
        store.gate.set()
        first.join(60)
        assert found[0].status_code == 200
        assert client.get("/v1/backup").status_code == 200


def test_a_connection_that_breaks_leaves_no_file_and_no_open_copy(tmp_path: Path) -> None:
    """The copy has no name while it is sent, and is closed when the client has gone."""
    bank(tmp_path, events=60)
    with Served(tmp_path, "bank.db") as server:
        descriptors = Path(f"/proc/{server.process.pid}/fd")

        def copies() -> list[str]:
            found = list[str]()
            for each in descriptors.iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    found.append(str(each.readlink()))
            return [name for name in found if "backup-" in name]

        with server.connect() as connection:
            connection.sendall(b"GET /v1/backup HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1_000).startswith(b"HTTP/1.1 200")
            assert copies(), "the copy is larger than the buffers, so it is still open"
            assert files(tmp_path) == set()
        wait_until(lambda: not copies(), "the copy is closed")
        answer = server.ask("GET /v1/backup")
        assert len(answer.body) == int(answer.headers["content-length"]) > 60 * BYTES
        assert server.stop() == 0


def test_the_next_start_removes_what_a_killed_server_left_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    """A folder that another process has locked stays."""
    path = bank(tmp_path)
    left = tmp_path / ".bank.db.backup-left"
    left.mkdir()
    (left / "copy").write_bytes(b"half a copy")
    used = _Copying(tmp_path, ".bank.db.backup-")
    with Served(tmp_path, "bank.db") as server:
        assert server.ask("GET /v1/head").status == 200
        assert files(tmp_path) == {used.path.parent.name}
        used.remove()
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL

    async def remove() -> None:
        async with AsyncStore(str(path)) as store:
            copy = await backup_copy(store, None)
            remove_left_copies(store, None)
            assert copy.read(16).startswith(b"SQLite format 3")
            copy.close()

    asyncio.run(remove())
    assert files(tmp_path) == set()
