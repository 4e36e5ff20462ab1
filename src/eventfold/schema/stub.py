"""Code to start from: an old event class as in the lock file, and its upcaster.

Knows: JSON Schema as in a lock file. Does not know: which change needs it.
"""

from __future__ import annotations

import keyword
import re
from typing import Any, cast

_TYPE_BY_FORMAT = {"uuid": "UUID", "decimal": "Decimal", "date": "date", "date-time": "datetime", "time": "time"}
_TYPE_BY_KIND = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def upcaster_stub(name: str, version: int, entry: dict[str, Any] | None = None, newest: str = "") -> str:
    """The class of this version with its fields, and a stub of its upcaster to the class `newest`."""
    word = _class_name(name)
    step = re.sub(r"\W+|(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    fields = _field_lines(entry) if entry else ["...  # the fields as they were"]
    target = newest or word
    return "\n".join(
        [
            f'class {word}V{version}(ef.Event, type="{name}", version={version}):',
            *(f"    {line}" for line in fields),
            "",
            "@ef.upcast",
            f"def {step}_from_{version}(old: {word}V{version}) -> {target}:",
            f"    return {target}(...)",
        ]
    )


def _class_name(name: str) -> str:
    parts = name.replace("_", "-").replace(".", "-").split("-")
    return "".join(part.capitalize() if part.islower() else part for part in parts)


def _field_lines(entry: dict[str, Any]) -> list[str]:
    required = set(entry["required"])
    schemas = cast("dict[str, dict[str, Any]]", entry["fields"])
    ordered = sorted(schemas, key=lambda field: field not in required)  # those with defaults come last
    lines: list[str] = []
    for field in ordered:
        kind = python_type(schemas[field])
        key = entry["tags"].get(field)
        if key == field:
            kind = "ef.Tag" if kind == "str" else f"ef.Tag[{kind}]"
        elif key:
            kind = f'Annotated[{kind}, ef.tag("{key}")]'
        named, stored = (field, "") if field.isidentifier() and not keyword.iskeyword(field) else (f"{field}_", field)
        default = "" if field in required else repr(schemas[field].get("default"))
        if stored:
            given = f'name="{stored}"' + (f", default={default}" if default else "")
            lines.append(f"{named}: {kind} = msgspec.field({given})")
        else:
            lines.append(f"{named}: {kind}" + (f" = {default}" if default else ""))
    return lines or ["..."]


def python_type(schema: Any) -> str:
    """A field's type as Python; a nested object is a plain dict, which accepts any content."""
    plain = cast("dict[str, Any]", schema)
    if "anyOf" in plain:
        return " | ".join(dict.fromkeys(python_type(each) for each in plain["anyOf"]))
    if "enum" in plain:
        return f"Literal[{', '.join(map(repr, plain['enum']))}]"
    kind = plain.get("type")
    if isinstance(kind, list):
        return " | ".join(_TYPE_BY_KIND.get(str(each), "Any") for each in cast("list[Any]", kind))
    if kind == "array":
        return f"list[{python_type(plain.get('items') or {})}]"
    if kind == "object":
        return f"dict[str, {python_type(plain.get('additionalProperties') or {})}]"
    return _TYPE_BY_FORMAT.get(str(plain.get("format")), _TYPE_BY_KIND.get(str(kind), "Any"))
