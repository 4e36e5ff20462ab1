"""An event type that is declared by a JSON Schema: it checks the data of events, and derives their tags.

Knows: jsonschema_rs, paths of fields. Does not know: where a declaration is kept, classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import jsonschema_rs
import msgspec

from eventfold.core.codec import MOST_NESTED, is_nested_deeper
from eventfold.core.envelope import NewEvent
from eventfold.core.tags import check_name, in_utc
from eventfold.errors import InvalidEvent, InvalidInput
from eventfold.server.events.tags import with_derived

EACH = "*"  # in a path: every element of an array


class SchemaDeclaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The data of an event type as JSON Schema (2020-12 unless it names another draft), and which fields are tags.

    `tags` maps the path of a field to the key of its tag: {"/account": "account", "/lines/*/sku": "sku"}.
    """

    schema: dict[str, Any]
    tags: dict[str, str] = {}


class DeclaredType:
    """One version of a type. Raises InvalidInput if its schema or a path cannot be used."""

    def __init__(self, type: str, version: int, declaration: SchemaDeclaration) -> None:
        self.type, self.version, self.declaration = type, version, declaration
        self._validator = _validator(declaration.schema)
        self._paths = [(_parse_path(path), _checked_key(key)) for path, key in declaration.tags.items()]

    def checked(self, event: NewEvent) -> NewEvent:
        """Return the event with the tags of its data. Raises InvalidEvent if data or tags do not fit."""
        value = None if event.codec != "json" or is_nested_deeper(event.data) else msgspec.json.decode(event.data)
        if not isinstance(value, dict):
            what = f"nested in more than {MOST_NESTED} levels" if event.codec == "json" else "not JSON"
            if value is not None:
                what = "not an object"
            raise InvalidEvent(
                f"The data of this {event.type} is {what}.", "Send one JSON object.", type=event.type, field=""
            )
        error = next(self._validator.iter_errors(value), None)
        if error is not None:
            place = "".join(f"/{part}" for part in error.instance_path)
            raise InvalidEvent(
                f"The data of this {event.type} does not fit its schema{f' at {place}' if place else ''}: "
                f"{error.message[:300]}.",
                f"Send what version {self.version} declares: GET /v1/schemas/{self.type}/{self.version} shows it.",
                type=event.type,
                field=place,
            )
        derived = [
            in_utc(f"{key}:{text}") for path, key in self._paths for text in _texts(event.type, value, path, path)
        ]
        return with_derived(event, derived, {key for _, key in self._paths})


def _validator(schema: dict[str, Any]) -> Any:
    if is_nested_deeper(msgspec.json.encode(schema)):
        raise _unusable(f"it is nested in more than {MOST_NESTED} levels")
    if schema.get("type") != "object":
        raise _unusable('the data of an event is an object, and the schema does not say "type": "object"')
    try:
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),  # linear in the length of the text, without look-around
            offline=True,  # nothing is fetched, whatever $ref names
        )
    except ValueError as error:
        raise _unusable(str(getattr(error, "message", error))[:300]) from error


def _unusable(reason: str) -> InvalidInput:
    return InvalidInput(
        f"This is not a schema that the server can use: {reason}.",
        "Send a JSON Schema of an object, with references within itself only and patterns without look-around.",
        field="schema",
    )


def _parse_path(text: str) -> tuple[str, ...]:
    """Return a JSON Pointer (RFC 6901), in which * is every element of an array, as its parts."""
    if not text.startswith("/"):
        raise InvalidInput(
            f"{text[:60]!r} is not the path of a field.",
            "Write /account, /owner/id, or /lines/*/sku for the elements of an array.",
            field="tags",
        )
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def _checked_key(key: str) -> str:
    check_name("tag key", key, error=InvalidInput)
    if ":" in key:
        raise InvalidInput(
            f"The tag key {key!r} contains a colon, which ends a key.", "Choose another key.", field="tags"
        )
    return key


def _texts(type: str, value: Any, path: tuple[str, ...], whole: tuple[str, ...]) -> Iterator[str]:
    """Iterate over the texts at a path: none if there is no value, several for an array."""
    if value is None:
        return
    if isinstance(value, list) and (not path or path[0] == EACH):
        for each in cast("list[Any]", value):
            yield from _texts(type, each, path[1:], whole)
    elif path:
        if isinstance(value, dict):
            yield from _texts(type, cast("dict[str, Any]", value).get(path[0]), path[1:], whole)
    elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        yield str(value)
    else:
        place = "".join(f"/{part}" for part in whole)
        shown = msgspec.json.encode(value)[:60].decode(errors="replace")
        raise InvalidEvent(
            f"The field {place} of this {type} cannot be a tag: it is {shown}.",
            "Tags are text, integers, or arrays of these.",
            type=type,
            field=place,
        )
