"""ARCHITECTURE.md shows the package as it is: one line a file, and the way of four calls through the files.

Both parts are made from the code: after a change, `python -m tests.test_architecture` writes them into the page.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.test_call_paths import measure, page

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "eventfold"
PAGE = ROOT / "ARCHITECTURE.md"
TREE, PATHS = "tree", "call paths"
NOT_SHOWN = {"testing/conformance", "demo/flights"}  # a file a chapter: their own __init__ lists them


def begin(part: str) -> str:
    """The line before a part of the page that is made here."""
    return f"<!-- {part}: python -m tests.test_architecture -->\n"


END = "<!-- end -->\n"


def first_sentence(path: Path) -> str:
    """The first sentence of a file's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def files(folder: Path) -> Iterator[Path]:
    """The modules of a folder and of the folders in it, a folder's own `__init__` first."""
    for path in sorted(folder.iterdir(), key=lambda each: (each.is_dir(), each.name != "__init__.py", each.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            yield path / "__init__.py" if path.relative_to(SOURCE).as_posix() in NOT_SHOWN else path
            if path.relative_to(SOURCE).as_posix() not in NOT_SHOWN:
                yield from files(path)
        elif path.suffix == ".py":
            yield path


def tree() -> str:
    """One line a file, below its folder."""
    lines: list[str] = []
    for path in files(SOURCE):
        name = path.relative_to(SOURCE).as_posix()
        if path.is_dir():
            lines += ["", f"**`{name}/`**", ""]
        elif path.name != "__init__.py" or path.parent == SOURCE:
            lines.append(f"- `{path.name}`: {first_sentence(path)}")
        elif path.parent.relative_to(SOURCE).as_posix() in NOT_SHOWN:
            lines += ["", f"**`{path.parent.relative_to(SOURCE).as_posix()}/`** {first_sentence(path)}", ""]
        else:
            lines[-2] += f" {first_sentence(path)}"
    return "\n".join(lines) + "\n"


def made(folder: str) -> dict[str, str]:
    """The parts of the page that are made from the code."""
    return {TREE: tree(), PATHS: page(measure(folder))}


def shown() -> dict[str, str]:
    """The same parts, as the page shows them."""
    text = PAGE.read_text("utf-8")
    return {part: text.split(begin(part))[1].split(END)[0] for part in (TREE, PATHS)}


def test_the_page_shows_every_file() -> None:
    """In its folder, with the first sentence of its docstring."""
    assert shown()[TREE].strip() == tree().strip()


def test_the_page_shows_the_call_paths_as_they_are(tmp_path: Path) -> None:
    """The functions on the stack, from a user's call to the statement that matters."""
    assert shown()[PATHS].strip() == page(measure(str(tmp_path))).strip()


if __name__ == "__main__":
    written = PAGE.read_text("utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        for each, content in made(scratch).items():
            before, rest = written.split(begin(each))
            written = f"{before}{begin(each)}\n{content.strip()}\n\n{END}{rest.split(END, 1)[1]}"
    PAGE.write_text(written, "utf-8")
