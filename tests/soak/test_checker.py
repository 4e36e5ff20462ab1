"""The checker of the soak programme finds each kind of broken promise: a checker that never fails proves nothing.

Knows: small histories that are wrong on purpose. Does not know: faults.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from soak.check import Allowed, Findings, check, check_follower
from soak.clients import Place
from soak.disks import HEAD, after_power_cut
from soak.facts import Noted, Seat, SeatTaken, configure, take
from soak.history import History


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A store of four appends, and a correct history of them."""
    monkeypatch.setenv("SOAK_FAILING", "")
    monkeypatch.setenv("SOAK_LETTERS", "")
    configure(tmp_path)
    made = Place(str(tmp_path / "store.db"), tmp_path, "")
    history = History(tmp_path, "w")
    with made.open() as store:
        for number in range(3):
            history.asked(f"n.{number}", 1)
            receipt = store.append(Noted("w", f"n.{number}", 0, 1))
            history.written(f"n.{number}", receipt.epoch, receipt.first, receipt.event_ids, repeated=False)
        history.asked("t.1", 1)
        assert store.decide(take, Seat("s1"), "t.1").receipt
    history.close()
    return made


def problems(place: Place, allowed: Allowed | None = None) -> str:
    """Return the checker's problems."""
    findings = Findings()
    check(place, findings, allowed, models=False)
    return "; ".join(findings.problems)


@pytest.mark.filterwarnings("ignore:.*handles soak-greeted, which the log does not have")
def test_nothing_is_found_where_nothing_is_wrong(place: Place) -> None:
    """A log that equals its acknowledgements has no problems; nor have the read models folded from it."""
    findings = Findings()
    check(place, findings)
    assert findings.problems == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("asked", "x", 1), ""),
        (("written", "x", 1, 1, 0, "00" * 16), "1 acknowledged appends are not in the log"),
        (("written", "n.1", 1, 1, 0, "00" * 16), "1 acknowledged appends are not in the log"),
        (("refused", "t.1", "StoreBusy"), "t.1 was refused (StoreBusy), and it is in the log"),
        (("asked", "n.0", 2), "n.0: 1 of 2 events are in the log"),
        (("foreign", "n.0", "ValueError: driver"), "an error of another library reached the caller"),
        (("unknown", "t.1", "AppendUnconfirmed"), ""),
    ],
)
def test_a_wrong_answer_is_found(place: Place, words: tuple[object, ...], found: str) -> None:
    """Lost, refused but written, incomplete, foreign: each is named. An unknown outcome may be either."""
    History(place.folder, "x").write(*words)
    said = problems(place)
    assert found in said
    assert bool(said) == bool(found)


def test_a_first_append_reported_as_a_repeat_is_found(place: Place) -> None:
    """The first append of an event is not a repeat."""
    with place.open() as store:
        receipt = store.append(Noted("w", "r.1", 0, 1))
    history = History(place.folder, "x")
    history.asked("r.1", 1)
    history.written("r.1", receipt.epoch, receipt.first, receipt.event_ids, repeated=True)
    assert "reported as repeated: ['r.1']" in problems(place)


def test_a_decision_that_broke_its_condition_is_found(place: Place) -> None:
    """Two holders of one number of a seat break the invariant."""
    History(place.folder, "x").asked("t.2", 1)
    with place.open() as store:
        store.append(SeatTaken("s1", 1, "t.2"))
    assert "the condition of a decision was broken: s1 has holder 1 in place of 2" in problems(place)


def test_a_lost_tail_is_allowed_only_where_it_is_promised(place: Place) -> None:
    """After a failover acknowledgements of an older epoch may be lost, but none before one that survived."""
    History(place.folder, "x").write("asked", "x", 1)
    History(place.folder, "x").write("written", "x", 1, 90, 0, "00" * 16)
    assert problems(place)
    assert not problems(place, Allowed(epoch=2))
    History(place.folder, "y").write("asked", "y", 1)
    History(place.folder, "y").write("written", "y", 1, 2, 0, "00" * 16)
    assert "not a tail" in problems(place, Allowed(epoch=2))


@pytest.mark.parametrize(
    ("lives", "found"),
    [
        ("begin 1 2 begin 3 4", ""),
        ("begin 1 2 begin 2 3", ""),
        ("begin 1 2 kept2 begin 2 3", "again, which was acknowledged up to 2"),
        ("begin 1 2 begin 4", "skipped events: it begins at 4"),
        ("begin 1 3", "saw 3 after 1"),
    ],
)
def test_a_follower_that_skips_or_repeats_is_found(place: Place, lives: str, found: str) -> None:
    """Unacknowledged events may come again; others may not, and none is left out."""
    with place.open() as store:
        events = list(store.read())
    history = History(place.folder, "follow-named-0")
    for word in lives.split():
        if word == "begin":
            history.write("begin", 0)
        elif word.startswith("kept"):
            history.write("kept", word.removeprefix("kept"))
        else:
            history.write("saw", word, events[int(word) - 1].id.hex)
    findings = Findings()
    check_follower(place.folder / "follow-named-0.history", events, findings, Allowed())
    assert found in "; ".join(findings.problems)
    assert bool(findings.problems) == bool(found)


def test_synced_writes_survive_a_power_cut(tmp_path: Path) -> None:
    """Of two writes the synced one always survives, and the other one sometimes."""
    into, record = tmp_path / "after", tmp_path / "record"
    into.mkdir()
    steps = [(b"w", 0, b"a" * 600), (b"s", 0, b""), (b"w", 600, b"b" * 600)]
    record.write_bytes(b"".join(HEAD.pack(kind, 1, at, len(data)) + b"f" + data for kind, at, data in steps))
    seen = set[bytes]()
    for seed in range(50):
        after_power_cut(record, into, random.Random(seed))
        content = (into / "f").read_bytes()
        assert content[:600] == b"a" * 600
        seen.add(content[600:])
    assert {b"", b"b" * 600} < seen
