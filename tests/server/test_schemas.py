"""PUT and GET /schemas: types that are declared by a JSON Schema, and what a new version may change."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.schemas.compatibility import _resolved, misfit

TEXT = {"type": "string"}
ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order": TEXT,
        "customer": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": TEXT}}},
        "at": {"type": "string", "format": "date-time"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["order"],
}
TAGS = {"/order": "order", "/customer/id": "customer", "/lines/*/sku": "sku", "/at": "at", "/note": "note"}


def put(client: TestClient, version: int, schema: Any, tags: Any = None, type: str = "Ordered") -> Any:
    """Register a version of a type."""
    return client.put(f"/v1/schemas/{type}/{version}", json={"schema": schema, "tags": TAGS if tags is None else tags})


def append(client: TestClient, data: Any, **others: Any) -> Any:
    """Append one event."""
    return client.post("/v1/events", json={"events": [{"type": "Ordered", "data": data, **others}]})


@pytest.fixture(params=["memory", "sqlite"])
def client(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    """A client of an application that accepts only types that it knows."""
    address = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'events.db'}"
    with ef.Store(address):
        pass
    with TestClient(application(address)) as found:
        yield found


def test_a_type_is_appended_once_it_is_registered(client: TestClient) -> None:
    """Its data is checked, and its tags are derived: those of nested fields and of the elements of arrays too."""
    assert append(client, {"order": "o-1"}).status_code == 422
    first, again = put(client, 1, ORDER), put(client, 1, ORDER)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == client.get("/v1/schemas/Ordered/1").json()
    assert first.json()["tags"] == TAGS
    assert client.get("/v1/schemas").json() == client.get("/v1/schemas/Ordered").json() == {"schemas": [first.json()]}
    data = {
        "order": "o-1",
        "customer": {"id": 7},
        "lines": [{"sku": "b"}, {"sku": "a"}, {}],
        "at": "2026-11-23T10:15:00+01:00",
        "note": None,
    }
    done = append(client, data)
    assert done.status_code == 201
    event = client.get(done.headers["location"]).json()
    assert event["data"] == data
    assert event["tags"] == ["at:2026-11-23T09:15:00+00:00", "customer:7", "order:o-1", "sku:a", "sku:b"]


@pytest.mark.parametrize(
    ("data", "text", "field"),
    [
        ({}, '"order" is a required property', ""),
        ({"order": 1}, "1 is not of type", "/order"),
        ({"order": "o", "lines": [{}, {"sku": 2}]}, "2 is not of type", "/lines/1/sku"),
        ({"order": "o", "at": "yesterday"}, "date-time", "/at"),
        ([], "not an object", ""),
        ("x", "not an object", ""),
        ({"$bytes": "AA==", "$codec": "x"}, "not JSON", ""),
        ({"order": "a\nb"}, "control character", None),
    ],
)
def test_data_that_does_not_fit_is_refused_with_its_place(
    memory_client: TestClient, data: Any, text: str, field: str | None
) -> None:
    """Nothing is written, also not the valid events of the same append."""
    assert put(memory_client, 1, ORDER).status_code == 201
    events = [{"type": "Ordered", "data": {"order": "o-1"}}, {"type": "Ordered", "data": data}]
    answer = memory_client.post("/v1/events", json={"events": events})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-event")
    assert answer.json()["title"].startswith("events[1]: ")
    assert text in answer.json()["title"]
    assert answer.json()["fields"].get("field") == field
    assert memory_client.get("/v1/head").json()["position"] == 1


def test_deeply_nested_data_is_refused(memory_client: TestClient) -> None:
    """Before anything follows it by recursion."""
    put(memory_client, 1, ORDER)
    body = b'{"events":[{"type":"Ordered","data":{"order":"o","x":%b%b}}]}' % (b"[" * 500, b"]" * 500)
    answer = memory_client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, "levels" in answer.json()["title"]) == (422, True)


def test_tags_of_a_client_that_differ_are_refused_with_both(client: TestClient) -> None:
    """Equal ones are accepted, and others whose key the type does not declare."""
    put(client, 1, ORDER)
    answer = append(client, {"order": "o-1"}, tags=["order:o-2"])
    assert answer.status_code == 422
    assert "[order:o-2]" in answer.json()["title"]
    assert "[order:o-1]" in answer.json()["title"]
    for tags in ([], ["order:o-1"], ["tenant:acme", "order:o-1"], ["tenant:acme"]):
        done = append(client, {"order": "o-1"}, tags=tags)
        assert set(client.get(done.headers["location"]).json()["tags"]) == {"order:o-1", *tags}


@pytest.mark.parametrize(
    ("schema", "tags", "text"),
    [
        ({"type": "string"}, {}, "object"),
        ({}, {}, "object"),
        ({"type": "object", "properties": {"a": {"type": "texxt"}}}, {}, "texxt"),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.com/a.json"}}}, {}, "example.com"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, {}, "file:///etc/passwd"),
        ({"type": "object", "properties": {"a": {"pattern": "(?=a)b"}}}, {}, "regex"),
        ({"type": "object", "properties": {"a": {"pattern": "a{900}{900}{900}"}}}, {}, "regex"),
        (ORDER, {"order": "order"}, "path"),
        (ORDER, {"/order": ""}, "tag key"),
        (ORDER, {"/order": "$own"}, "reserved"),
        (ORDER, {"/order": "a:b"}, "colon"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(
    memory_client: TestClient, schema: Any, tags: Any, text: str
) -> None:
    """Nothing is fetched from anywhere."""
    answer = put(memory_client, 1, schema, tags)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
    assert text in answer.json()["title"]
    assert memory_client.get("/v1/schemas").json() == {"schemas": []}


@pytest.mark.parametrize(
    "path", ["Ordered/0", "Ordered/x", "Ordered/-1", "Ordered/99999999999999", "$own/1", f"Ordered/{1:012}{0:05000}"]
)
def test_a_type_or_version_that_cannot_be_used_is_refused(memory_client: TestClient, path: str) -> None:
    """Versions are counted from 1 to 2**31 - 1, and names with `$` are reserved."""
    answer = memory_client.put(f"/v1/schemas/{path}", json={"schema": ORDER})
    assert answer.status_code == 422
    if not path.startswith("$"):
        assert memory_client.get(f"/v1/schemas/{path}").status_code == 422


def test_a_type_with_a_slash_is_registered_and_found_with_the_slash_encoded(memory_client: TestClient) -> None:
    """The address in a CloudEvent of it (`dataschema`) is that of its schema."""
    for version in (1, 2):
        path = f"/v1/stores/default/schemas/shop%2FOrdered%2F1/{version}"
        assert memory_client.put(path, json={"schema": ORDER}).status_code == 201
        assert memory_client.get(path).json()["type"] == "shop/Ordered/1"
    listed = memory_client.get("/v1/schemas/shop%2FOrdered%2F1").json()["schemas"]
    assert [each["version"] for each in listed] == [1, 2]
    event = {"type": "shop/Ordered/1", "data": {"order": "o-1"}}
    written = memory_client.post("/v1/events", json={"events": [event]})
    assert written.status_code == 201, written.text
    out = memory_client.get(written.headers["location"], headers={"accept": "application/cloudevents+json"}).json()
    assert memory_client.get(out["dataschema"]).json()["version"] == 1
    assert memory_client.get("/v1/schemas/shop%252FOrdered/1").status_code == 404


def test_a_version_that_is_not_registered_is_refused_by_name(memory_client: TestClient) -> None:
    """The answer lists those that are."""
    put(memory_client, 3, ORDER)
    answer = append(memory_client, {"order": "o-1"})
    assert (answer.status_code, '"version": 3' in answer.json()["detail"]) == (422, True)
    assert append(memory_client, {"order": "o-1"}, version=3).status_code == 201
    assert memory_client.get("/v1/schemas/Ordered/2").status_code == 404
    assert memory_client.get("/v1/schemas/Other").status_code == 404


def test_a_registered_version_is_never_changed(client: TestClient) -> None:
    """Events may have been written by it already."""
    put(client, 1, ORDER)
    answer = put(client, 1, ORDER | {"required": []})
    assert (answer.status_code, answer.json()["code"]) == (409, "schema-conflict")
    assert "version 2" in answer.json()["detail"]
    for value in (True, 1.0):  # in Python equal to 1
        assert put(client, 1, fields(a={"const": 1}), {}, "Other").status_code in (200, 201)
        assert put(client, 1, fields(a={"const": value}), {}, "Other").status_code == 409


def test_what_one_server_registers_another_one_knows(tmp_path: Any) -> None:
    """Both serve the same store; a restart keeps it too, since it is in the log."""
    address = f"sqlite:///{tmp_path / 'events.db'}"
    ef.Store(address).close()
    with TestClient(application(address)) as one, TestClient(application(address)) as other:
        assert append(other, {"order": "o-1"}).status_code == 422
        put(one, 1, ORDER)
        assert append(other, {"order": "o-1"}).status_code == 201
        assert put(other, 2, ORDER).status_code == 201
        assert put(one, 2, ORDER | {"required": []}).status_code == 409
    with TestClient(application(address)) as later:
        assert append(later, {"order": "o-1"}, version=2).status_code == 201


def fields(**properties: Any) -> dict[str, Any]:
    """A schema of an object with these fields, of which those with a trailing underscore are required."""
    required = [name.removesuffix("_") for name in properties if name.endswith("_")]
    return {
        "type": "object",
        "properties": {name.removesuffix("_"): each for name, each in properties.items()},
        "required": required,
    }


def draft_4(**properties: Any) -> dict[str, Any]:
    """The same, in the draft of JSON Schema whose exclusive limits are truth values."""
    found = {name: each for name, each in fields(**properties).items() if name != "required"}
    return {**found, "$schema": "http://json-schema.org/draft-04/schema#"}


INT = {"type": "integer"}
COMPATIBLE = [
    (fields(a_=TEXT), fields(a_=TEXT, b=INT)),
    (fields(a_=TEXT), fields(a=TEXT)),
    (fields(a=INT), fields(a={"type": "number"})),
    (fields(a=INT), fields(a={"type": ["integer", "null"], "title": "A"})),
    (fields(a={"enum": ["x"]}), fields(a={"enum": ["x", "y"]})),
    (fields(a={"const": "x"}), fields(a=TEXT)),
    (fields(a={"minimum": 5}), fields(a={"minimum": 4})),
    (
        draft_4(a={"maximum": 8, "exclusiveMaximum": True}),
        draft_4(a={"maximum": 9, "exclusiveMaximum": False}),
    ),
    (
        draft_4(a={"minimum": 8, "exclusiveMinimum": True}),
        draft_4(a={"minimum": 7, "exclusiveMinimum": True}),
    ),
    (fields(a=TEXT, b=TEXT), fields(a=TEXT)),
    (fields(a={"$ref": "#/$defs/x"}) | {"$defs": {"x": TEXT}}, fields(a=TEXT)),
    (fields(a=TEXT), fields(a={"anyOf": [INT, TEXT]})),
    (fields(a={"type": "array", "items": INT}), fields(a={"type": "array", "items": {"type": "number"}})),
    (fields(a={"pattern": "^x", "type": "string"}), fields(a=TEXT)),
    (fields(a={"not": {"const": 1}}, b=INT), fields(a={"not": {"const": 1}}, b={})),
]
INCOMPATIBLE = [
    (fields(a_=TEXT), fields(a_=TEXT, b_=INT), "/b is required now"),
    (fields(a=TEXT), fields(a_=TEXT), "/a is required now"),
    (fields(a={"type": "number"}), fields(a=INT), "/a could be of the type number"),
    (fields(a=TEXT), fields(a=INT), "/a could be of the type string"),
    (fields(a={"enum": ["x", "y"]}), fields(a={"enum": ["x"]}), '/a could be "y"'),
    (fields(a={"const": 1}), fields(a={"const": True}), "/a could be 1"),
    (fields(a=TEXT), fields(a={"enum": ["x"]}), "/a could have any value"),
    (fields(a={"minimum": 4}), fields(a={"minimum": 5}), "tighter minimum"),
    (
        draft_4(a={"maximum": 9, "exclusiveMaximum": False}),
        draft_4(a={"maximum": 9, "exclusiveMaximum": True}),
        "tighter exclusiveMaximum",
    ),
    (fields(a=TEXT), fields(a={"type": "string", "format": "uuid"}), "another format"),
    (fields(a=TEXT), fields(a=TEXT) | {"additionalProperties": False}, "additional fields"),
    (
        fields(a=TEXT, b=TEXT) | {"additionalProperties": False},
        fields(a=TEXT) | {"additionalProperties": False},
        "/b is removed",
    ),
    (fields(a=fields(b=TEXT)), fields(a=fields(b_=TEXT)), "/a/b is required now"),
    (fields(a={"properties": {"b": TEXT}}), fields(a={"properties": {"b": INT}}), "/a/b could be"),
    (fields(a={"type": "array", "items": TEXT}), fields(a={"type": "array", "items": INT}), "/a/* could be"),
    (fields(a=TEXT), fields(a={"type": "string", "not": {"const": "x"}}), "another not"),
    (
        fields(a={"$ref": "#/$defs/x"}) | {"$defs": {"x": TEXT}},
        fields(a={"$ref": "#/$defs/x"}) | {"$defs": {"x": INT}},
        "/a could be of the type string",
    ),
    (
        fields(a={"$ref": "#/properties/b"}, b=TEXT),
        fields(a={"$ref": "#/properties/b"}, b={"type": ["string", "null"]}),
        "$ref cannot be compared",
    ),
]


@pytest.mark.parametrize(("old", "new"), COMPATIBLE)
def test_a_version_that_reads_older_events_is_registered(memory_client: TestClient, old: Any, new: Any) -> None:
    """A client that knows the new version only can read what was written before."""
    assert put(memory_client, 1, old, {}).status_code == 201
    assert put(memory_client, 2, new, {"/a": "a"}).status_code == 201


@pytest.mark.parametrize(("old", "new", "reason"), INCOMPATIBLE)
def test_a_version_that_cannot_read_older_events_is_refused_with_the_reason(
    memory_client: TestClient, old: Any, new: Any, reason: str
) -> None:
    """In both orders of registration."""
    put(memory_client, 1, old, {})
    answer = put(memory_client, 2, new, {})
    assert (answer.status_code, answer.json()["code"]) == (409, "schema-conflict")
    assert reason in answer.json()["title"]
    put(memory_client, 2, new, {}, "Later")
    assert put(memory_client, 1, old, {}, "Later").status_code == 409


def test_a_tag_cannot_be_given_up(memory_client: TestClient) -> None:
    """Queries by it would find the old events and miss the new ones."""
    put(memory_client, 1, ORDER)
    answer = put(memory_client, 2, ORDER, {"/order": "number"})
    assert (answer.status_code, "was the tag order" in answer.json()["title"]) == (409, True)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["", "a", "ab"]),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.sampled_from("ab"), each, max_size=2),
    max_leaves=5,
)
types = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
plain = st.fixed_dictionaries(
    {},
    optional={
        "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
        "enum": st.lists(values, min_size=1, max_size=3),
        "const": values,
        "minimum": st.integers(-1, 2),
        "exclusiveMaximum": st.integers(0, 3),
        "maxLength": st.integers(0, 2),
        "minItems": st.integers(0, 2),
        "pattern": st.sampled_from(["a", "b$"]),
        "uniqueItems": st.booleans(),
        "multipleOf": st.sampled_from([1, 2]),
    },
)


def composed(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with parts."""
    required = st.lists(st.sampled_from("ab"), unique=True, max_size=2)
    parts = st.fixed_dictionaries(
        {},
        optional={
            "type": types,
            "properties": st.dictionaries(st.sampled_from("ab"), part, max_size=2),
            "additionalProperties": part,
            "required": required,
            "items": part,
            "not": part,
            "anyOf": st.lists(part, min_size=1, max_size=2),
            "prefixItems": st.lists(part, min_size=1, max_size=1),
        },
    )
    return parts | st.lists(part, min_size=1, max_size=2).map(lambda found: {"anyOf": found})


