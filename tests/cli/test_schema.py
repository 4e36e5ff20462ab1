"""`eventfold schema` and `eventfold copy`, as they are typed, on the shop's five years."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eventfold as ef

YEARS = Path(__file__).parents[1] / "schema" / "years"


def eventfold(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    command = [sys.executable, "-m", "eventfold", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with today's shop and a store that 2021 and 2025 have written."""
    shutil.copy(YEARS / "shop.py", tmp_path / "shop.py")
    for year in (2021, 2025):
        subprocess.run([sys.executable, str(YEARS / f"shop_{year}.py"), str(tmp_path / "s.db")], check=True, timeout=60)
    return tmp_path


def test_a_schema_is_locked_checked_and_found_broken(folder: Path) -> None:
    """Export, an unchanged check, then a break: named, with what to write, and exit code 1 for CI."""
    assert "Wrote 5 types" in eventfold(folder, "schema", "export", "shop", "--table").stdout
    unchanged = eventfold(folder, "schema", "check", "shop", "--table")
    assert (unchanged.returncode, unchanged.stdout.strip()) == (0, "No schema has changed.")
    module = folder / "shop.py"
    module.write_text(module.read_text().replace("    price: Money\n", "    price: int\n"))
    broken = eventfold(folder, "schema", "check", "shop", "--table")
    assert broken.returncode == 1
    assert "breaks  ShopOrderAccepted v3.price was object and is integer." in broken.stdout
    assert "@ef.upcast" in broken.stdout
    assert "1 change is breaking" in eventfold(folder, "schema", "check", "shop").stderr
    assert eventfold(folder, "schema", "diff", "shop").returncode == 0


def test_an_outdated_lock_file_fails_the_check_too(folder: Path) -> None:
    """A compatible change passes only once it is locked."""
    eventfold(folder, "schema", "export", "shop")
    module = folder / "shop.py"
    module.write_text(
        module.read_text().replace(
            "    order: ef.Tag\n    place: str\n", '    order: ef.Tag\n    place: str\n    by: str = ""\n'
        )
    )
    outdated = eventfold(folder, "schema", "check", "shop", "--table")
    assert outdated.returncode == 1
    assert "out of date. Update it: eventfold schema export shop" in " ".join(outdated.stdout.split())
    shutil.copy(folder / "eventfold.lock.json", folder / "my lock.json")
    piped = eventfold(folder, "schema", "check", "shop", "--lock", "my lock.json")
    assert piped.returncode == 1
    assert {json.loads(line)["breaking"] for line in piped.stdout.splitlines()} == {False}
    assert piped.stderr == (
        "No change is breaking, but my lock.json is out of date. Update it: eventfold schema export shop "
        "--lock 'my lock.json'\n"
    )
    assert eventfold(folder, "schema", "export", "shop", "--lock", "my lock.json").returncode == 0
    assert eventfold(folder, "schema", "check", "shop", "--lock", "my lock.json").returncode == 0


def test_a_check_without_a_lock_file_says_how_to_make_one(folder: Path) -> None:
    """Bad input: two sentences, exit code 2."""
    missing = eventfold(folder, "schema", "check", "shop")
    assert missing.returncode == 2
    assert "There is no lock file" in missing.stderr


def test_a_scan_reports_what_no_longer_fits(folder: Path) -> None:
    """By type, version and field, with the first position; exit code 1."""
    assert eventfold(folder, "schema", "scan", "s.db", "shop", "--table").returncode == 0
    module = folder / "shop.py"
    module.write_text(module.read_text().replace("    price: Money\n", "    price: int\n"))
    misfits = eventfold(folder, "schema", "scan", "s.db", "shop", "--json")
    assert misfits.returncode == 1
    found = json.loads(misfits.stdout)["misfits"]
    assert [(m["version"], m["field"], m["count"]) for m in found] == [(3, "price", 1)]


def test_the_catalogue_is_written_as_markdown_and_html(folder: Path) -> None:
    """On standard output, or in a file by its ending."""
    assert "# Event catalogue" in eventfold(folder, "schema", "catalogue", "shop").stdout
    eventfold(folder, "schema", "catalogue", "shop", "-o", "events.html")
    assert "<h1>Event catalogue</h1>" in (folder / "events.html").read_text()


def test_the_catalogue_is_written_as_data(folder: Path) -> None:
    """A JSON line for each version of each type, on standard output or in a file."""
    lines = eventfold(folder, "schema", "catalogue", "shop", "--json").stdout
    found = [json.loads(line) for line in lines.splitlines()]
    assert {(each["type"], each["version"]) for each in found} >= {("ShopOrderAccepted", 3)}
    newest = next(each for each in found if (each["type"], each["version"]) == ("ShopOrderAccepted", 3))
    assert newest["tags"]["order"] == "order"
    assert newest["read_as"] == []
    eventfold(folder, "schema", "catalogue", "shop", "--json", "-o", "events.jsonl")
    assert (folder / "events.jsonl").read_text() == lines


def test_a_store_is_copied_and_proven_equal(folder: Path) -> None:
    """The copy is made, compared, and made again without writing anything."""
    first = json.loads(eventfold(folder, "copy", "s.db", "t.db").stdout)
    again = json.loads(eventfold(folder, "copy", "s.db", "t.db").stdout)
    assert (first["events"], first["written"], first["verified"]) == (5, 5, True)
    assert (again["written"], again["digest"]) == (0, first["digest"])


def test_copying_onto_another_history_is_refused(folder: Path) -> None:
    """The target is left as it is."""

    class Other(ef.Event, type="cli-other"):
        n: int

    with ef.Store(str(folder / "t.db")) as store:
        store.append(Other(1))
    refused = eventfold(folder, "copy", "s.db", "t.db", "--table")
    assert refused.returncode == 7
    assert "history of its own" in refused.stderr
