"""Whether the server can be used: reasons, bounded time, at most one question a second, and what is not revealed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from eventfold import AsyncStore, Store
from eventfold.errors import StoreUnavailable
from eventfold.server import Settings, application
from eventfold.server.readiness import Readiness
from eventfold.server.settings import HealthSettings


class Hanging(AsyncStore):
    """A store that answers when `gate` is set; it counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__("memory:")
        self.gate, self.asked = asyncio.Event(), 0
        self.error: Exception | None = None

    async def head(self) -> int:
        """Wait, then answer or fail."""
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return await super().head()


def test_a_server_whose_stores_answer_is_ready(tmp_path: Path) -> None:
    """With the stores that the caller may use."""
    Store(str(tmp_path / "a.db")).close()
    with TestClient(application({"b": AsyncStore("memory:"), "a": str(tmp_path / "a.db")})) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready", "read_only": False}
        assert client.get("/v1/stores").json() == {
            "stores": [
                {"name": "a", "ready": True, "read_only": False, "code": None},
                {"name": "b", "ready": True, "read_only": False, "code": None},
            ]
        }


def test_read_only_mode_is_reported(tmp_path: Path) -> None:
    """For load balancers that send writes elsewhere."""
    with TestClient(application(AsyncStore("memory:"), settings=Settings(read_only=True))) as client:
        assert client.get("/readyz").json() == {"status": "ready", "read_only": True}
        assert client.get("/v1/stores").json()["stores"][0]["read_only"] is True


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_a_file_without_the_right_to_write_is_reported_as_read_only(tmp_path: Path) -> None:
    """It can be read, so the server is ready."""
    Store(str(tmp_path / "a.db")).close()
    (tmp_path / "a.db").chmod(0o444)
    with TestClient(application(str(tmp_path / "a.db"))) as client:
        assert client.get("/readyz").json() == {"status": "ready", "read_only": True}


def test_a_full_disk_is_a_reason_not_to_be_ready(tmp_path: Path) -> None:
    """The name of the store is not revealed by the page that anyone may ask for."""
    Store(str(tmp_path / "secret.db")).close()
    settings = Settings(health=HealthSettings(free_disk_bytes=1 << 62))
    with TestClient(application({"secret": str(tmp_path / "secret.db")}, settings=settings)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "not-ready"
        assert answer.json()["fields"] == {"reasons": ["disk-full"]}
        assert "secret" not in answer.text
        (shown,) = client.get("/v1/stores").json()["stores"]
        assert shown == {"name": "secret", "ready": False, "read_only": False, "code": "disk-full"}
        assert client.get("/healthz").status_code == 200


def test_a_store_that_does_not_answer_is_asked_once_and_waited_for_in_bounded_time() -> None:
    """Any number of questions is one question to the store, and one that hangs is not asked again."""

    async def scenario() -> None:
        store = Hanging()
        await store.open()
        readiness = Readiness({"a": store}, Settings(health=HealthSettings(check_seconds=0.05)))
        answers = await asyncio.wait_for(asyncio.gather(*(readiness.states() for _ in range(50))), 60)
        assert {answer["a"].code for answer in answers} == {"store-timeout"}
        readiness._checked_at = 0.0  # a second has passed
        assert (await readiness.states())["a"].code == "store-timeout"
        assert store.asked == 1
        store.gate.set()
        readiness._checked_at = 0.0
        assert (await readiness.states())["a"].code is None
        store.error = StoreUnavailable("It is gone.", "Wait.")
        assert (await readiness.states())["a"].code is None  # the answer is kept for a second
        readiness._checked_at = 0.0
        assert (await readiness.states())["a"].code == "store-unavailable"
        await store.close()

    asyncio.run(scenario())


def test_a_server_that_is_about_to_end_is_not_ready() -> None:
    """Load balancers stop sending requests to it."""
    app = application(AsyncStore("memory:"))
    with TestClient(app) as client:
        app.server.running.stopping.set()
        assert client.get("/readyz").json()["fields"] == {"reasons": ["stopping"]}
