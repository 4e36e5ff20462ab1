"""The reference is complete and true: every error, every public name and its parameters, every limit and its value."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold import errors, testing
from tests.docs.pages import ROOT, blocks
from tests.examples import api_page

REFERENCE = ROOT / "docs" / "reference"
EVERY_ERROR = {
    name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, ef.EventfoldError)
}


def rows(page: Path) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    lines = [line for line in page.read_text("utf-8").splitlines() if re.match(r"\|.*\|$", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# ------------------------------------------------------------------------------------------ errors


def test_every_error_is_listed_with_its_code() -> None:
    """docs/reference/errors.md has one row for each error class, with its code and what to do."""
    listed = {row[0].strip("`"): row for row in rows(REFERENCE / "errors.md") if len(row) == 4 and row[0][:1] == "`"}
    assert sorted(listed) == sorted(EVERY_ERROR), "add a row to docs/reference/errors.md, or take one out"
    assert {name: row[1].strip("`") for name, row in listed.items()} == {n: c.code for n, c in EVERY_ERROR.items()}
    assert all(row[2] and row[3] for row in listed.values())


def test_the_tree_of_errors_is_the_one_in_the_source() -> None:
    """The tree on the page is the tree at the top of errors.py, line by line."""
    drawn = [line[4:] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    (shown,) = [block.lines for block in blocks(REFERENCE / "errors.md") if block.language == "text"]
    assert shown == drawn, "copy the tree from src/eventfold/errors.py"


# ------------------------------------------------------------------------------------------ limits

SOURCE = re.compile(r"`(?P<name>[\w.]+)(?:\((?P<parameter>\w+)=\))?` in `(?P<path>[\w/]+)\.py`")
LIMITS = [row for row in rows(REFERENCE / "limits.md") if len(row) == 4 and SOURCE.fullmatch(row[3])]


def in_source(cell: str) -> Any:
    """What a cell of the last column names: a constant, a default, or the function that sets the limit."""
    found = SOURCE.fullmatch(cell)
    assert found, cell
    place = importlib.import_module(f"eventfold.{found['path'].replace('/', '.').removesuffix('.__init__')}")
    first, *rest = found["name"].split(".")
    value: Any = getattr(place, first)
    for each in rest:  # a field of an options struct, or a method
        fields = dict(zip(reversed(getattr(value, "__struct_fields__", ())), reversed(defaults(value)), strict=False))
        value = fields[each] if each in fields else getattr(value, each)
    return inspect.signature(value).parameters[found["parameter"]].default if found["parameter"] else value


def defaults(cls: Any) -> tuple[Any, ...]:
    """The defaults of a struct's fields, as far as there are any."""
    return getattr(cls, "__struct_defaults__", ())


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row[3])
def test_every_limit_is_the_one_in_the_source(row: list[str]) -> None:
    """A number on the page is the constant, or the default, that it names."""
    value = in_source(row[3])
    if callable(value) or value is None:  # a rule, or no limit unless one is given: that it is there is all there is
        return
    shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    assert re.search(rf"(?<![\d,.]){re.escape(shown)}(?![\d]|,\d|\.\d)", row[1]), f"{row[1]} says nothing of {shown}"


def test_every_limit_names_its_source() -> None:
    """No row is left unchecked by a misspelt source, and no portable limit of the envelope is left out."""
    given = [row for row in rows(REFERENCE / "limits.md") if len(row) == 4 and row[3] not in ("set by", "---")]
    assert [row for row in given if not SOURCE.fullmatch(row[3])] == []
    record = importlib.import_module("eventfold.core.envelope")
    named = " ".join(row[3] for row in LIMITS)
    assert [name for name in vars(record) if name.startswith("MAX_") and f"`{name}`" not in named] == []


# ------------------------------------------------------------------------------------------ every public name


def test_the_page_of_every_name_is_up_to_date() -> None:
    """docs/reference/api.md is what the classes and their docstrings say today."""
    assert api_page.PAGE.read_text("utf-8") == api_page.page(), "run: python -m tests.examples.api_page"


def test_no_public_name_is_left_out() -> None:
    """Whatever `eventfold` offers stands on the page."""
    text = api_page.PAGE.read_text("utf-8")
    assert [name for name in ef.__all__ if not re.search(rf"[`#. ]{name}[`(\n]", text)] == []
    assert [name for name in testing.__all__ if name not in text] == []
