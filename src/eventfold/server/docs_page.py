"""The page that shows the OpenAPI document: one HTML file without scripts, fonts or other files.

Everything that the document says is text here: nothing of it is taken as markup, except `code` in backquotes.
Knows: OpenAPI, HTML. Does not know: routes, how the document is made.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from typing import Any, cast

import msgspec

from eventfold.server.docs_style import STYLE

Json = dict[str, Any]
METHODS = ("get", "query", "post", "put", "delete")
_style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_style_hash}'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The content security policy of the page: its own style sheet, and nothing else."""


def page(document: bytes) -> bytes:
    """Return the page of a document."""
    found: Json = msgspec.json.decode(document)
    info, groups = found["info"], _groups(found)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(info['title'])} HTTP API</title>",
        '<link rel="icon" href="data:,">',
        f"<style>{STYLE}</style></head><body>",
        '<a class="skip" href="#content">To the content</a>',
        _navigation(groups),
        f'<main id="content"><h1>{_text(info["title"])} HTTP API</h1>',
        f'<p class="quiet">Version {_text(info["version"])} · <a href="openapi.json">OpenAPI {_text(found["openapi"])}'
        "</a></p>",
        f"<p>{_inline(info['summary'])}</p><p>{_inline(info['description'])}</p>",
    ]
    for group, operations in groups.items():
        parts.append(f'<h2 id="{_anchor(group)}">{_text(group)}</h2>')
        parts += [_operation(path, method, each, found) for path, method, each in operations]
    parts.append('<h2 id="errors">Errors</h2>')
    parts.append(f"<p>{_inline('Each is a `Problem`, with the media type `application/problem+json`.')}</p>")
    parts.append(_table(("status", "meaning"), _errors(found)))
    parts.append('<h2 id="types">Types</h2>')
    parts += [_schema(name, schema) for name, schema in found["components"]["schemas"].items()]
    parts.append("</main></body></html>")
    return "\n".join(parts).encode()


def _groups(found: Json) -> dict[str, list[tuple[str, str, Json]]]:
    groups: dict[str, list[tuple[str, str, Json]]] = {each["name"]: [] for each in found["tags"]}
    for path, item in found["paths"].items():
        for method in METHODS:
            if method in item:
                groups[item[method]["tags"][0]].append((path, method, item[method]))
    return groups


def _navigation(groups: dict[str, list[tuple[str, str, Json]]]) -> str:
    parts = ['<nav aria-label="Operations">']
    for group, operations in groups.items():
        parts.append(f"<details><summary>{_text(group)}</summary><ul>")
        for path, method, each in operations:
            parts.append(
                f'<li><a href="#{_text(each["operationId"])}"><span class="method {method}">{method.upper()}</span>'
                f"<span>{_breakable(path.removeprefix('/v1'))}</span></a></li>"
            )
        parts.append("</ul></details>")
    parts.append('<p><a href="#errors">Errors</a> · <a href="#types">Types</a></p></nav>')
    return "".join(parts)


def _operation(path: str, method: str, each: Json, found: Json) -> str:
    name = _text(each["operationId"])
    parts = [
        f'<details class="operation"><summary><span class="method {method}">{method.upper()}</span>'
        f'<span class="path">{_breakable(path)}</span><span class="what">{_inline(each["summary"])}</span></summary>',
        f'<div class="body" id="{name}"><p>{_inline(each["description"])}</p>',
    ]
    if parameters := each.get("parameters"):
        rows = [_parameter(one) for one in parameters]
        parts.append(f"<h4>Parameters</h4>{_table(('name', 'type', 'meaning'), rows)}")
    if (body := each.get("requestBody")) is not None:
        parts.append("<h4>Body</h4>")
        parts += _contents(body["content"])
    for status, response in each["responses"].items():
        if int(status) < 300:
            parts.append(f"<h4>Answer {status}</h4>")
            parts += _contents(response.get("content", {})) or [f"<p>{_inline(response['description'])}</p>"]
    others = [status for status in each["responses"] if int(status) >= 300]
    parts.append(f'<h4>Other statuses</h4><p class="quiet">{", ".join(others)} (<a href="#errors">meaning</a>)</p>')
    if links := [link for response in each["responses"].values() for link in response.get("links", {}).values()]:
        shown = ", ".join(f'<a href="#{_text(one["operationId"])}">{_text(one["operationId"])}</a>' for one in links)
        parts.append(f"<h4>What its answer is used for</h4><p>{shown}</p>")
    parts.append("</div></details>")
    return "".join(parts)


