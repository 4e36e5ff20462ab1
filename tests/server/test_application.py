"""What every route of the server has in common."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from starlette.testclient import TestClient


def test_a_store_is_served_with_and_without_its_name(client: TestClient) -> None:
    """The only store is served at /v1 too."""
    assert client.get("/v1/head").json()["position"] == 0
    assert client.get("/v1/stores/default/head").json() == client.get("/v1/head").json()


def test_an_unknown_store_is_a_problem_with_what_to_do(memory_client: TestClient) -> None:
    """Two sentences and a code, as every error has."""
    answer = memory_client.get("/v1/stores/other/head")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "store-not-found"


def test_the_server_answers_over_a_socket(served: str) -> None:
    """By the server that production uses."""
    connection = http.client.HTTPConnection(urlsplit(served).netloc, timeout=60)
    connection.request("GET", "/v1/head")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["position"]) == (200, 0)
    connection.close()
