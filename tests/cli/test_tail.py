"""`eventfold tail`: live events, and progress that survives kill -9, without a gap."""

from __future__ import annotations

import json
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from eventfold.cli.tail import write_cursor
from eventfold.store import Store
from tests.cli.commands import PATIENCE, on_terminal, run, started


def position(line: str) -> int:
    """The position of an event's line."""
    return json.loads(line)["position"]


def test_tail_shows_the_last_ten_and_then_what_comes(bank: str, tmp_path: Path) -> None:
    """An event that this process writes reaches the other one's output at once."""
    with started("tail", bank, "--json", "-n", "2", folder=tmp_path) as running:
        assert [position(running.line()) for _ in range(2)] == [5, 6]
        assert run("append", bank, "Noted").code == 0
        assert position(running.line()) == 7
        running.send(signal.SIGINT)
        code, _, error = running.end()
        assert code == 130
        assert "3 events shown. Resume with --after efc1_" in error
        assert "Traceback" not in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_tail_ends_cleanly_when_asked_to(bank: str, tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C is 130 and SIGTERM 143; both tell how to go on, and neither makes a traceback."""
    with started("tail", bank, "--json", "--cursor", "progress", folder=tmp_path) as running:
        assert [position(running.line()) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        running.send(number)
        assert running.end()[:2] == (code, "")
        error = running.error_output
    assert error == "6 events shown. Resume with --cursor progress\n"


def test_a_killed_tail_resumes_from_its_file_without_a_gap(bank: str, tmp_path: Path) -> None:
    """kill -9 at any moment: the next run goes on after what was delivered; nothing is missed."""
    seen: list[int] = []
    for round_ in range(3):
        with started("tail", bank, "--json", "--cursor", "progress", folder=tmp_path) as running:
            if not seen:
                seen += [position(running.line()) for _ in range(6)]
            assert run("append", bank, "Noted", "--meta", f"round={round_}").code == 0
            while not seen or seen[-1] < 7 + 2 * round_:
                seen.append(position(running.line()))
            running.send(signal.SIGKILL)
        assert run("append", bank, "Noted while no command ran").code == 0
    last = run("tail", bank, "--json", "--cursor", str(tmp_path / "progress"), "--once")
    seen += [line["position"] for line in last.lines]
    assert sorted(set(seen)) == list(range(1, 13))
    for earlier, later in pairwise(seen):
        assert later <= earlier + 1, f"{earlier + 1} was missed in {seen}"
    again = run("tail", bank, "--cursor", str(tmp_path / "progress"), "--once")
    assert again.out == ""


def test_progress_passes_over_events_that_were_not_asked_for(bank: str, tmp_path: Path) -> None:
    """The file moves to the end of the log although nothing was shown."""
    file = tmp_path / "progress"
    assert run("tail", bank, "--type", "Nothing", "--cursor", str(file), "--once").code == 0
    assert file.read_text() == run("cursor", bank).out


def test_tail_ends_after_so_many_events_and_keeps_where(bank: str, tmp_path: Path) -> None:
    """`--limit 2` twice shows four different events, though one page holds them all."""
    words = ("tail", bank, "--json", "--cursor", str(tmp_path / "progress"), "--limit", "2")
    assert [line["position"] for _ in range(3) for line in run(*words).lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], [1, 2, 3, 4, 5, 6]),
        (["--last", "2"], [5, 6]),
        (["--last", "0"], []),
        (["--after", "4"], [5, 6]),
        (["--since", "2026-11-23T12:00:03Z"], [3, 4, 5, 6]),
        (["--since", "2026-11-24"], []),
        (["--type", "Opened"], [1, 3]),
        (["--tag", "account:a-2", "--after", "3"], [5, 6]),
        (["--after", "0", "--occurred-until", "2026-11-21"], [6]),
        (["--after", "0", "--occurred-since", "2026-11-22"], [1, 2, 3, 4, 5]),
        (["--last", "4", "--limit", "3"], [3, 4, 5]),
    ],
)
def test_where_tail_begins_and_what_it_shows(steady: str, words: list[str], shown: list[int]) -> None:
    """With the last ten, after a position, at a time; filtered as `read` filters."""
    ran = run("tail", steady, "--once", *words)
    assert ran.code == 0
    assert [line["position"] for line in ran.lines] == shown


def test_a_cursor_printed_at_the_end_can_be_used(bank: str) -> None:
    """What `tail` says when it ends is what --after takes."""
    error = run("tail", bank, "--once", "--limit", "2").err
    cursor = error.split("--after ")[1].strip()
    assert [line["position"] for line in run("read", bank, "--after", cursor).lines] == [3, 4, 5, 6]


def test_a_cursor_of_another_store_is_refused_with_code_7(bank: str, tmp_path: Path) -> None:
    """Also one of history that this store no longer has, and a file that holds no cursor."""
    file = tmp_path / "progress"
    with Store("memory:") as other:
        file.write_text(f"{other.cursor()}\n")
    ran = run("tail", bank, "--cursor", str(file), "--once")
    assert ran.code == 7 and "belongs to store" in ran.err
    file.write_text("some shopping list")
    ran = run("tail", bank, "--cursor", str(file), "--once")
    assert ran.code == 7 and "does not contain a cursor" in ran.err
    assert file.read_text() == "some shopping list"


def test_progress_that_cannot_be_kept_is_an_error(bank: str, tmp_path: Path) -> None:
    """In words, and with nothing half written."""
    ran = run("tail", bank, "--cursor", str(tmp_path / "nowhere" / "progress"), "--once")
    assert ran.code == 1 and "Progress cannot be saved" in ran.err
    write_cursor(tmp_path / "progress", "first")
    write_cursor(tmp_path / "progress", "second")
    assert (tmp_path / "progress").read_text() == "second\n"
    assert not list(tmp_path.glob("*.new"))


def test_a_reader_that_leaves_does_not_advance_the_cursor(bank: str, tmp_path: Path) -> None:
    """What could not be delivered is delivered again: progress is kept after the delivery, never before."""
    with started("tail", bank, "--json", "--cursor", "progress", "--limit", "7", folder=tmp_path) as running:
        assert [position(running.line()) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "progress").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        kept = (tmp_path / "progress").read_text()
        running.stop_reading()
        assert run("append", bank, "Noted").code == 0
        assert running.end()[0] == 0
    assert (tmp_path / "progress").read_text() == kept
    assert run("tail", bank, "--cursor", str(tmp_path / "progress"), "--once").lines[0]["position"] == 7


def test_last_and_after_contradict_each_other(bank: str) -> None:
    """Both say where to begin: exit code 2."""
    assert run("tail", bank, "--last", "3", "--after", "2", "--once").code == 2


def test_tail_on_a_terminal_ends_with_ctrl_c(bank: str, tmp_path: Path) -> None:
    """A table, and the key everybody presses."""
    code, shown = on_terminal("tail", bank, folder=tmp_path, interrupt_after="moved")
    assert code == 130
    assert "6 events shown." in shown and "Traceback" not in shown


def test_live_lines_can_be_appended_one_by_one(bank: str, tmp_path: Path) -> None:
    """`tail --json | append --batch 1` copies a store as it grows."""
    other = str(tmp_path / "other.db")
    assert run("init", other).code == 0
    with (
        started("tail", bank, "--json", "--after", "0", folder=tmp_path) as source,
        started("append", other, "--batch", "1", "--json", folder=tmp_path, source=source) as copier,
    ):
        assert [json.loads(copier.line())["last"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        assert run("append", bank, "Noted").code == 0
        assert json.loads(copier.line())["last"] == 7
    assert run("read", other, "--backwards", "--limit", "1").lines[0]["type"] == "Noted"


def test_a_killed_tail_resumes_by_its_name_and_is_proved(bank: str, tmp_path: Path) -> None:
    """Progress kept in the store: listed, held by one at a time, resumed after kill -9, proved."""
    with started("tail", bank, "--json", "--name", "mailer", folder=tmp_path) as running:
        assert [position(running.line()) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        refused = run("tail", bank, "--json", "--name", "mailer", "--once")
        assert (refused.code, refused.error["error"]) == (1, "lease-held")
        deadline = time.monotonic() + PATIENCE
        with Store(bank) as store:  # the page is shown before it is acknowledged
            while store.projections.checkpoints("mailer")[0].position < 6:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        running.send(signal.SIGKILL)
    assert run("append", bank, "Noted while no command ran").code == 0
    ran = run("tail", bank, "--json", "--name", "mailer", "--once", "--limit", "1")
    assert [line["position"] for line in ran.lines] == [7]
    assert ran.err == "1 event shown. Resume with --name mailer\n"
    (proof,) = run("verify", bank, "mailer", "--json").lines
    assert (proof["proved"], proof["handled"]) == (True, 7)
    (status,) = run("projections", "status", bank, "--json").lines
    assert (status["kind"], status["behind"]) == ("follower", 0)
    assert run("tail", bank, "--name", "mailer", "--cursor", "progress").code == 2
    assert run("projections", "remove", bank, "mailer").lines == [{"name": "mailer", "done": "removed", "position": 7}]