def _parameter(one: Json) -> tuple[str, str, str]:
    where = "" if one["in"] == "query" else f' <span class="quiet">in {_text(one["in"])}</span>'
    need = ' <span class="need">required</span>' if one["required"] else ""
    return (f"<code>{_text(one['name'])}</code>{where}{need}", _type(one["schema"]), _inline(one["description"]))


def _contents(content: Json) -> list[str]:
    parts: list[str] = []
    for media, each in content.items():
        schema, item = each.get("schema"), each.get("itemSchema")
        kind = _type(schema) if schema is not None else f"{_type(item)}, one after the other" if item else "bytes"
        parts.append(f"<p><code>{_text(media)}</code>: {kind}</p>")
        if "example" in each:
            shown = msgspec.json.format(msgspec.json.encode(each["example"]), indent=2).decode()
            parts.append(f"<pre><code>{_text(shown)}</code></pre>")
    return parts


def _errors(found: Json) -> Iterator[tuple[str, str]]:
    for name, response in found["components"]["responses"].items():
        yield f"<code>{_text(name.removeprefix('Problem'))}</code>", _inline(response["description"])


def _schema(name: str, schema: Json) -> str:
    parts = [f'<section class="schema" id="type-{_text(name)}"><h3>{_text(name)}</h3>']
    parts += [f"<p>{_inline(each)}</p>" for each in schema.get("description", "").split("\n\n") if each]
    needed = schema.get("required", [])
    rows = [
        (
            f"<code>{_text(field)}</code>{' <span class=need>required</span>' if field in needed else ''}",
            _type(each),
            _inline(each.get("description", "")),
        )
        for field, each in schema.get("properties", {}).items()
    ]
    parts.append(_table(("field", "type", "meaning"), rows) if rows else f"<p>{_type(schema)}</p>")
    parts.append("</section>")
    return "".join(parts)


def _table(heads: tuple[str, ...], rows: Any) -> str:
    head = "".join(f"<th scope=col>{each}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _type(schema: Any) -> str:
    """A schema as a few words, with links to named types."""
    if not isinstance(schema, dict) or not schema:
        return "any JSON"
    known = cast("Json", schema)
    if "$ref" in known:
        name = known["$ref"].rpartition("/")[2]
        return f'<a href="#type-{_text(name)}">{_text(name)}</a>'
    for key in ("anyOf", "oneOf"):
        if key in known:
            return " or ".join(dict.fromkeys(_type(each) for each in known[key])) + _default(known)
    if "enum" in known:
        return " or ".join(f"<code>{_text(each)}</code>" for each in known["enum"]) + _default(known)
    kind = known.get("type")
    if kind == "array":
        return f"list of {_type(known.get('items'))}{_limits(known)}{_default(known)}"
    if kind == "object":
        values = known.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) and values else "object"
    shown = known.get("format") or kind or "any JSON"
    return f"{_text(shown)}{_limits(known)}{_default(known)}"


def _limits(schema: Json) -> str:
    low = next((schema[key] for key in ("minimum", "minLength", "minItems") if key in schema), None)
    high = next((schema[key] for key in ("maximum", "maxLength", "maxItems") if key in schema), None)
    if low is None and high is None:
        return ""
    unit = " characters" if "maxLength" in schema or "minLength" in schema else ""
    shown = f"from {low:,}" if high is None else f"up to {high:,}" if low is None else f"{low:,} to {high:,}"
    return f", {shown}{unit}"


def _default(schema: Json) -> str:
    value = schema.get("default")
    if value is None or value in ([], {}, ""):
        return ""
    return f", default <code>{_text(msgspec.json.encode(value).decode())}</code>"


def _text(value: Any) -> str:
    return html.escape(str(value))


def _breakable(path: str) -> str:
    """A path that a browser may break before a slash."""
    return _text(path).replace("/", "<wbr>/")


def _inline(text: str) -> str:
    """Text in which `code` stands in backquotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")
