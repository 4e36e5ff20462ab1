"""The generated parts of docs/reference/cli.md, written from what the commands themselves know.

    python -m tests.cli.reference        writes them

Knows: typer's parameters, the page's markers. Does not know: what the commands do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from eventfold.cli import app
from eventfold.cli.command import examples_of
from eventfold.cli.exit_codes import EXIT_CODE_MEANINGS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def commands(group: Any = None, path: str = "eventfold") -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of the help."""
    group = group or get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def cell(text: str) -> str:
    """Text inside a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def parameters(command: Any, kind: str) -> list[str]:
    """The arguments or options of a command, as rows."""
    rows: list[str] = []
    for each in command.params:
        if each.param_type_name != kind or each.name == "help":
            continue
        value = "" if getattr(each, "is_flag", False) or not each.metavar else f" {each.metavar}"
        if kind == "argument":
            name = f"`{each.metavar}`"
        else:
            spellings = [f"`{spelling}{value}`" for spelling in each.opts]
            name = ", ".join([*spellings, *(f"`{spelling.strip()}`" for spelling in each.secondary_opts)])
        default = each.default if isinstance(each.default, str | int) and not isinstance(each.default, bool) else ""
        rows.append(f"| {cell(name)} | {cell(each.help or '')}{f' Default: `{default}`.' if default else ''} |")
    return rows


def usage(path: str, command: Any) -> str:
    """The shape of a command's line."""
    arguments = [
        f"[{each.metavar}]" + ("..." if each.nargs == -1 else "")
        for each in command.params
        if each.param_type_name == "argument"
    ]
    return " ".join([path, *arguments, "[OPTIONS]"])


def section(path: str, command: Any) -> str:
    """One command: its help, its parameters, its examples."""
    lines = [f"### {path.removeprefix('eventfold ')}", "", command.help.strip(), "", f"    {usage(path, command)}", ""]
    for title, kind in (("Argument", "argument"), ("Option", "option")):
        if rows := parameters(command, kind):
            lines += [f"| {title} | |", "|---|---|", *rows, ""]
    if examples := examples_of(path):
        lines += ["```sh", *(line for what, text in examples for line in (f"# {what}", text)), "```", ""]
    return "\n".join(lines)


def parts() -> dict[str, str]:
    """The generated parts, by the name of their marker."""
    codes = "\n".join(
        ["| Code | Means |", "|---|---|", *(f"| {code} | {cell(text)} |" for code, text in EXIT_CODE_MEANINGS)]
    )
    return {"codes": codes, "commands": "\n".join(section(*each) for each in commands()).strip()}


def rewritten(page: str) -> str:
    """The page with its generated parts replaced; the text around them is unchanged."""
    for name, part in parts().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        page, count = pattern.subn(lambda found, text=part: found[1] + text + "\n" + found[2], page)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} parts named {name}, and should have one")
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
