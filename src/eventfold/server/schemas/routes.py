"""GET and PUT /schemas: the event types that the server knows, of registered classes and of JSON Schemas.

Knows: both kinds of declaration. Does not know: how events are checked by them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import msgspec
from starlette.responses import Response

from eventfold.errors import InvalidInput
from eventfold.schema.describe import describe
from eventfold.server.call import Call, json_response
from eventfold.server.content import compressed
from eventfold.server.refusals import NotFound, SchemaConflict
from eventfold.server.route import Parameter, Route
from eventfold.server.schemas.declared import DeclaredType, SchemaDeclaration
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_whole_store

JSON_SCHEMA, CLASS = "json-schema", "class"


class SchemaInfo(msgspec.Struct, omit_defaults=True):
    """One version of an event type. `tags`: path of a field → key of its tag. `declared`: "class" or "json-schema"."""

    type: str
    version: int
    declared: str
    schema: dict[str, Any]
    tags: dict[str, str] = {}
    doc: str = ""
    upcast: tuple[str, ...] = ()


class Schemas(msgspec.Struct):
    """Versions of event types, by type and version."""

    schemas: list[SchemaInfo]


async def list_schemas(call: Call) -> Response:
    """Answer with all versions of all types."""
    return await _answer(call, await known_schemas(call))


async def list_versions(call: Call) -> Response:
    """Answer with all versions of one type."""
    return await _answer(call, await _found(call))


async def one_version(call: Call) -> Response:
    """Answer with one version of a type; with all versions if the path names a type with a slash (%2F) and no more."""
    if _named(call)[1] is None:
        return await list_versions(call)
    version = version_of(call)
    found = next((each for each in await _found(call) if each.version == version), None)
    if found is None:
        raise NotFound(f"This type has no version {version} here.", "GET /v1/schemas/TYPE lists its versions.")
    return await compressed(call.request, json_response(found))


async def put(call: Call) -> Response:
    """Register a version of a type. 201 if it is new, 200 if it is registered already, 409 if it cannot be."""
    check_whole_store(call.caller)  # what a type means is the same for all who write it
    type, version = _named(call)[0], version_of(call)
    declaration = await call.body(SchemaDeclaration)
    if (cls := call.server.registered.event_class(type)) is not None:
        raise SchemaConflict(
            f"{type} is declared by the class {cls.__module__}.{cls.__qualname__} of this server.",
            "Change that class, or choose another type.",
            type=type,
            version=version,
        )
    is_new = await call.schemas.register(type, version, declaration, call.caller.name)
    return json_response(_of_declared(DeclaredType(type, version, declaration)), 201 if is_new else 200)


async def known_schemas(call: Call) -> list[SchemaInfo]:
    """Return the schemas that the caller may know of, by type and version."""
    found = [_of_class(cls) for cls in call.server.registered.events.values()]
    found += [_of_declared(each) for each in await call.schemas.all()]
    own = [each for each in found if not call.caller.types or each.type in call.caller.types]
    return sorted(own, key=lambda each: (each.type, each.version))


async def _found(call: Call) -> list[SchemaInfo]:
    type = _named(call)[0]
    found = [each for each in await known_schemas(call) if each.type == type]
    if not found:
        raise NotFound("No class or JSON Schema of this server declares this type.", "GET /v1/schemas lists all.")
    return found


def _named(call: Call) -> tuple[str, str | None]:
    """The type and the version that the path names. A slash of a type is written %2F, which only the raw path shows."""
    scope = call.request.scope
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    *parts, last = map(unquote, raw.partition(b"?")[0].decode("latin-1").rpartition("/schemas/")[2].split("/"))
    return ("/".join(parts), last) if parts else (last, None)


def version_of(call: Call) -> int:
    """Return the version in the path. Raises InvalidInput."""
    text = _named(call)[1] or ""
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not 1 <= int(text) < 2**31:
        raise InvalidInput(f"{text[:40]!r} is no version.", "Versions are counted from 1.", field="version")
    return int(text)


def _of_declared(declared: DeclaredType) -> SchemaInfo:
    declaration = declared.declaration
    return SchemaInfo(declared.type, declared.version, JSON_SCHEMA, declaration.schema, declaration.tags)


def _of_class(cls: type) -> SchemaInfo:
    described = describe(cls)
    tags = {f"/{field}": key for field, key in described.tags.items()}
    return SchemaInfo(
        described.type, described.version, CLASS, described.schema, tags, described.doc, tuple(described.upcast)
    )


async def _answer(call: Call, found: list[SchemaInfo]) -> Response:
    return await compressed(call.request, json_response(Schemas(found)))


_TYPE = Parameter(
    name="type", type=str, summary="The name of the type; a slash in it is %2F", place="path", required=True
)
_VERSION = Parameter(name="version", type=int, summary="The version, from 1", place="path", required=True)
ROUTES = (
    Route(
        method="GET",
        path="/schemas",
        handler=list_schemas,
        scope=Scope.READ,
        summary="The event types that the server knows, with JSON Schemas of their data and their tags",
        response=Schemas,
    ),
    Route(
        method="GET",
        path="/schemas/{type:path}/{version}",
        handler=one_version,
        scope=Scope.READ,
        summary="One version of an event type",
        parameters=(_TYPE, _VERSION),
        response=SchemaInfo,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/schemas/{type:path}",
        handler=list_versions,
        scope=Scope.READ,
        summary="All versions of an event type",
        parameters=(_TYPE,),
        response=Schemas,
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/schemas/{type:path}/{version}",
        handler=put,
        scope=Scope.MANAGE,
        summary="Register an event type by a JSON Schema: clients may then append its events",
        parameters=(_TYPE, _VERSION),
        request=SchemaDeclaration,
        response=SchemaInfo,
        status=201,
        errors=(200, 409),
    ),
)
