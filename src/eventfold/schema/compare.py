"""Room: which change of a schema breaks the reading of old events, and what to write instead.

The question is always the same: can today's classes read every event the locked ones have written, and does
a query by tag still find what it found? Knows: lock files as data. Does not know: classes, files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `breaking`: old events would not be read, or not found. `write`, `code`: what mends it."""

    type: str
    version: int
    field: str | None
    what: str
    breaking: bool
    write: str = ""
    code: str = ""


def compare(locked: dict[str, Any], current: dict[str, Any]) -> list[Finding]:
    """Every difference between two locks, breaking ones first."""
    found = list(_types(locked["types"], current["types"]))
    return sorted(found, key=lambda f: (not f.breaking, f.type, f.version, f.field or ""))


def _types(locked: dict[str, Any], current: dict[str, Any]) -> Iterator[Finding]:
    renamed = {alias: name for name, entry in current.items() for alias in entry["aliases"]}
    for name, entry in locked.items():
        now = current.get(name)
        if now is None and name in renamed:
            yield _note(name, 0, None, f"is now called {renamed[name]}, which reads it by an alias")
            now = current[renamed[name]]
        if now is None:
            yield _break(
                name,
                0,
                None,
                "has no class any more",
                f'Keep the class, or give the one that takes its place aliases=("{name}",).',
            )
            continue
        yield from _versions(name, entry["versions"], now["versions"])
    for name in current.keys() - locked.keys():
        if not any(alias in locked for alias in current[name]["aliases"]):
            yield _note(name, 0, None, "is new")


def _versions(name: str, locked: dict[str, Any], current: dict[str, Any]) -> Iterator[Finding]:
    newest = max(map(int, current))
    for version, old in sorted(locked.items(), key=lambda pair: int(pair[0])):
        number = int(version)
        same = current.get(version)
        if same is not None:
            yield from _fields(name, number, old, same)
            if number < newest and not same["upcast"]:
                yield _break(
                    name, number, None, "has no upcaster that leads on", "Write the upcaster.", _stub(name, number)
                )
            continue
        if number > newest:
            yield _break(name, number, None, f"is newer than version {newest} of today", "Never lower a version.")
            continue
        chained = any(entry["upcast"] for entry in current.values())
        weak = list(_fields(name, number, old, current[str(newest)]))
        if chained or any(f.breaking for f in weak):
            yield _break(
                name,
                number,
                None,
                "has no class of its version any more",
                "Keep the old class, and an upcaster from it.",
                _stub(name, number),
            )
        else:
            yield _note(name, number, None, f"is read as version {newest}, which fits it")
    for version in current.keys() - locked.keys():
        yield _note(name, int(version), None, "is a new version")


def _fields(name: str, version: int, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Finding]:
    was, now = old["fields"], new["fields"]
    for field in now.keys() - was.keys():
        if field in new["required"]:
            yield _break(
                name,
                version,
                field,
                "is new and required, and old events have none",
                f"Give it a default, or raise the version to {version + 1} and write an upcaster.",
                _stub(name, version),
            )
        else:
            yield _note(name, version, field, "is new, and has a default for old events")
    unknown = new.get("unknown", "ignored")
    for field in was.keys() - now.keys():
        if unknown == "refused":
            yield _break(
                name,
                version,
                field,
                "is gone, and the class refuses stored fields that it does not know",
                "Keep the field, or take forbid_unknown_fields=True away.",
            )
        else:
            yield _note(name, version, field, f"is gone; its old values stay in the log and are {unknown}")
    if unknown == "refused" != old.get("unknown"):
        yield _note(name, version, None, "refuses unknown fields from now on; scan your log for fields of former years")
    elif unknown != old.get("unknown", "ignored"):
        yield _note(name, version, None, f"has unknown fields {unknown} from now on")
    for field in was.keys() & now.keys():
        wider = _reads(now[field], was[field])
        if not wider:
            yield _break(
                name,
                version,
                field,
                f"was {kind_of(was[field])} and is {kind_of(now[field])}",
                f"Keep reading the old type, or raise the version to {version + 1} and write an upcaster.",
                _stub(name, version),
            )
        elif now[field] != was[field]:
            yield _note(
                name, version, field, f"was {kind_of(was[field])} and is {kind_of(now[field])}, which reads it too"
            )
        if field in new["required"] and field not in old["required"]:
            yield _note(name, version, field, "lost its default; every stored event has a value")
    for field in old["tags"].keys() | new["tags"].keys():
        before, after = old["tags"].get(field), new["tags"].get(field)
        if before is None and after is not None:
            yield _note(name, version, field, f"is tagged {after!r} from now on; older events are not found by it")
        elif before != after:
            yield _break(
                name,
                version,
                field,
                f"was tagged {before!r} and is {repr(after) if after else 'no tag'} now: queries would miss events",
                'Keep the tag key: a new name for the field takes Annotated[…, ef.tag("' + str(before) + '")].',
            )


