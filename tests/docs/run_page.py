"""Runs one page of the documentation as a script, its Python blocks in order and in one namespace.

    python run_page.py README.md

Each page gets a process of its own: pages declare event classes of the same names, and a page that leaves a
thread behind must be noticed. Tracebacks name the page and the line in it.

A block with a title, ```python title="lending/rules.py", is a file: it is written into the current directory instead of
run. The pages of docs/build are read in order, so the files of the pages before are there as well.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

TITLED = re.compile(r'^```python title="(?P<path>[\w./]+)"\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


def write_files(page: Path) -> int:
    """Write the files of a page and, in docs/build, of the pages before it. Return the number of its own."""
    pages = [page]
    if page.parent.name == "build":
        index = (page.parent / "index.md").read_text("utf-8")
        order = [page.parent / name for name in re.findall(r"\]\(([\w-]+\.md)\)", index)]
        pages = order[: order.index(page) + 1] if page in order else [page]
    for each in pages:
        for block in TITLED.finditer(each.read_text("utf-8")):
            file = Path(block["path"])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"], "utf-8")
    return len(TITLED.findall(page.read_text("utf-8")))


def run(page: Path) -> int:
    """Run a page in the current directory and return how many blocks it had."""
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(page)
    script = ModuleType("__main__")
    sys.modules["__main__"] = script  # where type hints of the page's classes are looked up
    document.namespace = script.__dict__
    files = write_files(page)
    sys.path.insert(0, str(Path.cwd()))
    sys.path.append(str(Path(__file__).parents[2]))  # pages of docs/fields import their example
    examples = list(document.examples())  # without the blocks that have a title
    for example in examples:
        example.evaluate()
    return files + len(examples)


if __name__ == "__main__":
    print(f"{run(Path(sys.argv[1]))} blocks")
