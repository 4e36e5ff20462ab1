"""Answers do not say where stores are: paths of files and addresses of databases are replaced.

Knows: errors, a server. Does not know: which route raises what.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.errors import EventfoldError, StoreUnavailable, UnknownProjection
from eventfold.server import Settings, application
from eventfold.server.places import without_places
from eventfold.server.settings import LimitSettings


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (
            StoreUnavailable("/srv/my b.db-wal cannot be read.", "Check /srv.", path="/srv/my b.db"),
            "<store>-wal cannot be read.",
        ),
        (
            StoreUnavailable("No connection to db.internal:5432/bank.", "Wait.", server="db.internal:5432/bank"),
            "No connection to <store>.",
        ),
        (UnknownProjection("sqlite:/srv/bank.db has no 'x'.", "List them."), "<store> has no 'x'."),
        (UnknownProjection("postgresql://u@h/d?schema=s has none.", "List them."), "<store> has none."),
        (EventfoldError("The file: it is not there.", "Look for sqlite: addresses."), "The file: it is not there."),
    ],
)
def test_an_error_is_shown_without_the_place_of_the_store(error: EventfoldError, what: str) -> None:
    """In both sentences and in every field."""
    shown = without_places(error)
    assert shown.what == what
    assert "/srv" not in shown.remedy
    assert not {"path", "server", "address"} & shown.fields.keys()


def test_no_route_of_a_projection_that_does_not_exist_shows_a_path(tmp_path: Path) -> None:
    """The folder of the store is in no answer, and the operator finds it in the log."""
    address = str(tmp_path / "bank.db")
    with ef.Store(address):
        pass
    with TestClient(application(address)) as client:
        for path in ("projections/none", "processes/none", "consumers/none"):
            answer = client.get(f"/v1/{path}")
            assert answer.status_code == 404
            assert str(tmp_path) not in answer.text
        for act in ("pause", "rollback", "remove", "verify"):
            answer = client.post(f"/v1/projections/none/{act}", json={"reason": "a test"})
            assert answer.json()["code"] == "unknown-projection"
            assert str(tmp_path) not in answer.text


def test_what_the_request_contains_is_shown_unless_it_is_the_address_of_a_store(tmp_path: Path) -> None:
    """A caller's own reference is named; one who guesses the address of the store does not learn that it is right."""
    address = str(tmp_path / "bank.db")
    with ef.Store(address):
        pass
    with TestClient(application({"bank": f"sqlite:{address}"})) as client:
        for given in ("file:///etc/passwd", "sqlite:/other/bank.db"):
            body = f'{{"schema": {{"type": "object", "properties": {{"a": {{"$ref": "{given}"}}}}}}}}'.replace(
                "/", "\\/"
            )
            headers = {"content-type": "application/json"}
            answer = client.put("/v1/schemas/Opened/1", content=body, headers=headers)
            assert (answer.status_code, given in answer.json()["title"]) == (422, True)
        for guess in (f"sqlite:{address}", f"sqlite:{tmp_path}", "sqlite:/", "sqlite:"):
            answer = client.post("/v1/projections/none/pause", json={"reason": f"{guess} it is"})
            assert answer.json()["code"] == "unknown-projection"
            assert str(tmp_path) not in answer.text


def test_a_call_of_the_engine_has_a_body_within_the_limit(tmp_path: Path) -> None:
    """A message is refused before it fills the memory of the server."""
    settings = Settings(limits=LimitSettings(body_bytes=2_000))
    with ef.Store(str(tmp_path / "bank.db")):
        pass
    with TestClient(application(str(tmp_path / "bank.db"), settings=settings)) as client:
        headers = {"content-type": "application/vnd.eventfold+msgpack"}
        answer = client.post("/v1/engine/head", content=b"\x80" * 2_001, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
