"""Whether events of one version of a type can be read by clients that know the next version only.

Compatible are: new optional fields, fields that become optional, wider types, values and limits, new tags, and removed
fields unless `additionalProperties` is false. A keyword whose effect cannot be compared must stay the same.
Knows: JSON Schemas as data. Does not know: classes, where schemas are kept.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from typing import Any, cast

import jsonschema_rs
import msgspec

from eventfold.errors import InvalidInput
from eventfold.server.refusals import SchemaConflict
from eventfold.server.schemas.declared import SchemaDeclaration

REMEDY = (
    "Compatible are new optional fields, fields that become optional, wider types, values and limits, new tags, and "
    "removed fields unless additionalProperties is false. For anything else declare another type."
)
Schema = dict[str, Any]
ANNOTATIONS = frozenset("title description default examples deprecated readOnly writeOnly $comment $schema".split())
COMPARED = frozenset("type enum const properties required additionalProperties items anyOf format pattern".split())
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
# The effect of these depends on other keywords beside them, or elsewhere.
CONTEXTUAL = frozenset(
    "$dynamicRef $ref $anchor $dynamicAnchor patternProperties prefixItems additionalItems unevaluatedProperties "
    "unevaluatedItems if then else contains minContains maxContains".split()
)
TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
MAX_PARTS = 10_000  # of a schema, with its definitions in place
DEFINITION = re.compile(r"#/(\$defs|definitions)/([^/~%]+)")
_encode = msgspec.json.Encoder(order="sorted").encode
NEVER: Schema = {"not": {}}


def check_compatible(type: str, older: tuple[int, SchemaDeclaration], newer: tuple[int, SchemaDeclaration]) -> None:
    """Raise SchemaConflict with the reason if events of the older version would not fit the newer one."""
    (old_version, old), (new_version, new) = older, newer
    if old.schema.get("$schema") != new.schema.get("$schema"):
        reason = "it is of another draft of JSON Schema"
    else:
        reason = next(_of_tags(old.tags, new.tags), None) or misfit(_resolved(old.schema), _resolved(new.schema), "")
    if reason is not None:
        raise SchemaConflict(
            f"Clients of version {new_version} of {type} cannot read events of version {old_version}: {reason}.",
            REMEDY,
            type=type,
            version=new_version,
        )


def _of_tags(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for path, key in old.items():
        if new.get(path) != key:
            yield f"{path} was the tag {key}, and queries by it would miss new events"


def _resolved(schema: Schema) -> Schema:
    """Return the schema with its definitions in place, without annotations, with objects in place of booleans."""
    definitions = {
        f"#/{name}/{each}": found for name in ("$defs", "definitions") for each, found in schema.get(name, {}).items()
    }
    plain = {name: each for name, each in schema.items() if name not in ("$defs", "definitions", "$id")}

    count = 0

    def resolve(each: Any, above: tuple[str, ...]) -> Schema:
        nonlocal count
        count += 1
        if count > MAX_PARTS:
            raise InvalidInput(
                f"With its definitions in place the schema has more than {MAX_PARTS:,} parts, too many to compare.",
                "Use fewer references to definitions within definitions.",
                field="schema",
            )
        if isinstance(each, bool):
            return {} if each else NEVER
        found = {name: value for name, value in each.items() if name not in ANNOTATIONS}
        reference = found.pop("$ref", None)
        if reference is not None:
            if reference not in definitions or not DEFINITION.fullmatch(reference):
                return {"$ref": reference, "$whole": schema, **found}
            target = {"$ref": reference} if reference in above else resolve(definitions[reference], (*above, reference))
            return {"allOf": [target, resolve(found, above)]} if found else target
        if isinstance(found.get("items"), list):  # before 2020-12
            found["prefixItems"] = found.pop("items")
        for name in ("items", "additionalProperties"):
            if name in found:
                found[name] = resolve(found[name], above)
        if isinstance(found.get("properties"), dict):
            found["properties"] = {name: resolve(value, above) for name, value in found["properties"].items()}
        if "anyOf" in found:
            found["anyOf"] = [resolve(value, above) for value in found["anyOf"]]
        return found

    return resolve(plain, ())


def misfit(old: Schema, new: Schema, place: str) -> str | None:
    """Return why a value that the old schema accepts may not be accepted by the new one; None if it always is."""
    if new == {} or old == NEVER or is_same(old, new):
        return None
    where = f"the field {place}" if place else "the data"
    if CONTEXTUAL & (new.keys() | old.keys()):
        return f"{where} changes, and {min(CONTEXTUAL & (new.keys() | old.keys()))} cannot be compared"
    if "anyOf" in old and len(old) == 1:
        return next((reason for each in old["anyOf"] if (reason := misfit(each, new, place))), None)
    if "anyOf" in new and len(new) == 1:
        reasons = [misfit(old, each, place) for each in new["anyOf"]]
        return None if None in reasons else reasons[0]
    for name in sorted(new.keys() - COMPARED - {*LOWER, *UPPER} | ({"anyOf"} & new.keys())):
        if name not in old or not is_same(old[name], new[name]):
            return f"{where} has another {name}"
    values = _values(old)
    if values is not None:
        try:
            accepts = jsonschema_rs.validator_for(new, offline=True, validate_formats=True).is_valid
        except ValueError:
            return f"{where} changes, and a reference in it cannot be compared"
        refused = [msgspec.json.encode(value).decode() for value in values if not accepts(value)]
        return f"{where} could be {refused[0][:60]}" if refused else None
    return _of_types(old, new, where) or _of_limits(old, new, where) or _of_parts(old, new, place)


def is_same(some: Any, other: Any) -> bool:
    """Whether two schemas or declarations are the same JSON."""
    return _encode(some) == _encode(other)  # in Python, 1 == True


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: Schema) -> frozenset[str]:
    given = schema.get("type")
    if given is None:
        return TYPES
    found = {given} if isinstance(given, str) else set(cast("list[str]", given))
    return frozenset(found | ({"integer"} if "number" in found else set()))


def _of_types(old: Schema, new: Schema, where: str) -> str | None:
    lost = _types(old) - _types(new)
    if lost:
        return f"{where} could be of the type {min(lost)}"
    if _values(new) is not None:
        return f"{where} could have any value, and has one of a list now"
    return None


def _of_limits(old: Schema, new: Schema, where: str) -> str | None:
    for names, is_wider in ((LOWER, operator.le), (UPPER, operator.ge)):
        for name in names:
            if name not in new:
                continue
            if isinstance(new[name], bool):  # of draft 4: whether the limit beside it is exclusive
                fits = not new[name] or old.get(name) is True
            else:
                fits = name in old and is_wider(new[name], old[name])
            if not fits:
                return f"{where} has a tighter {name}"
    for name in ("pattern", "multipleOf", "format"):
        if name in new and new[name] != old.get(name):
            return f"{where} has another {name}"
    return None


def _of_parts(old: Schema, new: Schema, place: str) -> str | None:
    """Compare the fields of an object, and the elements of an array."""
    where = f"the field {place}" if place else "the data"
    for name in new.get("required", ()):
        if name not in old.get("required", ()):
            return f"the field {place}/{name} is required now"
    was, now = old.get("properties", {}), new.get("properties", {})
    others_before, others_now = old.get("additionalProperties", {}), new.get("additionalProperties", {})
    for name in sorted(was.keys() | now.keys()):
        if name in now:
            before = was.get(name)
            if before is None:
                before = now[name] if "additionalProperties" not in old else others_before
        else:
            before = was[name]
        after = now.get(name, others_now)
        if after == NEVER and before != NEVER:
            return f"the field {place}/{name} is removed, and additional fields are refused"
        if reason := misfit(before, after, f"{place}/{name}"):
            return reason
    if others_now == NEVER and others_before != NEVER:
        return f"{where} could have additional fields"
    return misfit(others_before, others_now, f"{place}/*") or misfit(
        old.get("items", {}), new.get("items", {}), f"{place}/*"
    )
