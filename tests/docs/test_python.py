"""Every Python block of every page runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, name, pages

RUNNER = Path(__file__).with_name("run_page.py")
WITH_PYTHON = [page for page in pages() if any(block.language == "python" for block in blocks(page))]


def run(page: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """A page as a script, in a directory, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", RUNNER, page], cwd=directory, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_every_python_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """A page's blocks, pasted in order into one file in an empty directory, run without an error or a warning."""
    ran = run(page, tmp_path)
    assert ran.returncode == 0, f"{name(page)} does not run:\n{ran.stdout[-2000:]}\n{ran.stderr[-6000:]}"
    found = sum(block.language == "python" for block in blocks(page))
    assert int(ran.stdout.splitlines()[-1].split()[0]) >= found, "some fence was understood differently"


def test_a_page_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """Blocks share their names; an error in the second names the page and the line it stands on."""
    page = tmp_path / "wrong.md"
    page.write_text("# Wrong\n\n```python\nzero = 0\n```\n\nText.\n\n```python\nprint(zero)\n1 / zero\n```\n", "utf-8")
    ran = run(page, tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == "0\n"
    assert 'wrong.md", line 11' in ran.stderr and "ZeroDivisionError" in ran.stderr


def test_no_page_hides_python_from_this_test() -> None:
    """Python is fenced as `python`; other spellings would never be run."""
    hidden = [
        f"{name(page)}:{block.line}"
        for page in pages()
        for block in blocks(page)
        if block.language in {"py", "python3", "pycon", "py3"}
    ]
    assert not hidden, f"fence these as ```python: {hidden}"


def test_the_pages_are_found() -> None:
    """The readers' entrances exist, so that an empty list of pages cannot pass for a tested one."""
    names = {name(page) for page in pages()}
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/index.md"} <= names, f"under {ROOT}: {names}"
