"""The page that shows the OpenAPI document: complete, safe, and without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from eventfold.aio import AsyncStore
from eventfold.server import application
from eventfold.server.asgi import ROUTES
from eventfold.server.docs_page import page
from eventfold.server.openapi import document, operation_id

VOID = {"meta", "link", "wbr"}


class Elements(HTMLParser):
    """The elements of a page with their attributes; those that are not closed in order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def shown() -> str:
    """The page of a server with one store."""
    return page(document(ROUTES, ["default"])).decode()


def test_the_page_has_every_operation_and_type_and_every_link_leads_somewhere(shown: str) -> None:
    """Each is found by its name."""
    elements = Elements(shown).found
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(set(names)) == len(names)
    assert {operation_id(each) for each in ROUTES} <= set(names)
    for tag, attributes in elements:
        target = attributes.get("href")
        if tag == "a" and target is not None and target.startswith("#"):
            assert target[1:] in names, target


def test_the_page_needs_nothing_but_itself(shown: str) -> None:
    """No script, no image, no font, no address of another server."""
    elements = Elements(shown).found
    assert not {tag for tag, _ in elements} & {"script", "img", "iframe", "object", "form", "input"}
    assert {attributes["href"] for tag, attributes in elements if tag == "link"} == {"data:,"}
    assert not re.search(r"https?://|url\(|@import|\bon\w+=|style=", shown)


def test_what_the_document_says_is_text_on_the_page() -> None:
    """Also if a description has markup in it."""
    hostile: Any = json.loads(document(ROUTES, ["default"]))
    hostile["paths"]["/v1/head"]["get"]["summary"] = '<img src=x onerror="alert(1)"> `<b>`'
    hostile["components"]["schemas"]["LogHead"]["description"] = "</section><script>alert(1)</script>"
    found = page(msgspec.json.encode(hostile)).decode()
    assert not {tag for tag, _ in Elements(found).found} & {"script", "img", "b"}
    assert "&lt;script&gt;" in found


def test_the_server_answers_with_the_page_and_its_policy() -> None:
    """The policy names the hash of the style sheet that is in the page."""
    with TestClient(application(AsyncStore("memory:"))) as client:
        answer = client.get("/v1/docs")
        policy = answer.headers["content-security-policy"]
        again = client.get("/v1/docs", headers={"if-none-match": answer.headers["etag"]})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/html")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert (again.status_code, again.content) == (304, b"")
