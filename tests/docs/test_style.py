"""The sentences of the documents are free of clichés, redundancy, hedges and archaisms, as proselint finds them.

Knows: which of its checks apply to technical text. Does not know: spelling (test_spelling.py), retired words.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT

# Checks that do not apply. Typographic quotes and symbols, and repeated words, which are headings and tables here;
# "from 1 to 2" is said of clocks and counts, and a "point in time" is what databases recover to.
LEFT_OUT = ("lexical_illusions", "typography", "dates_times.dates.dash_and_from", "redundancy.misc.after_the_deadline")
CODE = re.compile(r"^ *(`{3,}).*?^ *\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
GENERATED = ("docs/reference/cli.md",)  # the help of the commands and their output


def test_sentences_are_plain(tmp_path: Path) -> None:
    """Each finding is a line of a document, with the word that is better."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        name = page.relative_to(ROOT)
        if str(name) not in GENERATED:
            copy = tmp_path / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(CODE.sub(lambda code: "`" + "\n" * code[0].count("\n") + "`", page.read_text()))
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"max_errors": 1_000, "checks": dict.fromkeys(LEFT_OUT, False)}))
    command = [sys.executable, "-m", "proselint", "check", "--config", str(settings), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (done.stdout + done.stderr).replace(f"{tmp_path}/", "")
