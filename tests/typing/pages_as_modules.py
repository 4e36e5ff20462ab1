"""The Python of a page as modules that a type checker can read, with the page's own line numbers.

Knows: that a block which imports eventfold once more and declares a class again begins a program of its own. Does not
know: which pages are checked.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.docs.pages import Block, blocks


def write_modules(page: Path, folder: Path) -> list[Path]:
    """Write the blocks of a page into as many modules as it has programs."""
    programs: list[list[Block]] = [[]]
    for block in blocks(page):
        if block.language == "python":
            if begins_program(block, programs[-1]):
                programs.append([])
            programs[-1].append(block)
    written: list[Path] = []
    for number, program in enumerate(filter(None, programs)):
        lines: list[str] = []
        for block in program:
            lines += [""] * (block.line - 1 - len(lines)) + block.lines
        module = folder / f"{page.parent.name}_{page.stem}_{number}.py".replace("-", "_")
        module.write_text("\n".join(lines) + "\n", "utf-8")
        written.append(module)
    return written


def begins_program(block: Block, program: list[Block]) -> bool:
    """Whether a block is a program of its own, and not the next part of this one."""
    return "import eventfold as ef" in block.lines and bool(
        declared_in(block) & set().union(*map(declared_in, program))
    )


def declared_in(block: Block) -> set[str]:
    """The classes and functions that a block declares."""
    tree = ast.parse("\n".join(block.lines))
    return {each.name for each in tree.body if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
