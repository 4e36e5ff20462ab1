"""The page about SQLite is typed as it stands: its application, its commands in order, and typed events afterwards."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "migrate-sqlite.md"
TYPED = """
import eventfold as ef, events
types = [events.CustomerImported, events.OrderImported, events.OrderShipped, events.OrderChanged]
with ef.Store("events.db") as store:
    for each in store.read(ef.Query.of(types=types)):
        print(each.type if hasattr(each, "type") else each.stored.type, each.event)
"""


CUTOVER_PAGE = PAGE.with_name("migrate-cutover.md")


def test_the_page_about_sqlite_is_true(tmp_path: Path) -> None:
    """Each command succeeds; what is loaded and captured is read by the classes that `inspect` wrote."""
    text = PAGE.read_text("utf-8")
    python = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("EVENTFOLD_URL", "EVENTFOLD_SOURCE")
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    run("-c", python)
    commands = re.findall(r"^\$ eventfold (.*)$", text, re.MULTILINE)
    assert len(commands) == 9
    for line in commands:
        if "--reread" in line:  # something to be found
            change = "UPDATE orders SET total = 7, status = 'paid' WHERE id = 2"
            run("-c", f"import apsw; apsw.Connection('shop.db').execute({change!r})")
        run("-m", "eventfold", *shlex.split(line))
        if line.endswith("--once"):  # everything of the page about cutovers is typed here
            for words in re.findall(r"^\$ eventfold (.*)$", CUTOVER_PAGE.read_text("utf-8"), re.MULTILINE):
                run("-m", "eventfold", *shlex.split(words))
    shown = run("-c", TYPED)
    assert "OrderShipped(id=1" in shown and "CustomerImported(id=2, name='Ben')" in shown
    assert "Decimal('19.90')" in shown and "status='paid', total=Decimal('7.00')" in shown
    left = run("-c", "import apsw; print(list(apsw.Connection('shop.db').execute(\"SELECT name FROM sqlite_schema\")))")
    assert "eventfold" not in left
