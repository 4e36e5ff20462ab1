"""The usual commands against a server: the same output as against its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import eventfold as ef
from tests.cli.commands import APPS, run
from tests.cli.stores import APPENDS
from tests.support.servers.many_stores import shared


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A file with the events of a bank, and the address of the server that serves it."""
    path = str(tmp_path / "bank.db")
    with ef.Store(path) as store:
        for events in APPENDS:
            store.append_encoded(*events)
    url = shared().add(path)
    yield path, url
    shared().remove(url)


@pytest.mark.parametrize(
    "words",
    [
        ("read",),
        ("read", "--tag", "account:a-1", "--limit", "2"),
        ("read", "--after", "2", "--until", "4", "--json"),
        ("history", "bank:Account", "account=a-1", "--import-path", str(APPS)),
        ("state", "bank:Account", "account=a-1", "--import-path", str(APPS)),
        ("types",),
        ("tags",),
        ("tags", "account:", "--json"),
        ("cursor",),
    ],
    ids=" ".join,
)
def test_a_command_prints_what_it_prints_for_the_file(bank: tuple[str, str], words: tuple[str, ...]) -> None:
    """Reads, states and lists do not depend on where the store is."""
    command, *rest = words
    here, there = (run(command, url, *rest) for url in bank)
    assert there.code == here.code == 0, there.err
    assert there.out == here.out.replace(bank[0], bank[1])
    assert there.out


def test_appends_and_a_tail_with_saved_progress(bank: tuple[str, str], tmp_path: Path) -> None:
    """An append is in the file, and a tail continues where it stopped."""
    path, url = bank
    target = tmp_path / "progress"
    first = run("tail", url, "--once", "--cursor", str(target), "--json")
    assert (first.code, len(first.lines)) == (0, len([e for events in APPENDS for e in events])), first.err
    done = run("append", url, "Opened", "--tag", "account:a-9", "--data", '{"account":"a-9"}')
    assert done.code == 0, done.err
    again = run("tail", url, "--once", "--cursor", str(target), "--json")
    assert [line["tags"] for line in again.lines] == [["account:a-9"]]
    assert (
        run("read", path, "--tag", "account:a-9", "--json").out
        == run("read", url, "--tag", "account:a-9", "--json").out
    )


def test_stats_and_a_verification_say_where_the_store_is(bank: tuple[str, str]) -> None:
    """The server's facts, and a log that is counted again."""
    _, url = bank
    stats = run("stats", url, "--json")
    assert stats.code == 0, stats.err
    assert "remote" in stats.out
    assert "sqlite" in stats.out
    checked = run("verify", url, "--log")
    assert checked.code == 0, checked.err


def test_a_backup_and_copies_in_both_directions(bank: tuple[str, str], tmp_path: Path) -> None:
    """A backup is a file that can be read; a copy from a server and one to a server are verified."""
    path, url = bank
    backup, copied = tmp_path / "backup.db", tmp_path / "copied.db"
    assert run("backup", url, str(backup)).code == 0
    assert run("read", str(backup), "--json").out == run("read", path, "--json").out
    there = run("copy", url, str(copied))
    assert there.code == 0, there.err
    assert run("read", str(copied), "--json").out == run("read", path, "--json").out
    new = shared().add(str(tmp_path / "new.db"))
    try:
        back = run("copy", path, new)
        assert back.code == 0, back.err
        assert run("read", new, "--json").out == run("read", path, "--json").out
    finally:
        shared().remove(new)


def test_read_models_and_processes_of_a_server_need_a_target_and_then_work(
    bank: tuple[str, str], tmp_path: Path
) -> None:
    """Run, rows, status, rebuild, switch and processes, with the rows in a file of the client's."""
    path, url = bank
    here = ("--import-path", str(APPS))
    target = ("--target", f"sqlite:{tmp_path / 'rows.db'}")
    refused = run("rows", url, "bank:Balance", *here)
    assert refused.code != 0
    assert "--target URL" in refused.err
    assert run("run", url, "bank:Balance", "--once", *here, *target).code == 0
    assert run("run", path, "bank:Balance", "--once", *here).code == 0
    rows = run("rows", url, "bank:Balance", "--json", *here, *target)
    assert rows.lines == run("rows", path, "bank:Balance", "--json", *here).lines != [], rows.err
    (listed,) = run("projections", "list", url, "--json", *target).lines
    assert listed["name"] == "balance"
    rebuilt = run("projections", "rebuild", url, "bank:Balance", "--switch", "--json", *here, *target)
    assert (rebuilt.code, rebuilt.lines[0]["different"]) == (0, 0), rebuilt.err
    (status,) = run("projections", "status", url, "balance", "--json", *target).lines
    assert (status["behind"], status["generation"]) == (0, 2)
    assert run("projections", "rollback", url, "balance", "--json", *target).lines[0]["live"] == 1
    assert run("processes", url, "--json", *target).code == 0
    assert run("processes", url, "--json").code != 0


def test_a_folder_as_target_is_called_a_folder(bank: tuple[str, str], tmp_path: Path) -> None:
    """It has several links, as every folder has, but no second name."""
    (tmp_path / "rows").mkdir()
    refused = run("projections", "status", bank[0], "--target", str(tmp_path / "rows"))
    assert refused.code != 0
    assert "is a folder" in refused.err


def test_what_a_client_cannot_do_to_a_server_is_refused_with_a_sentence(bank: tuple[str, str]) -> None:
    """Maintenance of the file is done where it is; an address without a server is an error without a traceback."""
    _, url = bank
    for words in (("upgrade", url), ("reindex", url), ("restored", url), ("read", "http://127.0.0.1:9")):
        refused = run(*words)
        assert refused.code != 0
        assert "Traceback" not in refused.err
        assert refused.err.strip()
