"""An event class as plain data: its name, version, fields as JSON Schema, tags, and the classes it is upcast to.

Knows: msgspec's and pydantic's schemas. Does not know: which change is breaking (compare.py does).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec

from eventfold.core.event import classes_named, declaration_of, known_names
from eventfold.core.json_values import renamed_fields
from eventfold.core.tags import tag_fields
from eventfold.core.unknown_fields import unknown_field_of
from eventfold.core.upcast import upcaster_from
from eventfold.errors import InvalidInput

LOCK_FORMAT = 1


class EventDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one event type. `tags`: stored field -> tag key; `upcast`: names of the classes it is read as.

    `unknown`: the treatment of stored fields that the class does not have: "ignored", "kept" or "refused".
    """

    type: str
    version: int
    aliases: tuple[str, ...] = ()
    schema: dict[str, Any]
    tags: dict[str, str]
    upcast: tuple[str, ...] = ()
    unknown: str = "ignored"
    doc: str = ""
    source: str = ""


def event_classes(modules: Iterable[str] = ()) -> list[type]:
    """The event classes declared in these modules and packages (none given: all known), by name and version."""
    wanted = tuple(modules)
    found = {
        cls
        for name in known_names()
        for cls in classes_named(name)
        if not wanted or any(cls.__module__ == m or cls.__module__.startswith(m + ".") for m in wanted)
    }
    return sorted(found, key=lambda cls: (declaration_of(cls).type, declaration_of(cls).version, cls.__qualname__))


def describe(cls: type) -> EventDescription:
    """One event class as data. Raises InvalidInput if its fields have no JSON Schema."""
    name = declaration_of(cls)
    step = upcaster_from(cls)
    try:
        if hasattr(cls, "model_json_schema"):
            raw = cast("dict[str, Any]", cast(Any, cls).model_json_schema())
        else:
            raw = msgspec.json.schema(cls)
    except (TypeError, NameError) as error:
        raise InvalidInput(
            f"The fields of {cls.__qualname__} have no JSON Schema: {error}.", "Annotate them with JSON-like types."
        ) from error
    hints = typing.get_type_hints(cls, include_extras=True)
    schema = _inline_definitions(raw, raw.get("$defs", {}))
    unknown_field = unknown_field_of(hints)
    stored = renamed_fields(cls)
    unknown = "refused" if schema.get("additionalProperties") is False else "ignored"
    if unknown_field is not None:
        del schema["properties"][unknown_field]  # unknown fields are stored beside the others, not within this one
        unknown = "kept"
    return EventDescription(
        type=name.type,
        version=name.version,
        aliases=name.aliases,
        schema=schema,
        tags={stored.get(field, field): key for field, key in tag_fields(hints).items()},
        unknown=unknown,
        upcast=tuple(f"{t.__module__}.{t.__qualname__}" for t in step.targets) if step else (),
        doc=_doc(cls),
        source=f"{cls.__module__}.{cls.__qualname__}",
    )


def build_lock(classes: Iterable[type]) -> dict[str, Any]:
    """The content of a lock file: every version of every type, without what may change freely.

    Documentation and source locations are omitted, so that the file changes if and only if a schema changes.
    """
    types: dict[str, dict[str, Any]] = {}
    for described in map(describe, classes):
        versions = types.setdefault(described.type, {"aliases": [], "versions": {}})
        versions["aliases"] = sorted({*versions["aliases"], *described.aliases})
        key = str(described.version)
        if key in versions["versions"]:
            raise InvalidInput(
                f"Two classes are {described.type} version {key}; one is {described.source}.",
                "Give one of them another name or version.",
                type=described.type,
            )
        entry = versions["versions"][key] = {
            "fields": described.schema.get("properties", {}),
            "required": sorted(described.schema.get("required", [])),
            "tags": described.tags,
            "upcast": bool(described.upcast),
        }
        if described.unknown != "ignored":
            entry["unknown"] = described.unknown
    return {"eventfold": LOCK_FORMAT, "types": dict(sorted(types.items()))}


def _doc(cls: type) -> str:
    text = inspect.getdoc(cls) or ""
    return "" if text == inspect.getdoc(cls.__base__ or object) else text


def _inline_definitions(schema: Any, definitions: dict[str, Any], above: tuple[str, ...] = ()) -> Any:
    """A schema with its definitions in place, so that a change inside one shows where it is used."""
    if isinstance(schema, list):
        return [_inline_definitions(each, definitions, above) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    plain = cast("dict[str, Any]", schema)
    reference = plain.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name in above:
            return {"$ref": name}  # a recursive type
        rest = {key: value for key, value in plain.items() if key != "$ref"}
        return _inline_definitions(definitions.get(name, {}), definitions, (*above, name)) | rest
    return {key: _inline_definitions(each, definitions, above) for key, each in _relevant_items(plain)}


def _relevant_items(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key not in ("$defs", "title", "description"):
            yield key, value
