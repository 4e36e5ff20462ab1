"""Which changes of a schema are breaking for stored events, and what to write instead.

A change is breaking if the present classes cannot read an event that the locked ones have written, or a query by tag no
longer finds it. Knows: lock files as data. Does not know: classes, files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from eventfold.schema.stub import upcaster_stub


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `breaking`: old events would not be read, or not found. `write`, `code`: how to fix it."""

    type: str
    version: int
    field: str | None
    what: str
    breaking: bool
    write: str = ""
    code: str = ""


def compare(locked: dict[str, Any], current: dict[str, Any]) -> list[Finding]:
    """Every difference between two locks, breaking ones first."""
    found = list(_compare_types(locked["types"], current["types"]))
    found.sort(key=lambda f: (not f.breaking, f.type, f.version, f.field or ""))
    said = set[str]()
    for index, each in enumerate(found):  # one upcaster fixes several fields: show its code once
        if each.code in said:
            found[index] = msgspec.structs.replace(each, code="")
        said.add(each.code)
    return found


def _compare_types(locked: dict[str, Any], current: dict[str, Any]) -> Iterator[Finding]:
    renamed = {alias: name for name, entry in current.items() for alias in entry["aliases"]}
    for name, entry in locked.items():
        now = current.get(name)
        if now is None and name in renamed:
            yield _compatible(name, 0, None, f"is now called {renamed[name]}, which reads it by an alias")
            now = current[renamed[name]]
        if now is None:
            yield _breaking(
                name,
                0,
                None,
                "has no class now",
                f'Keep the class, or give its replacement aliases=("{name}",).',
            )
            continue
        yield from _compare_versions(name, entry["versions"], now["versions"])
    for name in current.keys() - locked.keys():
        if not any(alias in locked for alias in current[name]["aliases"]):
            yield _compatible(name, 0, None, "is new")


def _compare_versions(name: str, locked: dict[str, Any], current: dict[str, Any]) -> Iterator[Finding]:
    newest = max(map(int, current))
    for version, old in sorted(locked.items(), key=lambda pair: int(pair[0])):
        number = int(version)
        same = current.get(version)
        if same is not None:
            yield from _compare_fields(name, number, old, same)
            if number < newest and not same["upcast"]:
                yield _breaking(
                    name,
                    number,
                    None,
                    "has no upcaster to the next version",
                    "Write the upcaster.",
                    upcaster_stub(name, number, old),
                )
            continue
        if number > newest:
            yield _breaking(
                name, number, None, f"is newer than the present version {newest}", "Do not lower the version."
            )
            continue
        chained = any(entry["upcast"] for entry in current.values())
        weak = list(_compare_fields(name, number, old, current[str(newest)]))
        if chained or any(f.breaking for f in weak):
            yield _breaking(
                name,
                number,
                None,
                "has no class of its version now",
                "Keep the old class, and write an upcaster from it.",
                upcaster_stub(name, number, old),
            )
        else:
            yield _compatible(name, number, None, f"is read as version {newest}, which accepts it")
    for version in current.keys() - locked.keys():
        yield _compatible(name, int(version), None, "is a new version")


def _compare_fields(name: str, version: int, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Finding]:
    was, now = old["fields"], new["fields"]
    for field in now.keys() - was.keys():
        if field in new["required"]:
            yield _breaking(
                name,
                version,
                field,
                "is new and required, and old events do not have it",
                f"Give it a default, or raise the version to {version + 1} and write an upcaster.",
                upcaster_stub(name, version, old),
            )
        else:
            yield _compatible(name, version, field, "is new, and has a default for old events")
    unknown = new.get("unknown", "ignored")
    for field in was.keys() - now.keys():
        if unknown == "refused":
            yield _breaking(
                name,
                version,
                field,
                "is removed, and the class refuses unknown stored fields",
                "Keep the field, or remove forbid_unknown_fields=True.",
            )
        else:
            yield _compatible(name, version, field, f"is removed; its old values stay in the log and are {unknown}")
    yield from _compare_unknown_fields(name, version, old, unknown)
    for field in was.keys() & now.keys():
        if not _accepts(now[field], was[field]):
            place, before, after = _locate_misfit(now[field], was[field], field)
            yield _breaking(
                name,
                version,
                place,
                f"was {before} and is {after}",
                f"Keep reading the old type, or raise the version to {version + 1} and write an upcaster.",
                upcaster_stub(name, version, old),
            )
        elif _without_default(now[field]) != _without_default(was[field]):
            yield _compatible(
                name,
                version,
                field,
                f"was {describe_type(was[field])} and is {describe_type(now[field])}, which accepts it too",
            )
        elif field not in new["required"] and now[field].get("default") != was[field].get("default", ...):
            if field not in old["required"]:
                before, after = was[field].get("default"), now[field].get("default")
                yield _compatible(
                    name,
                    version,
                    field,
                    f"has the default {after!r}, was {before!r}: events without it get the new one",
                )
            else:
                yield _compatible(name, version, field, "now has a default; every stored event has a value")
        if field in new["required"] and field not in old["required"]:
            yield _compatible(name, version, field, "lost its default; every stored event has a value")
    yield from _compare_tags(name, version, old, new)


def _compare_unknown_fields(name: str, version: int, old: dict[str, Any], unknown: str) -> Iterator[Finding]:
    if unknown == "refused" != old.get("unknown"):
        what = "now refuses unknown fields; scan your log for fields of earlier versions"
        yield _compatible(name, version, None, what)
    elif unknown != old.get("unknown", "ignored"):
        yield _compatible(name, version, None, f"now has unknown fields {unknown}")


