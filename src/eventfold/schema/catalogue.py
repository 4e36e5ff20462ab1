"""The event catalogue, a page for people: all events, their fields, and the code that decides and projects them.

Knows: entries of the catalogue. Does not know: how they are found (entries.py does), files.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, cast

from eventfold.schema.compare import describe_type
from eventfold.schema.entries import CatalogueEntry, entries


def catalogue(modules: Iterable[str]) -> str:
    """The catalogue as Markdown."""
    found = entries(modules)
    lines = ["# Event catalogue", "", "| event | version | tags | what it says |", "|---|---|---|---|"]
    for one in found:
        first = _cell(one.doc.partition("\n")[0])
        lines.append(
            f"| [{one.type}](#{_anchor(one.type, one.version)}) | {one.version} | {_tag_list(one.tags)} | {first} |"
        )
    for one in found:
        lines += ["", f"## {one.type} v{one.version}", ""]
        if one.doc:
            lines += [one.doc, ""]
        if one.aliases:
            lines += [f"Also stored as {', '.join(f'`{a}`' for a in one.aliases)}.", ""]
        if one.read_as:
            lines += [f"Read as {' → '.join(one.read_as)}.", ""]
        lines += ["| field | type | required | tag |", "|---|---|---|---|"]
        required = one.schema.get("required", [])
        for field, schema in cast("dict[str, Any]", one.schema.get("properties", {})).items():
            tag = f"`{one.tags[field]}:…`" if field in one.tags else ""
            lines.append(
                f"| `{field}` | {_cell(describe_type(schema))} | {'yes' if field in required else 'no'} | {tag} |"
            )
        if one.unknown != "ignored":
            lines += ["", f"Stored fields that it does not know are {one.unknown}."]
        if one.is_current:
            lines += ["", _usage_sentences(one)]
        lines += ["", f"Declared in `{one.source}`."]
    return "\n".join(lines) + "\n"


def to_html(markdown: str, title: str = "Event catalogue") -> str:
    """The catalogue as one HTML page without other files. It converts only the Markdown that `catalogue` writes."""
    body: list[str] = []
    table = False
    for line in markdown.splitlines():
        if line.startswith("|"):
            if set(line) <= set("|-"):
                continue
            cells = [_inline_html(cell.strip().replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", line[1:-1])]
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
            body.append(f'<h2 id="{_anchor(name, int(version))}">{_inline_html(line[3:])}</h2>')
        elif line.startswith("# "):
            body.append(f"<h1>{_inline_html(line[2:])}</h1>")
        elif line:
            body.append(f"<p>{_inline_html(line)}</p>")
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _inline_html(text: str) -> str:
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


def _tag_list(tags: dict[str, str]) -> str:
    return ", ".join(f"`{key}`" for key in tags.values())


def _usage_sentences(one: CatalogueEntry) -> str:
    """A sentence for each kind of use; also if no code decides or folds the event."""
    said = [f"Decided by {_name_list(one.decided_by)}.", f"Folded by {_name_list(one.folded_by)}."]
    if one.projected_by:
        said.append(f"Projected by {_name_list(one.projected_by)}.")
    if one.reacted_by:
        said.append(f"Reacted to by {_name_list(one.reacted_by)}.")
    return " ".join(said)


def _name_list(found: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in found) if found else "nothing here"