schemas = st.recursive(plain | st.booleans(), composed, max_leaves=6).filter(lambda schema: isinstance(schema, dict))


@settings(max_examples=150)
@given(schemas, schemas, st.lists(values, min_size=3, max_size=12), st.data())
def test_whatever_is_called_compatible_accepts_every_value_of_the_older_schema(
    old: Any, new: Any, examples: list[Any], data: st.DataObject
) -> None:
    """For schemas and values at random: also a schema and a slightly changed one.

    A new optional field is compatible by convention, unless the older schema says what else is allowed, as here.
    """
    old = _explicit(old)
    if data.draw(st.booleans()):
        keyword = data.draw(st.sampled_from(sorted({*old, *new}) or ["type"]))
        new = {name: each for name, each in old.items() if name != keyword}
    if misfit(_resolved(old), _resolved(new), "") is not None:
        return
    before, after = jsonschema_rs.validator_for(old), jsonschema_rs.validator_for(new)
    for value in [*examples, *_values_of(old)]:
        if before.is_valid(value):
            assert after.is_valid(value), (old, new, value)


def _values_of(schema: Any) -> list[Any]:
    return [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]


def _explicit(schema: Any) -> Any:
    """The schema with `additionalProperties` wherever it is left away, which means the same."""
    if isinstance(schema, list):
        return [_explicit(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    parts = ("additionalProperties", "items", "not", "anyOf", "prefixItems")
    found = {name: _explicit(each) if name in parts else each for name, each in schema.items()}
    if "properties" in found:
        found["properties"] = {name: _explicit(each) for name, each in found["properties"].items()}
    return {"additionalProperties": True} | found
