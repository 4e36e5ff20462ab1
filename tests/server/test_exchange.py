"""What every exchange has: a request id, careful headers, a record of refusals; and no secret in the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.errors import InvalidInput
from eventfold.server import application
from eventfold.server.access.reachable import check_reachable
from eventfold.server.access.settings import AccessSettings
from eventfold.server.exchange import request_id_of
from eventfold.server.scopes import Scope
from eventfold.server.settings import Settings
from tests.server.keys import access, bearer, issue, with_keys
from tests.server.serving import Served


@pytest.fixture
def bank(tmp_path: Path) -> str:
    """A store."""
    ef.Store(str(tmp_path / "bank.db")).close()
    return str(tmp_path / "bank.db")


def test_every_response_has_the_id_of_its_request(tmp_path: Path, bank: str) -> None:
    """A short and plain id of the client is used, any other replaced; problems have it in the body."""
    issue(tmp_path)
    with TestClient(application(bank, settings=with_keys(tmp_path))) as client:
        given = client.get("/v1/head", headers={"X-Request-Id": "call-7"})
        assert given.headers["X-Request-Id"] == given.json()["request_id"] == "call-7"
        for path in ("/healthz", "/v1/head", "/none", "/v1/stores/none/head"):
            made = client.get(path, headers={"X-Request-Id": "<script>"}).headers["X-Request-Id"]
            assert len(made) == 32
        assert client.get("/healthz").headers["X-Request-Id"] != client.get("/healthz").headers["X-Request-Id"]
    for wrong in ([], ["a", "a"], ["a b"], ["a" * 65], ["é"], [""], ["a\n"]):
        assert request_id_of(wrong) not in wrong


def test_every_response_has_the_headers_that_make_browsers_careful(tmp_path: Path, bank: str) -> None:
    """Also refusals; and no page of another origin gets anything."""
    key = bearer(issue(tmp_path))
    with TestClient(application(bank, settings=with_keys(tmp_path))) as client:
        for path, headers in (("/v1/head", key), ("/v1/head", {}), ("/healthz", {}), ("/none", {})):
            answer = client.get(path, headers={**headers, "Origin": "https://evil.example.com"})
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_pages_of_a_configured_origin_may_call(tmp_path: Path, bank: str) -> None:
    """With a credential in the header that a preflight allows; others may not."""
    key = bearer(issue(tmp_path))
    settings = with_keys(tmp_path, origins=("https://app.example.com",))
    with TestClient(application(bank, settings=settings)) as client:
        ours = {"Origin": "https://app.example.com"}
        preflight = {"Access-Control-Request-Method": "QUERY", "Access-Control-Request-Headers": "authorization"}
        allowed = client.options("/v1/head", headers=ours | preflight)
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "QUERY" in allowed.headers["Access-Control-Allow-Methods"]
        answer = client.get("/v1/head", headers=ours | key)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        theirs = {"Origin": "https://evil.example.com"}
        assert "Access-Control-Allow-Origin" not in client.get("/v1/head", headers=theirs | key).headers
        assert client.options("/v1/head", headers=theirs | preflight).status_code == 400


def test_an_operator_sees_refused_calls(tmp_path: Path, bank: str) -> None:
    """Why, on which route, with which key; never the credential or a value of the path."""
    admin, reader = issue(tmp_path, "admin"), issue(tmp_path, "reader", (Scope.READ,))
    with TestClient(application(bank, settings=with_keys(tmp_path))) as client:
        assert client.get("/v1/stores/default/head").status_code == 401
        assert client.delete("/v1/keys/canary99", headers=bearer(reader)).status_code == 403
        wrong = {"Authorization": "Bearer canary-credential"}
        assert client.get("/v1/head", headers=wrong).status_code == 401
        answer = client.get("/v1/refusals", headers=bearer(admin))
        assert answer.status_code == 200
        assert [(each["reason"], each["route"], each["identity"]) for each in answer.json()["last"]] == [
            ("unauthenticated", "/head", ""),
            ("forbidden", "/v1/keys/{id}", f"key:{reader.id}"),
            ("unauthenticated", "/head", ""),
        ]
        assert answer.json()["counts"] == {"unauthenticated": 2, "forbidden": 1}
        assert "canary" not in answer.text
        assert reader.key not in answer.text
        assert client.get("/v1/refusals", headers=bearer(reader)).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "db.example.com", "127.0.0.1.example.com", ""])
def test_without_authentication_a_server_does_not_listen_where_others_can_connect(host: str) -> None:
    """Unless that is wanted, or callers are authenticated."""
    with pytest.raises(InvalidInput, match="without authentication"):
        check_reachable(AccessSettings(), host)
    check_reachable(AccessSettings(no_auth=True), host)
    check_reachable(AccessSettings(keys="keys.db"), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", None])
def test_without_authentication_a_server_listens_on_loopback(host: str | None) -> None:
    """And on a socket file."""
    check_reachable(AccessSettings(), host)


def test_a_page_of_another_host_cannot_use_a_local_server_without_authentication(bank: str) -> None:
    """Neither by a name of its own that points to loopback, nor by a request that needs no permission."""
    with TestClient(application(bank), base_url="http://127.0.0.1:8000") as client:
        assert client.get("/v1/head").status_code == 200
        assert client.get("/v1/head", headers={"Origin": "http://localhost:3000"}).status_code == 200
        assert client.get("/v1/head", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
        for headers in (
            {"Host": "evil.example.com"},
            {"Host": "evil.example.com:8000"},
            {"Host": ""},
            {"Host": "[::"},
            {"Origin": "https://evil.example.com"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        ):
            assert client.get("/v1/head", headers=headers).status_code == 403, headers
    settings = Settings(access=AccessSettings(origins=("https://app.example.com",)))
    with TestClient(application(bank, settings=settings), base_url="http://127.0.0.1:8000") as client:
        assert client.get("/v1/head", headers={"Origin": "https://app.example.com"}).status_code == 200
        fetched = {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"}
        assert client.get("/v1/head", headers=fetched).status_code == 200


@pytest.mark.parametrize(
    ("server", "client", "status"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 200),
        ("http://127.0.0.1:8000", "::ffff:127.0.0.1", 200),
        ("http://127.0.0.1:8000", "192.0.2.7", 403),
        ("http://192.0.2.1:8000", "192.0.2.7", 403),
        ("http://192.0.2.1:8000", "127.0.0.1", 403),
        ("http://[2001:db8::1]:8000", "2001:db8::2", 403),
        ("http://testserver", "testclient", 200),
        ("http://testserver", "2001:db8::2", 403),
    ],
)
def test_under_another_asgi_server_other_machines_are_refused_without_authentication(
    bank: str, server: str, client: str, status: int
) -> None:
    """Which knows neither our check of the address nor our settings; `no_auth` says that this is wanted."""
    with TestClient(application(bank), base_url=server, client=(client, 1)) as asked:
        answer = asked.get("/v1/head")
        assert answer.status_code == status
        assert asked.get("/healthz").status_code == 200
        assert status == 200 or "access.no_auth" in answer.json()["detail"]
    settings = Settings(access=AccessSettings(no_auth=True))
    with TestClient(application(bank, settings=settings), base_url=server, client=(client, 1)) as asked:
        assert asked.get("/v1/head").status_code == 200


def test_no_secret_no_value_of_a_path_and_no_query_is_logged(tmp_path: Path, bank: str) -> None:
    """A run with a canary in each place, also where the request is refused or not valid; the log has none of them."""
    key = issue(tmp_path)
    authorization = f"Authorization: Bearer {key.key}"
    with Served(tmp_path, bank, "--keys", str(access(tmp_path).keys)) as server:
        assert server.ask(f"GET /v1/head?filter=canary-query\n{authorization}\nX-Request-Id: call-1").status == 200
        for line in (
            "GET /v1/stores/canary-store/head?x=canary-query",
            "GET /canary-path",
            "GET /v1/canary%20path?canary",
            "DELETE /v1/keys/canarykey",
            "CANARY /v1/head",
            "GET /v1/events/by-id/canary-id",
        ):
            server.ask(f"{line}\n{authorization}")
            server.ask(f"{line}\nAuthorization: Bearer canary-credential\nCookie: canary-cookie")
        server.ask("GET /v1/head\nAuthorization: Basic canary-credential\nX-Request-Id: canary\\request")
        text = server.log()
    assert "call-1" in text
    assert "route=/head" in text
    assert "canary" not in text.lower()
    assert key.key not in text
    assert key.key[12:55] not in text
