"""The match: no player runs faster than a person can, a tick counts once, a session is replayed and judged again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing import given
from examples.fields.match import load as loading
from examples.fields.match.app import (
    MoveRefused,
    Places,
    PlayerEntered,
    PlayerLostFromView,
    PlayerRun,
    PlayerSubstituted,
    Position,
    PositionsTaken,
    SessionStarted,
    Track,
    take,
)
from examples.fields.match.check import check
from examples.fields.match.frames import as_frame, read_frames
from examples.fields.match.load import load, read_lineup
from examples.fields.match.replay import judge_again, replay
from tests.support.data import need
from tests.support.memory import tmp_path as tmp_path

ROWS = 3_000
SESSION = "2417"
TRACK = Track(SESSION, "7")
START = PositionsTaken(SESSION, "7", "0", [Position(0, 0.0, 0.0)])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ef.Store]:
    """A store with the first positions of the match."""
    need("match", "match-positions")
    with ef.Store(str(tmp_path_factory.mktemp("match") / "store.db")) as store:
        count = load(store, ROWS)
        assert count.is_complete
        assert count.read >= ROWS
        assert count.rejected == {"have a team and no identity": count.read - count.loaded}
        yield store


def test_accepted_and_refused_positions_are_proved_by_the_source(loaded: ef.Store) -> None:
    """Under 12 m/s and, from the log, under 10; with entries, metres, possession and the places at one tick."""
    checked = check(loaded, ROWS)
    assert checked.comparison.mismatches == []
    assert checked.figures["refused"] > 10
    assert checked.figures["refused under 10 m/s"] > checked.figures["refused"]
    last = max(tick for tick, places in replay(loaded, SESSION, 1_400, 1_800) if places)
    assert checked.figures[f"objects at tick {last}"] > 0


def test_a_second_load_writes_nothing(loaded: ef.Store) -> None:
    """Each event has an id made from session, player and tick."""
    before = loaded.head()
    count = load(loaded, ROWS)
    assert loaded.head() == before
    assert (count.loaded, count.events) == (0, 0)
    assert count.is_complete


def test_an_unknown_object_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reasons of rejected rows say what they were."""
    need("match")
    frame = {"frame": 0, "period": 1, "possession": {"group": None}}
    seen = [{"trackable_object": 1, "x": 0, "y": 0}, {"group_name": "home team", "x": 0, "y": 0}]
    frame["data"] = [*seen, {"trackable_object": 55, "x": 1.0, "y": 2.0}]
    real = loading.open_source

    def opened(name: str) -> Any:
        return real(name) if name == "match" else io.BytesIO(json.dumps([frame]).encode())

    monkeypatch.setattr(loading, "open_source", opened)
    with ef.Store("memory:") as store:
        count = load(store)
        assert store.state(Places(SESSION, "0")).places == {0: {"55": (1.0, 2.0)}}
    assert (count.read, count.loaded) == (3, 1)
    assert set(count.rejected) == {"have a team and no identity", "are of an unknown object"}


def test_of_32_clients_of_one_player_one_is_believed(served: str) -> None:
    """Each sends another place for the same tick, all of them reachable. Without the condition several are accepted."""
    for session, is_kept in (("a", True), ("b", False)):
        with ef.Store(served) as store:
            store.append(PositionsTaken(session, "7", "0", [Position(0, 0.0, 0.0)]))
        clients = [(Track(session, "7"), 0, [Position(1, n / 100, 0.0)]) for n in range(32)]
        result = contend(served, take, clients, ValueError, conditional=is_kept)
        assert (result.accepted == 1) is is_kept, f"{result}"
        with ef.Store(served) as store:
            events = [each.event for each in store.read(ef.Query.of(types=[PositionsTaken], tags=f"session:{session}"))]
        assert len(events) == 1 + result.accepted


def test_a_teleport_is_refused_and_a_tick_that_comes_twice_is_taken_once() -> None:
    """The refused position is a fact, with the place it was judged from."""
    scenario = given(START)
    scenario.when(take, TRACK, 0, [Position(1, 1.0, 0.0), Position(2, 30.0, 0.0)]).then(
        MoveRefused(SESSION, "7", "0", Position(2, 30.0, 0.0), Position(1, 1.0, 0.0), 290.0),
        PositionsTaken(SESSION, "7", "0", [Position(1, 1.0, 0.0)]),
    )
    scenario.when(take, TRACK, 0, [Position(1, 1.0, 0.0)]).nothing()
    scenario.when(take, TRACK, 0, [Position(2, 3.3, 0.0)]).then(
        MoveRefused(SESSION, "7", "0", Position(2, 3.3, 0.0), Position(1, 1.0, 0.0), 23.0)
    )


