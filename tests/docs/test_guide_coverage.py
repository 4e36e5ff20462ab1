"""The table of what a guide to event sourcing says: each page, command and file that it names is there."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from eventfold.cli import app
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "reference" / "guide-coverage.md"
ROW = re.compile(r"^\| (?P<claim>[^|]+) \| \[[^\]]+\]\((?P<page>[^)]+)\) \| (?P<shown>[^|]+) \|$", re.MULTILINE)
ROWS = [(match["claim"], match["page"], match["shown"]) for match in ROW.finditer(PAGE.read_text("utf-8"))]


def test_the_table_has_a_row_for_each_line() -> None:
    """No line of the table is written in a way that the other test does not see."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| (?!claim )", line)]
    assert len(ROWS) == len(lines) > 70


@pytest.mark.parametrize(("page", "shown"), sorted({row[1:] for row in ROWS}), ids=lambda value: value)
def test_what_shows_a_claim_is_there(page: str, shown: str) -> None:
    """The page exists; the command, the file or the code of the page exists, or the row says that it does not yet."""
    path = (PAGE.parent / page).resolve()
    assert path.is_file()
    if shown.startswith("`eventfold "):
        command = get_command(app)
        for word in shown.strip("`").split()[1:]:
            command = getattr(command, "commands", {}).get(word)
            assert command is not None, shown
    elif shown.startswith("`"):
        assert (ROOT / shown.strip("`")).exists(), shown
    elif shown.startswith("the code"):
        assert any(block.language == "python" for block in blocks(path)), path
    else:
        assert shown == "the page" or shown.startswith("not yet"), shown
