"""The public API, pinned: every public name with its parameters, defaults and annotations.

    python -m tests.test_public_api

writes `tests/public_api.txt`; the test compares it. From 1.0 on a line that changes or goes is a change for every user:
a new one is added to the table in `core/renamed.py`, or to a new major version. Knows: which classes are public. Does
not know: what any of them means.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec

from eventfold.core.renamed import RenamedAttribute

FILE = Path(__file__).parent / "public_api.txt"

# What each module has to offer: the names of its `__all__`, or these.
MODULES: dict[str, tuple[str, ...] | None] = {
    "eventfold": None,
    "eventfold.errors": (),  # every class that it defines
    "eventfold.processes": None,
    "eventfold.testing": None,
    "eventfold.testing.properties": (),
    "eventfold.testing.strategies": (),
    "eventfold.webhooks": ("key_of", "sign", "verify"),
}
# What public functions return and users hold: no public name, but public attributes.
RETURNED = {
    "eventfold.core.query": ("Cursor",),
    "eventfold.core.state": ("Change", "Step"),
    "eventfold.log.copy": ("Copied",),
    "eventfold.ports.engine": ("TagCount", "TypeCount"),
    "eventfold.ports.messages": ("Capabilities", "Head"),
    "eventfold.ports.services": ("RestoreResult", "UpgradeResult"),
    "eventfold.ports.target": ("Checkpoint", "ParkedEvent", "ProjectionRecord"),
    "eventfold.processes.classes": ("ProcessOptions",),  # class keywords
    "eventfold.processes.inspection": ("Instance",),
    "eventfold.processes.runner": ("AsyncProcessRunner", "ProcessRunner"),
    "eventfold.projections.admin": ("ProjectionAdmin",),
    "eventfold.projections.async_admin": ("AsyncProjectionAdmin",),
    "eventfold.projections.classes": ("ClassOptions",),  # class keywords
    "eventfold.projections.comparison": ("Comparison", "Difference", "RowProof"),
    "eventfold.projections.followers": ("AsyncFollower", "Follower"),
    "eventfold.projections.rows_async": ("AsyncSelection",),
    "eventfold.projections.status": ("Status",),
    "eventfold.projections.verify": ("Flaw", "LogProof", "Proof"),
    "eventfold.projections.view": ("View",),
    "eventfold.selection.column": ("ComparableColumn",),
    "eventfold.selection.filters": ("Filter",),
    "eventfold.selection.rows": ("Rows",),
    "eventfold.selection.selection": ("Selection",),
    "eventfold.selection.source": ("Explanation",),
    "eventfold.testing.scenario": ("Scenario",),
    "eventfold.transactions": ("AsyncJoining", "Joining"),
}
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
PLACE = re.compile(r"\b(?:eventfold|collections\.abc|builtins|typing|datetime|uuid)\.(?:[a-z_]\w*\.)*(?=[A-Za-z_])")


def text_of(value: Any) -> str:
    """An annotation or a default, without the module that a name happens to stand in."""
    shown = value if isinstance(value, str) else value.__name__ if isinstance(value, type) else repr(value)
    if isinstance(value, FunctionType):
        shown = "…"
    return PLACE.sub("", ADDRESS.sub("", shown))


def default_of(value: Any) -> str:
    """A default as one writes it."""
    return repr(value) if isinstance(value, str) else text_of(value)


def signature_of(function: Any) -> str:
    """Parameters with annotations and defaults, and what is returned."""
    signature, empty = inspect.signature(function), inspect.Signature.empty
    shown: list[str] = []
    kinds = {each.kind for each in signature.parameters.values()}
    named = False
    for each in signature.parameters.values():
        mark = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(each.kind, "")
        if each.kind is inspect.Parameter.KEYWORD_ONLY and not named and inspect.Parameter.VAR_POSITIONAL not in kinds:
            shown.append("*")
        named = named or each.kind is inspect.Parameter.KEYWORD_ONLY
        hint = "" if each.annotation is empty else f": {text_of(each.annotation)}"
        default = "" if each.default is empty else f" = {default_of(each.default)}"
        shown.append(f"{mark}{each.name}{hint}{default}")
    answer = "" if signature.return_annotation is empty else f" -> {text_of(signature.return_annotation)}"
    return f"({', '.join(shown)}){answer}"


def members_of(cls: type) -> Iterator[str]:
    """A line for each public attribute of a class, its own and inherited ones, sorted."""
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.partition(".")[0] == "eventfold":
            found |= {name: value for name, value in vars(owner).items() if not name.startswith("_")}
    fields = {each.name: each for each in msgspec.structs.fields(cls)} if issubclass(cls, msgspec.Struct) else {}
    for name in sorted(found | fields):
        value = found.get(name)
        if isinstance(value, RenamedAttribute):
            continue
        if name in fields:
            yield f".{name}: {text_of(fields[name].type)}"
        elif isinstance(value, property):
            yield f".{name} -> {text_of(inspect.signature(value.fget or (lambda: None)).return_annotation)}"
        elif isinstance(value, classmethod | staticmethod):
            yield f".{name}{signature_of(getattr(cls, name))}"
        elif isinstance(value, FunctionType):
            wait = "await " if inspect.iscoroutinefunction(value) else ""
            yield f"{wait}.{name}{signature_of(value)}"
        elif name == "code":
            yield f".code = {value!r}"


def lines_of(name: str, thing: Any) -> Iterator[str]:
    """A public name, and what it has."""
    if isinstance(thing, type):
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        try:
            made = signature_of(thing)
        except ValueError:
            made = "(…)"
        yield f"class {name}{made.removesuffix(' -> None')}" + (f" is a {bases}" if bases else "")
        yield from (f"    {line}" for line in members_of(thing))
    elif isinstance(thing, FunctionType):
        yield f"{name}{signature_of(thing)}"
    else:
        yield f"{name} = {text_of(thing)}"


def names_of(module: Any, chosen: tuple[str, ...] | None) -> list[str]:
    """The public names of a module, sorted."""
    if chosen is None:
        return sorted(module.__all__)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return sorted(chosen or own)


def api() -> str:
    """Everything, as the file has it."""
    lines: list[str] = []
    for place, chosen in {**MODULES, **RETURNED}.items():
        module = importlib.import_module(place)
        lines.append(f"# {place}")
        for name in names_of(module, chosen):
            lines += lines_of(name, getattr(module, name))
        lines.append("")
    return "\n".join(lines)


def test_the_public_api_is_as_written_down() -> None:
    """Every name, parameter, default and annotation; a change on purpose is written by the command above."""
    then, now = FILE.read_text("utf-8"), api()
    changed = "\n".join(
        difflib.unified_diff(then.splitlines(), now.splitlines(), "written down", "now", lineterm="", n=0)
    )
    assert then == now, f"if it is meant, run python -m tests.test_public_api:\n{changed}"


if __name__ == "__main__":
    FILE.write_text(api(), "utf-8")
    print(f"{FILE} is written")
