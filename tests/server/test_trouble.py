"""A disk that is full and a store that goes away while it is served: problems with codes, and no restart afterwards."""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path

import pytest

from eventfold import NewEvent, Store
from eventfold.errors import CursorMismatch
from tests.server.serving import Answer, Served, wait_until
from tests.support.servers.postgres import PostgresServer


def append(server: Served, tag: str, size: int = 10, store: str = "default") -> Answer:
    """Append one event."""
    event = {"type": "Noted", "data": "x" * size, "tags": [f"note:{tag}"]}
    return server.ask(f"POST /v1/stores/{store}/events", json.dumps({"events": [event], "key": tag}).encode())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process is set on Linux only")
def test_a_full_disk_refuses_appends_and_they_succeed_when_it_has_space_again(tmp_path: Path) -> None:
    """Reads go on meanwhile, nothing of the refused append is written, and its key can be used again."""
    path = tmp_path / "bank.db"
    Store(str(path)).close()
    with Served(tmp_path, "bank.db", "--accept-unknown") as server:
        assert append(server, "first").status == 201
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        refused = append(server, "large", size=900_000)
        assert (refused.status, refused.json["code"]) == (507, "store-full"), refused
        assert refused.json["title"]
        assert refused.json["detail"]
        assert server.ask("GET /v1/head").json["position"] == 1
        assert append(server, "first").status == 200  # it is there already, and nothing has to be written
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert append(server, "large", size=900_000).status == 201
        assert server.ask("GET /v1/head").json["position"] == 2
        assert server.stop() == 0
        assert "Traceback" not in server.log()


def test_a_file_that_is_moved_away_is_a_problem_until_it_is_back(tmp_path: Path) -> None:
    """The server is not ready meanwhile, and serves the same store afterwards."""
    path, away = tmp_path / "bank.db", tmp_path / "away"
    Store(str(path)).close()
    away.mkdir()
    with Served(tmp_path, "bank.db", "--accept-unknown") as server:
        assert append(server, "first").status == 201
        for each in tmp_path.glob("bank.db*"):
            each.rename(away / each.name)
        answer = append(server, "second")  # reads may go on in the open file
        assert answer.status == 503, answer
        assert answer.json["code"] in ("store-reopening", "store-damaged", "store-not-found", "append-unconfirmed")
        assert answer.json["detail"]
        wait_until(lambda: server.ask("GET /readyz").status == 503, "the server is not ready")
        (reason,) = server.ask("GET /readyz").json["fields"]["reasons"]
        assert reason in ("store-not-found", "store-damaged")
        assert server.ask("GET /healthz").status == 200
        for each in away.iterdir():
            each.rename(tmp_path / each.name)
        wait_until(lambda: append(server, "second").status in (200, 201), "the store is served again")
        assert server.ask("GET /v1/head").json["position"] == 2
        wait_until(lambda: server.ask("GET /readyz").status == 200, "the server is ready")
        assert server.stop() == 0


def test_a_backup_that_is_put_in_the_place_of_the_file_is_served_without_a_restart(tmp_path: Path) -> None:
    """Cursors of the time before are refused, since events may be missing; the other store is not affected."""
    path, backup = tmp_path / "bank.db", tmp_path / "backup"
    Store(str(path)).close()
    Store(str(tmp_path / "shop.db")).close()
    stores = ("--store", f"bank={path}", "--store", f"shop={tmp_path / 'shop.db'}")
    with Served(tmp_path, *stores, "--accept-unknown") as server:
        assert append(server, "first", store="bank").status == 201
        backup.write_bytes(server.ask("GET /v1/stores/bank/backup").body)
        assert append(server, "second", store="bank").status == 201
        cursor = server.ask("GET /v1/stores/bank/head").json["cursor"]
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        backup.replace(path)
        wait_until(lambda: append(server, "third", store="bank").status in (200, 201), "the backup is served")
        assert server.ask("GET /v1/stores/bank/head").json["position"] == 2
        refused = server.ask(f"GET /v1/stores/bank/events?after={cursor}")
        assert (refused.status, refused.json["code"]) == (409, "cursor-mismatch")
        assert append(server, "first", store="shop").status == 201
        assert server.stop() == 0
        assert "All stores were opened again." in server.log()
        assert "Traceback" not in server.log()


def test_a_client_of_a_server_waits_for_the_backup_that_is_put_in_the_place_of_the_file(tmp_path: Path) -> None:
    """Its append waits and is written in the new epoch, and its cursors are refused; nothing is called damaged."""
    path, backup = tmp_path / "bank.db", tmp_path / "backup"
    Store(str(path)).close()
    with Served(tmp_path, "bank.db", "--accept-unknown") as server, Store(server.url) as remote:
        remote.append_encoded(noted("first"))
        backup.write_bytes(server.ask("GET /v1/backup").body)
        cursor = remote.cursor(remote.append_encoded(noted("lost")).last)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        backup.replace(path)
        assert remote.append_encoded(noted("second")).first == 2
        assert [each.stored.data for each in remote.read(raw=True)] == [b'"first"', b'"second"']
        with pytest.raises(CursorMismatch):
            list(remote.read(after=cursor, raw=True))
        assert server.stop() == 0
        assert "Traceback" not in server.log()


def noted(text: str) -> NewEvent:
    """An event with a text."""
    return NewEvent.of("Noted", json.dumps(text).encode(), tags=["note:1"])


def test_a_database_server_that_stops_is_a_problem_until_it_is_started_again(tmp_path: Path) -> None:
    """Its connections are made again without a restart."""
    database = PostgresServer(max_connections="40").start()
    try:
        url = database.url()
        Store(url).close()
        with Served(tmp_path, url, "--accept-unknown", EVENTFOLD_HEALTH__CHECK_SECONDS="0.5") as server:
            assert append(server, "first").status == 201
            database.kill()
            answer = append(server, "second")
            assert answer.status == 503
            assert answer.json["code"] in ("store-unavailable", "append-unconfirmed")
            assert url not in answer.body.decode()
            wait_until(lambda: server.ask("GET /readyz").status == 503, "the server is not ready")
            database.start()
            wait_until(lambda: append(server, "second").status in (200, 201), "the store is served again")
            assert server.ask("GET /v1/head").json["position"] == 2
            wait_until(lambda: server.ask("GET /readyz").status == 200, "the server is ready")
            assert server.stop(signal.SIGTERM) == 0
            assert "Traceback" not in server.log()
    finally:
        database.remove()
