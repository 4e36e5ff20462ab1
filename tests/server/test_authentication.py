"""Who may call: credentials that are refused, the scope of a route, stores that a key is not for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.access.key_text import new_key
from eventfold.server.scopes import Scope
from tests.server.keys import bearer, issue, with_keys


def plain(response: Any) -> str:
    """A response without the id of its request."""
    headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    body = {name: value for name, value in response.json().items() if name != "request_id"}
    return repr((response.status_code, sorted(headers.items()), body))


def stores(tmp_path: Path) -> dict[str, str]:
    """Two stores."""
    for name in ("a", "b"):
        ef.Store(str(tmp_path / f"{name}.db")).close()
    return {name: str(tmp_path / f"{name}.db") for name in ("a", "b")}


def test_a_call_without_a_valid_credential_is_refused_with_one_answer(tmp_path: Path) -> None:
    """The answer does not say whether the key is unknown, wrong, of another server, or no key at all."""
    issued = issue(tmp_path)
    (tmp_path / "other").mkdir()
    other = issue(tmp_path / "other")
    with TestClient(application(stores(tmp_path), settings=with_keys(tmp_path))) as client:
        path = "/v1/stores/a/head"
        assert client.get(path, headers=bearer(issued)).status_code == 200
        answers = {
            plain(client.get(path, headers={"Authorization": f"Bearer {text}"}))
            for text in (new_key().text, new_key(issued.id).text, other.key, issued.key[:-1], "efk_", "x.y.z")
        }
        assert len(answers) == 1
        for headers in ({}, {"Authorization": issued.key}, {"Authorization": f"Basic {issued.key}"}):
            assert client.get(path, headers=headers).status_code == 401
        twice = [("Authorization", f"Bearer {issued.key}"), ("Authorization", f"Bearer {issued.key}")]
        assert client.get(path, headers=twice).status_code == 401
        huge = {"Authorization": "Bearer " + "a" * 20_000}
        assert client.get(path, headers=huge).status_code == 401
        assert client.get("/healthz").status_code == 200


def test_a_store_that_a_key_is_not_for_is_absent(tmp_path: Path) -> None:
    """The answer is that for a store which does not exist, but for the id of the request."""
    part = bearer(issue(tmp_path, stores=("a",)))
    with TestClient(application(stores(tmp_path), settings=with_keys(tmp_path))) as client:
        assert client.get("/v1/stores/a/head", headers=part).status_code == 200
        hidden = client.get("/v1/stores/b/head", headers=part)
        absent = client.get("/v1/stores/c/head", headers=part)
        assert hidden.status_code == absent.status_code == 404
        assert plain(hidden) == plain(absent)


def test_a_key_for_another_store_does_not_open_the_only_one(tmp_path: Path) -> None:
    """Nor under the path without a name."""
    part = bearer(issue(tmp_path, stores=("b",)))
    with TestClient(application({"a": stores(tmp_path)["a"]}, settings=with_keys(tmp_path))) as client:
        assert client.get("/v1/head", headers=part).status_code == 404


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.READ])
def test_each_scope_alone_does_not_read(tmp_path: Path, scope: Scope) -> None:
    """No scope contains another one."""
    key = bearer(issue(tmp_path, scopes=(scope,)))
    with TestClient(application(stores(tmp_path), settings=with_keys(tmp_path))) as client:
        answer = client.get("/v1/stores/a/head", headers=key)
        assert answer.status_code == 403
        assert answer.json()["code"] == "forbidden"


def test_what_needs_no_credential_names_no_store(tmp_path: Path) -> None:
    """A key for one store must not learn of others from the document; the page is readable with several stores."""
    named = {f"canary-{name}": address for name, address in stores(tmp_path).items()}
    issue(tmp_path)
    with TestClient(application(named, settings=with_keys(tmp_path))) as client:
        for path in ("/v1/openapi.json", "/v1/docs", "/healthz", "/readyz"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "canary" not in answer.text, path
    with TestClient(application(named), base_url="http://127.0.0.1:8000") as client:
        assert "canary" in client.get("/v1/openapi.json").text
        assert client.get("/v1/docs").status_code == 200