def test_after_a_second_out_of_sight_a_player_enters_again() -> None:
    """One tick less, and the speed counts."""
    given(START).when(take, TRACK, 1, [Position(10, 50.0, 0.0)]).then(
        MoveRefused(SESSION, "7", "1", Position(10, 50.0, 0.0), Position(0, 0.0, 0.0), 50.0)
    )
    given(START).when(take, TRACK, 1, [Position(11, 50.0, 0.0)]).then(
        PlayerLostFromView(SESSION, "7", 0),
        PlayerEntered(SESSION, "7", 11),
        PositionsTaken(SESSION, "7", "1", [Position(11, 50.0, 0.0)]),
    )


def test_the_distance_of_a_player_leaves_out_the_way_that_was_not_seen() -> None:
    """The step after an entry is none."""
    taken = [Position(0, 0.0, 0.0), Position(1, 1.0, 0.0)]
    with ef.Store("memory:") as store:
        store.append(
            PositionsTaken(SESSION, "7", "0", taken), PositionsTaken(SESSION, "7", "9", [Position(90, 40.0, 0.0)])
        )
        (row,) = store.view(PlayerRun).values()
    assert (row.positions, row.metres, row.fastest) == (3, 1.0, 10.0)


def test_a_session_is_replayed_at_any_speed(loaded: ef.Store) -> None:
    """Twice the pace of the match is twenty ticks a second."""
    waited: list[float] = []
    frames = list(replay(loaded, SESSION, 1_600, 1_620, speed=2, wait=waited.append))
    assert [tick for tick, _ in frames] == list(range(1_600, 1_621))
    assert waited == [0.05] * 21
    assert sum(len(places) for _, places in frames) > 100
    assert [places for _, places in replay(loaded, SESSION, 1_600, 1_620)] == [places for _, places in frames]


def test_a_replay_is_read_as_the_source_is(loaded: ef.Store) -> None:
    """Frames go out in the layout of the source, and its reader has the same places."""
    frames = [as_frame(tick, places) for tick, places in replay(loaded, SESSION, 1_600, 1_610)]
    found = list(read_frames(io.BytesIO(json.dumps(frames).encode())))
    assert found == frames
    assert found[0]["frame"] == 1_600


def test_frames_are_read_across_the_bounds_of_chunks_and_a_cut_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk may end anywhere within a frame."""
    monkeypatch.setattr("examples.fields.match.frames.CHUNK_BYTES", 7)
    frames = [{"frame": n, "data": [{"x": -1.5e-3, "y": n}]} for n in range(5)]
    text = json.dumps(frames).encode()
    assert list(read_frames(io.BytesIO(text))) == frames
    with pytest.raises(ValueError, match="ends in the middle"):
        list(read_frames(io.BytesIO(text[:-4])))


def test_a_forged_position_is_found(loaded: ef.Store, tmp_path: Path) -> None:
    """A program that bypasses the rule moves a player by twenty metres within a tick."""
    event = next(iter(loaded.read(ef.Query.of(types=[PositionsTaken]), backwards=True))).event
    tick, x, y = event.positions[-1]
    path = str(tmp_path / "copy.db")
    loaded.backup(path)
    with ef.Store(path) as store:
        forge(store, PositionsTaken(event.session, event.player, event.second, [Position(tick + 1, x + 20, y)]))
        found = [each.figure for each in check(store, ROWS).comparison.mismatches]
    assert f"player {event.player} at tick {tick + 1} was accepted with 200.0 m/s" in found
    assert "positions that only the log or only the source has" in found


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """The engine compares each payload with its checksum."""
    path = tmp_path / "store.db"
    with ef.Store(str(path)) as store:
        store.append(SessionStarted(SESSION, 1, 2, datetime(2019, 11, 9, tzinfo=UTC)), START)
    change_byte(path, 1)
    assert {flaw.position for flaw in damage_of(str(path)).flaws} - {None} == {1}


def test_a_match_judged_again_under_the_same_limit_has_the_same_result(loaded: ef.Store) -> None:
    """What was refused then is refused again, from the log alone."""
    again = [(each.player, each.position) for each in judge_again(loaded, SESSION, 12.0) if not each.accepted]
    then = [(each.event.player, each.event.position) for each in loaded.read(ef.Query.of(types=[MoveRefused]))]
    assert sorted(again) == sorted(then)


def test_the_substitutions_have_their_ticks_on_the_clock_of_the_frames() -> None:
    """Six of them; the clock of the second half begins at 45:00, eleven thousand ticks after the first ended."""
    need("match")
    lineup = read_lineup()
    assert len(lineup.substitutions) == 6
    assert lineup.substitutions[0][0] == 1_411 + (35 * 60 + 17) * 10
    assert all(tick > 39_979 for tick, _, _ in lineup.substitutions[1:])
    assert {each for _, *both in lineup.substitutions for each in both} <= set(map(str, lineup.players))
    assert PlayerSubstituted(SESSION, *lineup.substitutions[0][1:], lineup.substitutions[0][0]).tick > 0