def _compare_tags(name: str, version: int, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Finding]:
    was, now = _tags_by_stored_name(old, new), _tags_by_stored_name(new, old)
    for field in was.keys() | now.keys():
        before, after = was.get(field), now.get(field)
        if before is None and after is not None:
            yield _compatible(name, version, field, f"is now tagged {after!r}; older events are not found by it")
        elif before != after:
            state = f"tagged {after!r}" if after else "no tag"
            yield _breaking(
                name,
                version,
                field,
                f"was tagged {before!r} and is {state} now: queries would miss old events",
                'Keep the tag key: a new name for the field takes Annotated[…, ef.tag("' + str(before) + '")].',
            )


def _tags_by_stored_name(entry: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
    """The tag keys by the stored names of their fields.

    Lock files of earlier releases name a renamed field as its class did. It is then the field with the same key in the
    other lock, if this one has a field of that name.
    """
    tags = {field: key for field, key in entry["tags"].items() if field in entry["fields"]}
    for field, key in entry["tags"].items():
        if field not in entry["fields"]:
            twins = (
                name
                for name, same in other["tags"].items()
                if same == key and name in entry["fields"] and name not in tags
            )
            tags[next(twins, field)] = key
    return tags


def _accepts(new: Any, old: Any) -> bool:
    """Whether a value written under the old schema is accepted by the new one."""
    if new == old or new == {}:
        return True
    olds = _alternatives(old)
    if len(olds) > 1:
        return all(_accepts(new, each) for each in olds)
    if any(each == olds[0] for each in _alternatives(new)):
        return True
    return any(_accepts_one(each, olds[0]) for each in _alternatives(new))


def _accepts_one(new: dict[str, Any], old: dict[str, Any]) -> bool:
    if "enum" in old:
        return "enum" in new and set(map(str, old["enum"])) <= set(map(str, new["enum"]))
    if new.get("type") == "number" and old.get("type") == "integer":
        return True
    if new.get("type") != old.get("type") or new.get("format") != old.get("format") or "enum" in new:
        return False
    if new.get("type") == "array":
        return _accepts(new.get("items", {}), old.get("items", {})) and _limits_accept(new, old)
    if new.get("type") == "object" and ("properties" in new or "properties" in old):
        was, now = old.get("properties", {}), new.get("properties", {})
        if new.get("additionalProperties") is False and was.keys() - now.keys():
            return False
        fits = all(_accepts(now[name], was[name]) for name in was.keys() & now.keys())
        return fits and not (set(new.get("required", ())) - was.keys())
    if new.get("type") == "object":
        return _accepts(new.get("additionalProperties", {}), old.get("additionalProperties", {}))
    return _limits_accept(new, old)


def _limits_accept(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether no limit became tighter."""
    for key in ("minimum", "exclusiveMinimum", "minLength", "minItems"):
        if key in new and not (key in old and new[key] <= old[key]):
            return False
    for key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems"):
        if key in new and not (key in old and new[key] >= old[key]):
            return False
    return all(new.get(key) in (None, old.get(key)) for key in ("pattern", "multipleOf"))


def _locate_misfit(new: Any, old: Any, place: str) -> tuple[str, str, str]:
    """Where a value of the old schema does not fit the new one, as deep as possible, with the old and the new type."""
    was, now = old.get("properties"), new.get("properties")
    if was and now:
        for name in was.keys() & now.keys():
            if not _accepts(now[name], was[name]):
                return _locate_misfit(now[name], was[name], f"{place}.{name}")
        for name in set(new.get("required", ())) - was.keys():
            return f"{place}.{name}", "not there", "required"
        for name in was.keys() - now.keys():
            return f"{place}.{name}", describe_type(was[name]), "refused as unknown"
    if "items" in old and "items" in new and not _accepts(new["items"], old["items"]):
        return _locate_misfit(new["items"], old["items"], f"{place}[]")
    before, after = describe_type(old), describe_type(new)
    if before == after:
        before, after = f"{before} with {_limits(old)}", f"{after} with {_limits(new)}"
    return place, before, after


def _limits(schema: dict[str, Any]) -> str:
    limits = {key: value for key, value in schema.items() if key not in ("type", "format", "default", "items")}
    return ", ".join(f"{key} {value}" for key, value in limits.items()) or "no limit"


def _without_default(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "default"}


def _alternatives(schema: Any) -> list[dict[str, Any]]:
    plain = cast("dict[str, Any]", schema)
    if "anyOf" in plain:
        return [each for one in plain["anyOf"] for each in _alternatives(one)]
    if isinstance(plain.get("type"), list):
        return [{**plain, "type": each} for each in plain["type"]]
    return [{key: value for key, value in plain.items() if key != "default"}]


def describe_type(schema: Any) -> str:
    """A field's type in a few words."""
    names: list[str] = []
    for each in _alternatives(schema):
        if "enum" in each:
            names.append("one of " + ", ".join(map(str, each["enum"])))
        elif each.get("type") == "array":
            names.append(f"list of {describe_type(each['items'])}" if each.get("items") else "list")
        elif each.get("type") == "object" and each.get("additionalProperties"):
            names.append(f"dict of {describe_type(each['additionalProperties'])}")
        else:
            names.append(each.get("format") or each.get("type") or "anything")
    return " or ".join(dict.fromkeys(names))


def _breaking(type: str, version: int, field: str | None, what: str, write: str, code: str = "") -> Finding:
    return Finding(type=type, version=version, field=field, what=what, breaking=True, write=write, code=code)


def _compatible(type: str, version: int, field: str | None, what: str) -> Finding:
    return Finding(type=type, version=version, field=field, what=what, breaking=False)
