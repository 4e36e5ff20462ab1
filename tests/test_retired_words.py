"""Words that this project does not use: metaphors and private coinages, each with the plain term for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_conventions import ROOT, inside, tracked

# The word, as a whole word or as a part of an identifier, and what to write instead.
RETIRED = {
    r"whoever": "who: a caller, a runner, a process, a reader",
    r"whomever": "the same",
    r"somebody": "who: another process, an operator",
    r"nobody": "no process, no caller; or the passive",
    r"told|telling": "reported, printed, passed",
    r"mend|mends|mended|mending": "fix, repair",
    r"anew": "again, from the beginning",
    r"aside": "in a thread",
    r"wish|wishes|wished": "action",
    r"door|doors": "a function, a port, an entry point",
    r"desk": "ProjectionAdmin",
    r"bell": "CommitSignal",
    r"heart": "LeaseHeartbeat",
    r"hands": "ProjectionOperations",
    r"house": "the project, the package",
    r"room|rooms": "module, folder, package",
    r"colour|colours": "mode: sync or async",
    r"lane|lanes": "WorkerThreads",
    r"forgive|forgiven": "clear",
    r"keeper": "the field that keeps unknown values",
    r"heir": "take over from",
    r"lets? go": "release",
    r"look(?:ed|ing)? (?:at|into) it in the face": "see",
    r"behold|hitherto|thereby|whence|thence": "plain words",
}
PATTERN = re.compile(r"(?<![a-z])(?:" + "|".join(RETIRED) + r")(?![a-z])", re.IGNORECASE)
# A word may be right where it is the domain's own: a hotel has rooms.
ALLOWED = re.compile(
    r"hotel|chat room|room (?:number|id)|colou?rs? .*(?:red|green|terminal)|(?:red|green|terminal).*colou?r"
    r"|colour(?:\"|=\W+).*mode|forgive\W+clear"  # old names, in the tables that name the new ones
    r"|forgive.{0,2} was renamed|told\W+description|desk is projection ?admin now"
    r"|\"postgres\", \"nobody\""  # accounts of the system
    r"|decisions/\d{4}-"  # the file name of a decision
    r"|\"eventfold\.process\.wishes\"",  # a module's name in stored fingerprints
    re.IGNORECASE,
)
SUFFIXES = {".py", ".md", ".sql", ".toml", ".txt", ".sh"}


def words_in(text: str) -> str:
    """A text with its identifiers split at capitals and underscores: `ThreadBell_ring` is three words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", text)


def uses(path: Path) -> list[str]:
    """The retired words of a file, with the numbers of their lines."""
    found: list[str] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        text = words_in(line)
        if ALLOWED.search(text):
            continue
        found += [f"line {number}: {word[0]}" for word in PATTERN.finditer(text)]
    return found


def covered() -> list[Path]:
    """The files that the rule is for: code, tests, documents, the Makefile; not this one, and no record of the past."""
    own = {Path(__file__), ROOT / "CHANGELOG.md"}
    return [
        path
        for path in tracked()
        if (path.suffix in SUFFIXES or path.name in ("Makefile", "run"))
        and path not in own
        and "decisions" not in path.parts
        and (path.suffix != ".sql" or "layouts" not in path.parts)  # written by an older version
    ]


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "soak", "benchmarks", "examples", "scripts", ""])
def test_no_file_uses_a_retired_word(folder: str) -> None:
    """Each word that is found is printed with its line; `RETIRED` says what to write instead."""
    here = [path for path in covered() if (inside(path).split("/")[0] if "/" in inside(path) else "") == folder]
    assert {inside(path): words[:5] for path in here if (words := uses(path))} == {}
