"""The bank of the tutorial: both programs run, are short, share one log, and stand in the page as they stand here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.recipes.test_pages import code_of

PAGE = ROOT / "docs" / "tutorial" / "bank.md"
PROGRAMS = ("bank.py", "bank_aggregate.py")


def run(program: str, directory: Path) -> str:
    """What a program prints, run as a script in a directory, with warnings as errors."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / program],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_both_banks_work_on_one_log(tmp_path: Path) -> None:
    """The functions write a file, and the aggregate goes on with it."""
    assert run("bank.py", tmp_path) == (
        "Account(account='a-1', balance=Decimal('30')) Account(account='a-2', balance=Decimal('50'))\n"
    )
    assert run("bank_aggregate.py", tmp_path) == (
        "Account(account='a-1', balance=Decimal('60')) Account(account='a-2', balance=Decimal('100'))\n"
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_bank_is_short_and_stands_in_the_tutorial(program: str) -> None:
    """A whole bank has 30 lines at the most, and the page shows exactly the file."""
    code = code_of(ROOT / "examples" / program)
    assert sum(bool(line.strip()) for line in code) <= 30
    shown = [[line for line in block.lines if line.strip()] for block in blocks(PAGE) if block.language == "python"]
    assert [line for line in code if line.strip()] in shown
