"""Each recipe is a page and a module with the same code, is in the index, and has a race test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, name

FOLDER = ROOT / "docs" / "how-to" / "recipes"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.stem != "index")
MODULES = ROOT / "examples" / "recipes"


def code_of(module: Path) -> list[str]:
    """Return the lines of a module after its docstring and its `from __future__`."""
    text = module.read_text("utf-8")
    last = 0
    for node in ast.parse(text).body:
        opening = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not opening and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        last = node.end_lineno or 0
    return text.splitlines()[last:]


def recipe_of(page: Path) -> list[str]:
    """Return the lines of Python that a page shows before its first section: the recipe itself."""
    text = page.read_text("utf-8").splitlines()
    end = next(number for number, line in enumerate(text, start=1) if line.startswith("## "))
    return [line for block in blocks(page) if block.language == "python" and block.line < end for line in block.lines]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_and_module_show_the_same_code(page: Path) -> None:
    """The code before the first section of the page is examples/recipes/<its name>.py, without its blank lines."""
    module = MODULES / f"{page.stem.replace('-', '_')}.py"
    assert [line for line in code_of(module) if line.strip()] == [line for line in recipe_of(page) if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_recipe_is_listed_and_raced(page: Path) -> None:
    """The index links it, and tests/recipes races it."""
    assert f"({page.name})" in (FOLDER / "index.md").read_text("utf-8")
    test = ROOT / "tests" / "recipes" / f"test_{page.stem.replace('-', '_')}.py"
    assert "crowd.race(" in test.read_text("utf-8")


def test_no_module_is_without_a_page() -> None:
    """Every module of examples/recipes is a recipe with a page."""
    assert {path.stem.replace("_", "-") for path in MODULES.glob("*.py")} == {page.stem for page in PAGES}
