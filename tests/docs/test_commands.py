"""Every command that a page tells its reader to type exists."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks, name, pages

SHELL = {"console", "sh", "bash", "shell"}


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """The command lines of a page, as (line, words). In a console block only lines after `$ ` are commands."""
    found: list[tuple[int, list[str]]] = []
    for block in blocks(page):
        if block.language not in SHELL:
            continue
        text = "\n".join(block.lines).replace("\\\n", "  ")
        for offset, line in enumerate(whole_lines(text)):
            if block.language == "console" and not line.startswith("$ "):
                continue
            # Of a pipe or a list every part is a command of its own.
            for part in re.split(r"\s(?:\||&&|;)\s", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words:
                    found.append((block.line + offset, words))
    return found


def whole_lines(text: str) -> list[str]:
    """The lines of a block; a quotation that ends in a later line is one line with it."""
    found, begun = list[str](), ""
    for line in text.split("\n"):
        begun += line
        if begun.count("'") % 2 == 0:
            found.append(begun)
            begun = ""
        else:
            begun += " "
    return [*found, begun] if begun else found


def of_program(program: str) -> list[Any]:
    """Every command line of any page that starts with this program, as pytest parameters."""
    return [
        pytest.param(words[1:], id=f"{name(page)}:{line}")
        for page in pages()
        for line, words in commands(page)
        if Path(words[0]).name == program
    ]


@pytest.fixture(scope="module")
def command_line() -> Any:
    """The command line, as Click's objects."""
    from typer.main import get_command

    from eventfold.cli import app

    return get_command(app)


@pytest.mark.parametrize("words", of_program("eventfold"))
def test_every_eventfold_command_exists(words: list[str], command_line: Any) -> None:
    """The command, its subcommand and its options are known to the command line."""
    command = command_line
    context = command.make_context("eventfold", [], resilient_parsing=True)
    options = {"--help"}
    for word in words:
        options |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        if word.startswith("-") and not re.fullmatch(r"-\d+", word):
            assert word.split("=")[0] in options, f"eventfold {' '.join(words)}: {word} is no option"
        elif hasattr(command, "get_command"):
            command = command.get_command(context, word)
            assert command is not None, f"eventfold {' '.join(words)}: {word} is no command"


@pytest.mark.parametrize("words", of_program("make"))
def test_every_make_target_exists(words: list[str]) -> None:
    """Pages name only targets that the Makefile has."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {word for word in words if "=" not in word} <= targets


@pytest.mark.parametrize("words", of_program("pip"))
def test_every_extra_exists(words: list[str]) -> None:
    """Pages tell readers to install only extras that the package has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for word in words:
        if named := re.fullmatch(r"(?:eventfold|\.)\[(.+)\]", word):
            assert set(named[1].split(",")) <= set(extras)
