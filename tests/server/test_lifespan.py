"""The life of an application: which stores it opens and closes, alone and mounted in another application."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from eventfold import AsyncStore, NewEvent, Store
from eventfold.errors import StoreClosed, StoreNotFound
from eventfold.server import Settings, application


def store_with_one_event(path: Path) -> str:
    """A store file with one event, and its address."""
    with Store(str(path)) as store:
        store.append_encoded(NewEvent.of("Opened", b"{}", tags=["account:a-1"]))
    return str(path)


def test_a_store_given_by_address_is_opened_at_the_start_and_closed_at_the_end(tmp_path: Path) -> None:
    """The application owns it."""
    app = application(store_with_one_event(tmp_path / "bank.db"))
    store = app.server.stores["default"]
    with pytest.raises(StoreClosed):
        _ = store.engine
    with TestClient(app) as client:
        assert store.engine.store_id
        assert client.get("/v1/head").json()["position"] == 1
    with pytest.raises(StoreClosed):
        asyncio.run(store.head())


def test_a_store_of_the_caller_stays_open(tmp_path: Path) -> None:
    """The application does not close what it did not open."""
    store = AsyncStore(store_with_one_event(tmp_path / "bank.db"))
    with TestClient(application({"bank": store})) as client:
        assert client.get("/v1/stores/bank/head").json()["position"] == 1
    assert store.engine.store_id


def test_a_missing_store_is_an_error_at_the_start(tmp_path: Path) -> None:
    """No file is created by a wrong path."""
    client = TestClient(application(str(tmp_path / "other.db")))
    with pytest.raises(StoreNotFound):
        client.__enter__()
    assert not list(tmp_path.iterdir())


def test_read_only_mode_is_a_setting(tmp_path: Path) -> None:
    """Reading works."""
    app = application(store_with_one_event(tmp_path / "bank.db"), settings=Settings(read_only=True))
    with TestClient(app) as client:
        assert client.get("/v1/head").status_code == 200


def test_without_the_extra_the_import_says_which_one_is_missing() -> None:
    """`from eventfold.server import application` fails with a sentence, not with a module's name."""
    code = "import sys; sys.modules['starlette'] = None\nfrom eventfold.server import application"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'eventfold[server]'" in ran.stderr
