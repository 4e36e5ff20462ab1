"""The OpenAPI 3.2 document of a server, made from the table of routes and their msgspec types.

Each route of a store is described once: without the name of the store in its path if the server has one store.
Knows: the table of routes, error codes, OpenAPI. Does not know: handlers, how the document is shown (docs_page.py).
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, cast, get_args, get_origin

import msgspec

import eventfold
from eventfold.errors import EventfoldError
from eventfold.server.openapi_examples import EXAMPLES, LINKS
from eventfold.server.problems import PROBLEM, STATUSES, Problem
from eventfold.server.route import JSON, NDJSON, SSE, Parameter, Route

REFERENCE = "#/components/schemas/{name}"
Json = dict[str, Any]
# The first segment of a path, with what its routes are about.
GROUPS = {
    "events": "Append and read events",
    "positions": "Append and read events",
    "receipts": "Append and read events",
    "head": "Append and read events",
    "follow": "Follow the log as it grows",
    "consumers": "Follow the log as it grows",
    "types": "What the log has",
    "tags": "What the log has",
    "tag-keys": "What the log has",
    "counts": "What the log has",
    "stats": "What the log has",
    "states": "States folded from events",
    "projections": "Read models and followers",
    "processes": "Processes, timers and effects",
    "alerts": "Alerts",
    "jobs": "Jobs: rebuilds and verifications",
    "catalogue": "Schemas of events",
    "schemas": "Schemas of events",
    "engine": "The engine, for remote stores",
    "keys": "API keys",
}
OPERATIONS = "The server and its operation"
# What a response of a status means; the codes of errors are added.
MEANINGS = {
    304: "The client has this answer already.",
    401: "The call has no valid credential.",
    403: "The credential does not grant this, or the server is in read-only mode.",
    404: "There is nothing of this name or number here.",
    406: "The client accepts none of the media types that the route returns.",
    409: "It conflicts with what is there now. Nothing was written.",
    413: "The body is larger than the server reads.",
    415: "The body has a media type or an encoding that the route does not read.",
    422: "A parameter or a field of the body is wrong; `fields` may name it. Nothing was written.",
    429: "This credential or address makes more calls than it may. `Retry-After` says when to go on.",
    500: "The server failed; its log has the cause.",
    501: "The engine of this store, or this installation, does not have that function.",
    503: "The store or the database of a read model is unavailable. Repeat the call; appends with the same ids or key.",
    507: "The store's disk is full.",
}
RETRIED = frozenset({429, 503})


def document(routes: Sequence[Route], stores: Iterable[str], root_path: str = "", *, shows_names: bool = True) -> bytes:
    """Return the document as JSON: the same bytes for the same routes and names of stores.

    `root_path`: the path where the application is mounted. `shows_names`: whether it lists the names of stores.
    """
    names = sorted(stores)
    in_path = "/v1" if len(names) == 1 else "/v1/stores/{store}"
    types = _Types(routes)
    paths: dict[str, Json] = {}
    for route in routes:
        path = _template(f"{in_path}{route.path}" if route.of_store else route.path)
        several = names if route.of_store and len(names) != 1 else []
        operation = _operation(route, types, several, shows_names)
        paths.setdefault(path, {})[route.method.lower()] = operation
    in_use = {tag for item in paths.values() for operation in item.values() for tag in operation["tags"]}
    used = [each for each in dict.fromkeys([*GROUPS.values(), OPERATIONS]) if each in in_use]
    found: Json = {
        "openapi": "3.2.0",
        "info": {
            "title": "eventfold",
            "summary": "One ordered log of events, and everything that is folded from it.",
            "description": "Positions count events from 1. Errors are problem details (RFC 9457) with a stable `code`: "
            "`title` says what happened, `detail` what to do. Bodies may be sent, and are received, with gzip or zstd. "
            "A server with keys wants the header `Authorization: Bearer efk_…`. "
            "The routes of a store are also served below `/v1/stores/NAME`.",
            "version": eventfold.__version__,
        },
        "servers": [{"url": root_path or "/"}],
        "tags": [{"name": each} for each in used],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": types.components,
            "responses": {f"Problem{status}": _problem(status) for status in sorted(MEANINGS) if status >= 400},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key (`efk_…`) or a token (JWT). Each operation names its scope.",
                }
            },
        },
    }
    return msgspec.json.encode(found)


class _Types:
    """The schemas of the types of all routes: named ones as components, others in place."""

    def __init__(self, routes: Sequence[Route]) -> None:
        wanted: list[Any] = [Problem]
        for route in routes:
            wanted += [each for each in (route.request, route.response) if each is not None]
            wanted += [parameter.type for parameter in route.parameters]
            wanted += [item for item in [item_of(route.response)] if item is not None]
        schemas, components = msgspec.json.schema_components(wanted, ref_template=REFERENCE)
        self._schemas = list(zip(wanted, schemas, strict=True))
        self.components: Json = {name: _tidy(schema) for name, schema in sorted(components.items())}

    def schema(self, kind: Any) -> Json:
        """Return the schema of a type of a route."""
        return _tidy(next(schema for each, schema in self._schemas if each is kind or each == kind))


def _tidy(schema: Any) -> Any:
    """A schema without titles, which repeat names."""
    if isinstance(schema, list):
        return [_tidy(each) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    plain = cast("Json", schema)
    return {
        key: {name: _tidy(each) for name, each in value.items()} if key == "properties" else _tidy(value)
        for key, value in plain.items()
        if key != "title" or not isinstance(value, str)
    }


def item_of(response: Any) -> Any:
    """The type of one line of a response as NDJSON: that of the elements of its first list; None if it has none."""
    if not (isinstance(response, type) and issubclass(response, msgspec.Struct)):
        return None
    hints = typing.get_type_hints(response, include_extras=True)
    for name in response.__struct_fields__:
        for hint in (hints[name], *get_args(hints[name])):
            if get_origin(hint) is list:
                return get_args(hint)[0]
    return None


def _template(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def operation_id(route: Route) -> str:
    """The name of an operation: its method and the words of its path, as `get-events-by-id`."""
    words = re.findall(r"[\w-]+", re.sub(r":\w+\}", "}", route.path.removeprefix("/v1")))
    return "-".join([route.method.lower(), *dict.fromkeys(words)])


def group_of(route: Route) -> str:
    """What the route is about, for a reader."""
    return GROUPS.get(route.path.removeprefix("/v1").strip("/").partition("/")[0], OPERATIONS)


def _operation(route: Route, types: _Types, stores: list[str], shows_names: bool) -> Json:
    name = operation_id(route)
    example = EXAMPLES.get(name)
    parameters = [_parameter(each, types) for each in route.parameters]
    if stores:
        schema = {"type": "string"} | ({"enum": stores} if shows_names else {})
        about = "The name of a store: `GET /v1/stores` lists those that the caller may use."
        store = {"name": "store", "in": "path", "description": about, "required": True, "schema": schema}
        parameters.insert(0, store)
    found: Json = {
        "operationId": name,
        "tags": [group_of(route)],
        "summary": route.summary,
        "description": f"Needs the scope `{route.scope.value}`." if route.scope else "Needs no credential.",
    }
    if parameters:
        found["parameters"] = parameters
    if route.request is not None:
        schema = types.schema(route.request)
        content: Json = {media: {"schema": schema} for media in route.request_media}
        if example is not None and example.request is not None:
            content[route.request_media[0]]["example"] = example.request
        found["requestBody"] = {"required": True, "content": content}
    found["responses"] = _responses(route, types)
    found["security"] = [{"bearer": [route.scope.value]}] if route.scope else []
    return found


def _parameter(parameter: Parameter, types: _Types) -> Json:
    schema = types.schema(parameter.type)
    schema.pop("description", None)
    found: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.summary if parameter.summary.endswith(".") else f"{parameter.summary}.",
        "required": parameter.required or parameter.place == "path",
        "schema": schema,
    }
    if parameter.place == "query" and get_origin(parameter.type) is dict:
        found |= {"style": "form", "explode": True}  # each item is a parameter of its own
    return found


def _responses(route: Route, types: _Types) -> Json:
    name = operation_id(route)
    success: Json = {"description": f"{route.summary}."}
    content = {media: _content(route, media, types) for media in route.media}
    if content and (route.response is not None or route.media != (JSON,)):
        example = EXAMPLES.get(name)
        if example is not None and example.response is not None and JSON in content:
            content[JSON]["example"] = example.response
        success["content"] = content
    links = {link: {"operationId": target, "parameters": values} for link, target, values in LINKS.get(name, ())}
    if links:
        success["links"] = links
    found: Json = {str(route.status): success}
    for status in sorted(statuses_of(route)):
        if status < 300:
            found[str(status)] = {"description": "The same call was answered before.", "content": content}
        elif status == 304:
            found["304"] = {"description": MEANINGS[304]}
        else:
            found[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return dict(sorted(found.items()))


def _content(route: Route, media: str, types: _Types) -> Json:
    if media in (JSON, *route.request_media):
        return {"schema": types.schema(route.response)} if route.response is not None else {}
    if media == NDJSON:
        item = item_of(route.response)
        return {"itemSchema": types.schema(item)} if item is not None else {}
    if media == SSE:
        text = {"type": "string"}
        return {"itemSchema": {"type": "object", "properties": {"id": text, "event": text, "data": text}}}
    return {}


def statuses_of(route: Route) -> set[int]:
    """The statuses of a route besides that of success."""
    found = {500, *route.errors}
    if route.scope is not None:
        found |= {401, 403, 429, 501, 503}
    if route.of_store:
        found |= {404, 501, 503}
    if route.parameters:
        found.add(422)
    if route.request is not None:
        found |= {413, 415, 422}
    if len(route.media) > 1:
        found.add(406)
    if route.is_writing:
        found |= {403, 507} if route.of_store else {403}
    return found - {route.status}


def _problem(status: int) -> Json:
    codes = sorted({each.code for kind, its in STATUSES if its == status for each in _family(kind, status)})
    found: Json = {
        "description": f"{MEANINGS[status]}{' Codes: ' if codes else ''}{', '.join(f'`{code}`' for code in codes)}",
        "content": {PROBLEM: {"schema": {"$ref": REFERENCE.format(name="Problem")}}},
    }
    if status in RETRIED:
        found["headers"] = {
            "Retry-After": {"description": "Seconds to wait, where they are known.", "schema": {"type": "string"}}
        }
    return found


def _family(kind: type[EventfoldError], status: int) -> Iterable[type[EventfoldError]]:
    """An error class and those below it that have the same status."""
    if next(its for each, its in STATUSES if issubclass(kind, each)) == status:
        yield kind
    for below in kind.__subclasses__():
        yield from _family(below, status)
