"""Room: the event catalogue, a page for people: what events there are, their fields, who decides and who folds them.

Knows: declared classes, and the functions and states of the modules it is shown. Does not know: files.
"""

from __future__ import annotations

import html
import inspect
import sys
import typing
from collections.abc import Iterable, Iterator
from typing import Any, cast

from eventfold.aggregate import Aggregate
from eventfold.errors import InvalidState
from eventfold.schema.compare import kind_of
from eventfold.schema.describe import describe, types_of
from eventfold.state import State, plan_of
from eventfold.upcast import chain_of


def catalogue(modules: Iterable[str]) -> str:
    """The catalogue as Markdown."""
    wanted = list(modules)
    deciders, folders = _deciders(wanted), _folders(wanted)
    lines = ["# Event catalogue", ""]
    classes = types_of(wanted)
    lines += ["| event | version | tags | |", "|---|---|---|---|"]
    for cls in classes:
        one = describe(cls)
        first = one.doc.partition("\n")[0]
        lines.append(
            f"| [{one.type}](#{_anchor(one.type, one.version)}) | {one.version} | {_tags(one.tags)} | {first} |"
        )
    for cls in classes:
        one = describe(cls)
        lines += ["", f"## {one.type} v{one.version}", ""]
        if one.doc:
            lines += [one.doc, ""]
        if one.aliases:
            lines += [f"Also stored as {', '.join(f'`{a}`' for a in one.aliases)}.", ""]
        if one.upcast:
            lines += [f"Read as {' → '.join(chain_of(cls)[1:])}.", ""]
        lines += ["| field | type | required | tag |", "|---|---|---|---|"]
        required = one.schema.get("required", [])
        for field, schema in cast("dict[str, Any]", one.schema.get("properties", {})).items():
            tag = f"`{one.tags[field]}:…`" if field in one.tags else ""
            lines.append(f"| `{field}` | {kind_of(schema)} | {'yes' if field in required else 'no'} | {tag} |")
        lines += ["", f"Decided by {_names(deciders.get(cls))}. Folded by {_names(folders.get(cls))}."]
        lines += [f"Declared in `{one.source}`."]
    return "\n".join(lines) + "\n"


def as_html(markdown: str, title: str = "Event catalogue") -> str:
    """The catalogue's own Markdown as one HTML page that needs nothing else. Not a general converter."""
    body: list[str] = []
    table = False
    for line in markdown.splitlines():
        if line.startswith("|"):
            if set(line) <= set("|-"):
                continue
            cells = [_inline(cell.strip()) for cell in line.strip("|").split("|")]
            mark = "td" if table else "th"
            body.append(
                ("" if table else "<table>") + "<tr>" + "".join(f"<{mark}>{c}</{mark}>" for c in cells) + "</tr>"
            )
            table = True
            continue
        if table:
            body.append("</table>")
            table = False
        if line.startswith("## "):
            name, _, version = line[3:].rpartition(" v")
            body.append(f'<h2 id="{_anchor(name, int(version))}">{_inline(line[3:])}</h2>')
        elif line.startswith("# "):
            body.append(f"<h1>{_inline(line[2:])}</h1>")
        elif line:
            body.append(f"<p>{_inline(line)}</p>")
    if table:
        body.append("</table>")
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
th, td {{ border-bottom: 1px solid #8884; padding: .4rem .6rem; text-align: left; }}
h2 {{ margin-top: 2.5rem; }} code {{ font-size: .9em; }}
</style></head><body>
{body}
</body></html>
"""


def _inline(text: str) -> str:
    parts = html.escape(text).split("`")
    for index in range(1, len(parts), 2):
        parts[index] = f"<code>{parts[index]}</code>"
    out = "".join(parts)
    if out.startswith("[") and "](#" in out:
        label, _, rest = out[1:].partition("](#")
        out = f'<a href="#{rest[:-1]}">{label}</a>'
    return out


def _anchor(name: str, version: int) -> str:
    return f"{name}-v{version}".lower().replace(" ", "-").replace(".", "")


def _tags(tags: dict[str, str]) -> str:
    return ", ".join(f"`{key}`" for key in tags.values())


def _names(found: set[str] | None) -> str:
    return ", ".join(f"`{name}`" for name in sorted(found)) if found else "nothing here"


def _members(modules: list[str]) -> Iterator[tuple[str, Any]]:
    for name, module in list(sys.modules.items()):
        if any(name == m or name.startswith(m + ".") for m in modules):
            for key, value in list(vars(module).items()):
                if getattr(value, "__module__", None) == name:
                    yield key, value


def _folders(modules: list[str]) -> dict[type, set[str]]:
    found: dict[type, set[str]] = {}
    for name, value in _members(modules):
        if inspect.isclass(value) and issubclass(value, State) and value not in (State, Aggregate):
            try:
                events = plan_of(value).events
            except InvalidState:
                continue  # a base without an evolve of its own folds nothing
            for event in events:
                found.setdefault(event, set()).add(name)
    return found


def _deciders(modules: list[str]) -> dict[type, set[str]]:
    found: dict[type, set[str]] = {}
    known = types_of()
    for name, value in _members(modules):
        for where, function in _functions(name, value):
            # What a function can decide is what its code names: constructors of event classes among its globals.
            names = set(function.__code__.co_names)
            for cls in known:
                if function.__globals__.get(cls.__name__) is cls and cls.__name__ in names:
                    if _takes_a_state(function) or "." in where:
                        found.setdefault(cls, set()).add(where)
    return found


def _functions(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isfunction(value):
        yield name, value
    elif inspect.isclass(value) and issubclass(value, Aggregate):
        for key, method in vars(value).items():
            if inspect.isfunction(method) and key != "evolve":
                yield f"{name}.{key}", method


def _takes_a_state(function: Any) -> bool:
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        return False
    return any(inspect.isclass(hint) and issubclass(hint, State) for hint in hints.values())
