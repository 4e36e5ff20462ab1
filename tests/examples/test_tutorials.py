"""What a tutorial says its reader will see is what is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, name

RUNNER = ROOT / "tests" / "docs" / "run_page.py"
PAGES = [ROOT / "docs" / "tutorial" / f"{page}.md" for page in ("bank", "courses", "async")]
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+Z")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_page_shows_what_is_printed(page: Path, tmp_path: Path) -> None:
    """The output of the page contains every `text` block, in order; times are not compared."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", RUNNER, page], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    output = MOMENT.sub("<moment>", ran.stdout)
    shown = [MOMENT.sub("<moment>", "\n".join(block.lines)) for block in blocks(page) if block.language == "text"]
    assert shown
    for each in shown:
        before, found, output = output.partition(f"{each}\n")
        assert found, f"{name(page)} promises\n{each}\nand goes on to print\n{before}"
