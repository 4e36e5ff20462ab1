"""Runs one page of the documentation as a script, its Python blocks in order and in one namespace.

    python run_page.py README.md

Each page gets a process of its own: pages declare event classes of the same names, and a page that leaves a
thread behind must be noticed. Tracebacks name the page and the line in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def run(page: Path) -> int:
    """Run a page in the current directory and return how many blocks it had."""
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(page)
    script = ModuleType("__main__")
    sys.modules["__main__"] = script  # where type hints of the page's classes are looked up
    document.namespace = script.__dict__
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    return len(examples)


if __name__ == "__main__":
    print(f"{run(Path(sys.argv[1]))} blocks")
