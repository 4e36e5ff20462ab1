"""What clients may write of types that the server knows as classes: their data, their tags and their versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import pydantic
import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application


class Seated(ef.Event, type="rules.seated"):
    """Someone took a seat."""

    seat: ef.Tag
    guest: Annotated[int, ef.tag("customer")]
    price: Decimal = Decimal(0)
    at: datetime | None = None


@ef.event("rules.seated", version=2)
@dataclass
class SeatedV2:
    """The same, with a row."""

    seat: ef.Tag
    row: int


@ef.upcast
def with_row(old: Seated) -> SeatedV2:
    """A seat of the first row."""
    return SeatedV2(seat=old.seat, row=1)


@ef.event("rules.renamed")
class Renamed(pydantic.BaseModel):
    """A model of pydantic, which forbids nothing."""

    name: ef.Tag
    age: int = pydantic.Field(default=0, ge=0)


@ef.event("rules.moved")
@dataclass
class Moved:
    """A dataclass with a check of its own."""

    to: str

    def __post_init__(self) -> None:
        if self.to == "nowhere":
            raise ValueError("nowhere is no place")


class Open(ef.Event, type="rules.open"):
    """A class that keeps what it does not know."""

    name: ef.Tag
    others: ef.UnknownFields = {}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of an application that knows the classes of this module."""
    app = application(ef.AsyncStore("memory:"), modules=[Seated, SeatedV2, Renamed, Moved, Open])
    with TestClient(app) as found:
        yield found


def append(client: TestClient, type: str, data: Any, **others: Any) -> Any:
    """Append one event."""
    return client.post("/v1/events", json={"events": [{"type": f"rules.{type}", "data": data, **others}]})


def test_tags_are_derived_from_the_data(client: TestClient) -> None:
    """The data stays as it was sent."""
    data = {"seat": "a", "price": "1.50", "guest": 7}
    done = append(client, "seated", data)
    assert done.status_code == 201
    event = client.get(done.headers["location"]).json()
    assert (event["data"], event["tags"]) == (data, ["customer:7", "seat:a"])
    own = append(client, "seated", data, tags=["seat:a", "tenant:x"])
    assert client.get(own.headers["location"]).json()["tags"] == ["customer:7", "seat:a", "tenant:x"]


def test_other_tags_than_those_of_the_data_are_refused_with_both(client: TestClient) -> None:
    """Stored, they would make conditions hold that do not."""
    answer = append(client, "seated", {"seat": "a", "guest": 7}, tags=["seat:b", "customer:7"])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-event")
    assert "[customer:7, seat:b]" in answer.json()["title"]
    assert "[customer:7, seat:a]" in answer.json()["title"]


@pytest.mark.parametrize(
    ("type", "data", "text", "field"),
    [
        ("seated", {"seat": "a"}, "guest", "guest"),
        ("seated", {"seat": "a", "guest": "7"}, "int", "guest"),
        ("seated", {"seat": "a", "guest": 7, "gest": 8}, "fields that its class does not have: gest", "gest"),
        ("seated", {"seat": "a", "guest": 7, "at": "2026-11-23"}, "datetime", "at"),
        ("seated", [], "array", ""),
        ("seated", {"$bytes": "AA==", "$codec": "x"}, "codec x", None),
        ("renamed", {"name": "a", "age": -1}, "greater than or equal to 0", "age"),
        ("renamed", {"name": "a", "agge": 1}, "does not have: agge", "agge"),
        ("moved", {"to": "nowhere"}, "nowhere is no place", None),
    ],
)
def test_data_that_does_not_fit_its_class_is_refused_with_the_field(
    client: TestClient, type: str, data: Any, text: str, field: str | None
) -> None:
    """By the class itself, of whatever kind it is."""
    before = client.get("/v1/head").json()["position"]
    answer = append(client, type, data)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-event")
    assert text in answer.json()["title"]
    if field is not None:
        assert answer.json()["fields"]["field"] == field
    assert client.get("/v1/head").json()["position"] == before


def test_a_class_that_keeps_unknown_fields_accepts_them(client: TestClient) -> None:
    """They are stored, and its readers see them."""
    done = append(client, "open", {"name": "a", "more": [1]})
    assert client.get(done.headers["location"]).json()["data"] == {"name": "a", "more": [1]}


def test_each_version_is_checked_by_its_own_class(client: TestClient) -> None:
    """Version 1 if none is named; one that no class has is refused."""
    assert append(client, "seated", {"seat": "a", "row": 2}, version=2).status_code == 201
    assert append(client, "seated", {"seat": "a", "row": 2}).status_code == 422
    answer = append(client, "seated", {"seat": "a", "row": 2}, version=3)
    assert (answer.status_code, '"version": 1, 2' in answer.json()["detail"]) == (422, True)


def test_an_unknown_type_is_refused(client: TestClient) -> None:
    """Also beside known ones."""
    assert append(client, "other", {}).status_code == 422


def test_the_schemas_of_classes_are_listed_and_cannot_be_replaced(client: TestClient) -> None:
    """A JSON Schema would contradict the class."""
    found = client.get("/v1/schemas/rules.seated").json()["schemas"]
    assert [(each["version"], each["declared"]) for each in found] == [(1, "class"), (2, "class")]
    assert found[0]["tags"] == {"/seat": "seat", "/guest": "customer"}
    assert found[0]["doc"] == "Someone took a seat."
    assert client.get("/v1/schemas/rules.seated/2").json() == found[1]
    assert found[1]["schema"]["required"] == ["seat", "row"]
    answer = client.put("/v1/schemas/rules.seated/3", json={"schema": {"type": "object"}})
    assert (answer.status_code, "class" in answer.json()["title"]) == (409, True)
