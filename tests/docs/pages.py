"""Which pages there are, and what stands between their fences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w+-]*)")


class Block(NamedTuple):
    """A fenced block: its language, the line of its first line of text (from 1), and its lines."""

    language: str
    line: int
    lines: list[str]


def pages() -> list[Path]:
    """Every Markdown page that users and contributors read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order. A fence that is never closed is an error, as it hides what follows."""
    opening: re.Match[str] | None = None
    block = Block("", 0, [])
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if opening is None:
            if fence:
                opening, block = fence, Block(fence["language"].lower(), number + 1, [])
        elif fence and not fence["language"] and fence["fence"].startswith(opening["fence"]):
            opening = None
            yield block
        else:
            block.lines.append(line.removeprefix(opening["indent"]))
    if opening is not None:
        raise ValueError(f"{page}: the fence before line {block.line} is never closed.")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    text = page.read_text("utf-8").splitlines()
    for block in blocks(page):
        for number in range(block.line - 1, block.line - 1 + len(block.lines)):
            text[number] = ""
    return "\n".join(text)


def name(page: Path) -> str:
    """A page's path as people write it."""
    return page.relative_to(ROOT).as_posix()