def _reads(new: Any, old: Any) -> bool:
    """Whether a value written under the old schema is accepted by the new one."""
    if new == old or new == {}:
        return True
    olds = _alternatives(old)
    if len(olds) > 1:
        return all(_reads(new, each) for each in olds)
    if any(each == olds[0] for each in _alternatives(new)):
        return True
    return any(_one_reads(each, olds[0]) for each in _alternatives(new))


def _one_reads(new: dict[str, Any], old: dict[str, Any]) -> bool:
    if "enum" in old:
        return "enum" in new and set(map(str, old["enum"])) <= set(map(str, new["enum"]))
    if new.get("type") == "number" and old.get("type") == "integer":
        return True
    if new.get("type") != old.get("type") or new.get("format") != old.get("format") or "enum" in new:
        return False
    if new.get("type") == "array":
        return _reads(new.get("items", {}), old.get("items", {}))
    if new.get("type") == "object" and ("properties" in new or "properties" in old):
        was, now = old.get("properties", {}), new.get("properties", {})
        if new.get("additionalProperties") is False and was.keys() - now.keys():
            return False
        fits = all(_reads(now[name], was[name]) for name in was.keys() & now.keys())
        return fits and not (set(new.get("required", ())) - was.keys())
    if new.get("type") == "object":
        return _reads(new.get("additionalProperties", {}), old.get("additionalProperties", {}))
    limits = ("minimum", "maximum", "minLength", "maxLength", "pattern", "multipleOf", "minItems", "maxItems")
    return all(new.get(key) in (None, old.get(key)) for key in limits)


def _alternatives(schema: Any) -> list[dict[str, Any]]:
    plain = cast("dict[str, Any]", schema)
    if "anyOf" in plain:
        return [each for one in plain["anyOf"] for each in _alternatives(one)]
    if isinstance(plain.get("type"), list):
        return [{**plain, "type": each} for each in plain["type"]]
    return [{key: value for key, value in plain.items() if key != "default"}]


def kind_of(schema: Any) -> str:
    """A field's type in a word or two, for people."""
    names: list[str] = []
    for each in _alternatives(schema):
        if "enum" in each:
            names.append("one of " + ", ".join(map(str, each["enum"])))
        else:
            names.append(each.get("format") or each.get("type") or "anything")
    return " or ".join(names)


def _stub(name: str, version: int) -> str:
    word = "".join(part.capitalize() if part.islower() else part for part in name.replace("_", "-").split("-"))
    step = name.replace("-", "_").lower()
    return (
        f'class {word}V{version}(ef.Event, type="{name}", version={version}):\n'
        f"    ...  # the fields as they were\n\n"
        f"@ef.upcast\n"
        f"def {step}_from_{version}(old: {word}V{version}) -> {word}:\n"
        f"    return {word}(...)"
    )


def _break(type: str, version: int, field: str | None, what: str, write: str, code: str = "") -> Finding:
    return Finding(type=type, version=version, field=field, what=what, breaking=True, write=write, code=code)


def _note(type: str, version: int, field: str | None, what: str) -> Finding:
    return Finding(type=type, version=version, field=field, what=what, breaking=False)
