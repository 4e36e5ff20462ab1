"""The OpenAPI document: valid, complete, stable, and true to the table of routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_32_VALIDATOR
from starlette.testclient import TestClient

from eventfold.aio import AsyncStore
from eventfold.server import application
from eventfold.server.asgi import ROUTES
from eventfold.server.openapi import document, operation_id, statuses_of
from eventfold.server.openapi_examples import EXAMPLES, LINKS
from eventfold.server.problems import STATUSES

METHODS = {"get", "put", "post", "delete", "patch", "query", "head", "options"}


@pytest.fixture(scope="module")
def found() -> Any:
    """The document of a server with one store."""
    return json.loads(document(ROUTES, ["default"]))


def operations(found: Any) -> Iterator[tuple[str, str, Any]]:
    """Each operation with its path and method."""
    for path, item in found["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_the_document_satisfies_the_schema_of_openapi_3_2(found: Any) -> None:
    """The meta-schema of the specification, as schemathesis brings it."""
    assert found["openapi"] == "3.2.0"
    assert [f"{each.instance_path}: {each.message}" for each in OPENAPI_32_VALIDATOR.iter_errors(found)] == []


def test_the_document_is_stable() -> None:
    """The same bytes in each process, whatever the order of the stores."""
    assert document(ROUTES, ["a", "b"]) == document(ROUTES, ["b", "a"])
    assert document(ROUTES, ["a", "b"]) == document(list(ROUTES), ("a", "b"))


def test_every_route_is_described_once(found: Any) -> None:
    """By the path at which it is served."""
    described = sorted((path, method) for path, method, _ in operations(found))
    served = sorted(
        ((("/v1" if each.of_store else "") + each.path).replace(":path}", "}"), each.method.lower()) for each in ROUTES
    )
    assert described == served
    names = [operation_id(each) for each in ROUTES]
    assert sorted(set(names)) == sorted(names)


def test_every_operation_says_what_it_does_needs_and_answers(found: Any) -> None:
    """A summary, the scope, described parameters, a request with a type, problems for each status of an error."""
    for path, method, operation in operations(found):
        place = f"{method} {path}"
        assert method in METHODS, place
        assert operation["summary"] and operation["description"] and operation["tags"], place
        for parameter in operation.get("parameters", ()):
            assert parameter["description"].strip("."), f"{place} {parameter['name']}"
            assert parameter["schema"], f"{place} {parameter['name']}"
        in_path = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}, place
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert response == {"$ref": f"#/components/responses/Problem{status}"}, place
            else:
                assert response["description"], place


def test_every_schema_is_one_of_json_schema_2020_12(found: Any) -> None:
    """The dialect of OpenAPI 3.2; a tuple has `prefixItems`."""
    for name, schema in found["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), name
    receipts = json.dumps(found)
    assert '"prefixItems"' in receipts


def test_every_reference_leads_somewhere(found: Any) -> None:
    """To a schema or a response of the document."""
    for reference in references(found):
        assert reference.startswith("#/components/"), reference
        _, _, kind, name = reference.split("/")
        assert name in found["components"][kind], reference


def references(value: Any) -> Iterator[str]:
    """Every `$ref` below a value."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref" and isinstance(each, str):
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_status_of_an_error_is_described_with_its_codes(found: Any) -> None:
    """So a client knows which codes to expect of a status."""
    for kind, status in STATUSES:
        response = found["components"]["responses"][f"Problem{status}"]
        assert f"`{kind.code}`" in response["description"], f"{kind.__name__} {status}"
    for route in ROUTES:
        assert all(
            status < 400 or f"Problem{status}" in found["components"]["responses"] for status in statuses_of(route)
        )


def test_every_example_fits_its_schema(found: Any) -> None:
    """Of a request and of a response; each belongs to an operation."""
    seen = set[str]()
    for _, _, operation in operations(found):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [each.get("content", {}) for each in operation["responses"].values()]
        for content in contents:
            for media in content.values():
                if "example" in media:
                    schema = media["schema"] | {"components": found["components"]}
                    jsonschema_rs.validate(schema, media["example"])
                    seen.add(operation["operationId"])
    assert seen == set(EXAMPLES)


def test_every_link_names_an_operation_and_its_parameters(found: Any) -> None:
    """And is in the document."""
    by_name = {operation["operationId"]: operation for _, _, operation in operations(found)}
    for name, links in LINKS.items():
        linked = next(each["links"] for each in by_name[name]["responses"].values() if "links" in each)
        assert set(linked) == {link for link, _, _ in links}
        for _, target, values in links:
            assert set(values) <= {each["name"] for each in by_name[target]["parameters"]}, target


def test_a_server_of_several_stores_has_the_store_in_each_path() -> None:
    """With the names that there are."""
    found = json.loads(document(ROUTES, ["shop", "bank"]))
    operation = found["paths"]["/v1/stores/{store}/head"]["get"]
    assert operation["parameters"][0]["schema"] == {"type": "string", "enum": ["bank", "shop"]}
    assert "/v1/head" not in found["paths"]
    assert [f"{each.instance_path}: {each.message}" for each in OPENAPI_32_VALIDATOR.iter_errors(found)] == []


def test_the_server_answers_with_its_document(found: Any) -> None:
    """Not again to a client that has it."""
    with TestClient(application(AsyncStore("memory:"))) as client:
        answer = client.get("/v1/openapi.json")
        assert answer.json() == found
        again = client.get("/v1/openapi.json", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
