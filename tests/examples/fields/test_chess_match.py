"""The match of chess: only legal moves, of two tabs one moves, the clock, and every game as others wrote it down."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import chess
import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing import given
from eventfold.testing.clock import Clock
from examples.fields.chess_match import load as loading
from examples.fields.chess_match.app import (
    CheatFlagged,
    ChessClock,
    ClockRanOut,
    DrawAgreed,
    DrawOffered,
    Game,
    GameEnded,
    GameStarted,
    MovePlayed,
    Refused,
    Resigned,
    agree_to_draw,
    offer_draw,
    play,
    resign,
    start,
)
from examples.fields.chess_match.check import board_at, check
from examples.fields.chess_match.games import GAMES
from examples.fields.chess_match.load import load
from examples.fields.chess_match.pgn import read_pgn, write_pgn
from tests.cli.commands import run
from tests.support.data import need
from tests.support.memory import tmp_path as tmp_path
from tests.test_conventions import ROOT

FIRST_TWO = 178  # half-moves


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ef.Store]:
    """A store with the first two games and some random ones."""
    need("chess-games")
    with ef.Store(str(tmp_path_factory.mktemp("chess") / "store.db")) as store:
        assert load(store, FIRST_TWO, random_games=4).loaded == FIRST_TWO
        yield store


def test_the_games_are_those_of_the_file_that_others_wrote(loaded: ef.Store) -> None:
    """Half-moves and results by SQL over the text, and every game of the log played again."""
    checked = check(loaded, FIRST_TWO)
    assert checked.comparison.mismatches == []
    assert checked.figures["half-moves"] == FIRST_TWO
    assert checked.figures["played again"] > FIRST_TWO


def test_all_six_games_end_as_the_reader_of_pgn_says() -> None:
    """519 half-moves, six last positions, three and a half points to two and a half."""
    need("chess-games")
    with ef.Store("memory:") as store:
        count = load(store, random_games=0)
        checked = check(store)
    assert (count.read, count.loaded, count.rejected) == (519, 519, {})
    assert checked.comparison.mismatches == []
    assert checked.figures["points"] == {"deep-blue": 3.5, "kasparov": 2.5}


def test_a_second_load_writes_nothing(loaded: ef.Store) -> None:
    """Random games are the same for the same seed, too."""
    before = loaded.head()
    count = load(loaded, FIRST_TWO, random_games=4)
    assert loaded.head() == before
    assert (count.read, count.loaded, count.repeated) == (FIRST_TWO, 0, FIRST_TWO)


def test_a_half_move_that_is_not_legal_is_counted_with_those_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The game ends there; rows read are rows loaded and rows rejected."""
    wrong = GAMES[5]._replace(moves="e4 c6 d4 Ke2 Nc3 dxe4", name="wrong")
    monkeypatch.setattr(loading, "GAMES", (wrong,))
    with ef.Store("memory:") as store:
        count = load(store, random_games=0)
        assert store.state(Game("wrong")).moves == ["e4", "c6", "d4"]
    assert (count.read, count.loaded, sum(count.rejected.values())) == (6, 3, 3)
    assert "Ke2 is not legal at move 4" in next(iter(count.rejected))


def test_of_32_tabs_of_one_player_one_moves(served: str) -> None:
    """Without the condition of the decision several first moves are recorded, and the check finds that."""
    moves = ["e4", "d4", "c4", "Nf3"] * 8
    for name, is_kept in (("g-1", True), ("g-2", False)):
        with ef.Store(served) as store:
            store.append(GameStarted(name, "ann", "bob"))
        tabs = [(Game(name), "ann", 1, san) for san in moves]
        result = contend(served, play, tabs, Refused, conditional=is_kept)
        assert (result.accepted == 1) is is_kept, f"{result}"
        assert result.accepted + result.refused == 32


def test_what_the_rules_refuse() -> None:
    """Moves that are not legal, of the wrong player, out of turn, beyond the clock, or after the end."""
    game = Game("g")
    begun = given(GameStarted("g", "ann", "bob", 10_000))
    begun.when(play, game, "ann", 1, "e5").raises(Refused, "not legal")
    begun.when(play, game, "bob", 1, "e5").raises(Refused, "not on move")
    begun.when(play, game, "ann", 2, "e4").raises(Refused, "not on move 2")
    begun.when(play, game, "eve", 1, "e4").raises(Refused, "does not play")
    begun.when(play, game, "ann", 1, "e4", 10_001).raises(Refused, "10000 ms")
    begun.when(start, game, "ann", "bob").raises(Refused, "has begun")
    begun.when(agree_to_draw, game, "bob").raises(Refused, "no draw was offered")
    begun.when(offer_draw, game, "ann").then(DrawOffered("g", "ann"))
    begun.when(agree_to_draw, game, "ann").raises(Refused, "no draw was offered to ann")
    begun.when(agree_to_draw, game, "bob").then(DrawAgreed("g"), GameEnded("g", "ann", "bob", "1/2-1/2", "agreed"))
    begun.when(play, game, "ann", 1, "e4").raises(Refused, "is over")
    other = given(GameStarted("g", "ann", "bob"))
    other.when(resign, game, "ann").then(Resigned("g", "ann"), GameEnded("g", "ann", "bob", "0-1", "resigned"))


def test_a_mate_ends_the_game_in_the_same_append() -> None:
    """The shortest one there is."""
    with ef.Store("memory:") as store:
        store.decide(start, Game("g"), "ann", "bob")
        for number, (player, san) in enumerate([("ann", "f3"), ("bob", "e5"), ("ann", "g4"), ("bob", "Qh4")], start=1):
            done = store.decide(play, Game("g"), player, number, san)
        assert [type(each.event) for each in done.events] == [MovePlayed, GameEnded]
        assert store.state(Game("g")).result == "0-1"
        assert done.events[0].event.san == "Qh4#"


def test_a_clock_that_runs_out_ends_the_game_and_a_move_in_time_stops_it() -> None:
    """The timer is an event of the log; the move that comes afterwards is refused."""
    with ef.Store("memory:") as store:
        store.decide(start, Game("g"), "ann", "bob", clock_ms=60_000)
        begun = store.decide(play, Game("g"), "ann", 1, "e4", 15_000).events[0].time
        clock = Clock(begun + timedelta(seconds=50))
        store.run_until_idle(ChessClock, clock=clock)
        assert store.state(Game("g")).out_of_time is None
        clock.advance(20)
        store.run_until_idle(ChessClock, clock=clock)
        assert [recorded.event for recorded in store.read(ef.Query.of(types=[ClockRanOut]))] == [
            ClockRanOut("g", "bob")
        ]
        assert store.state(Game("g")).result == "1-0"
        with pytest.raises(Refused, match="is over"):
            store.decide(play, Game("g"), "bob", 2, "e5")


def test_the_board_after_move_36_of_the_second_game(loaded: ef.Store) -> None:
    """The position of the time, step by step, though the game went on."""
    shown = board_at(loaded, "1997-2", 71)
    assert shown[-1] == "the last half-moves: 35. Bxd6, 35… Bxd6, 36. axb5"
    assert shown[0] == "r . r . q . k ."
    fen = loaded.state(Game("1997-2")).fen
    assert chess.Board(fen).fullmove_number == 45


def test_a_disputed_game_becomes_a_test_of_its_own(loaded: ef.Store, tmp_path: Path) -> None:
    """The command writes the recorded half-moves as Python code that replays them."""
    path = str(tmp_path / "copy.db")
    loaded.backup(path)
    written = run("history", path, "examples.fields.chess_match.app:Game", "game=1997-2", "--as-test").out
    assert "MovePlayed(" in written
    assert written.count("MovePlayed(") >= 89


def test_a_forged_move_is_found(loaded: ef.Store, tmp_path: Path) -> None:
    """A position that the move does not lead to, and a half-move out of turn."""
    path = str(tmp_path / "copy.db")
    loaded.backup(path)
    with ef.Store(path) as store:
        store.append(GameStarted("g-1", "ann", "bob"))
        position = forge(store, MovePlayed("g-1", "ann", 1, "e4", chess.STARTING_FEN))
        second = forge(store, MovePlayed("1997-2", "kasparov", 90, "e4", chess.STARTING_FEN))
        found = [each.figure for each in check(store, FIRST_TWO).comparison.mismatches]
    assert f"event {position}: another position follows e4 in g-1" in found
    assert f"event {second}: half-move 90 of game 1997-2 is not next" in found


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """The engine compares each payload with its checksum."""
    path = tmp_path / "store.db"
    with ef.Store(str(path)) as store:
        store.append(GameStarted("g-1", "ann", "bob"), CheatFlagged("g-1", "bob", "arbiter", "a phone"))
    change_byte(path, 2)
    assert {flaw.position for flaw in damage_of(str(path)).flaws} - {None} == {2}


def test_games_go_out_as_pgn_and_come_back_the_same(loaded: ef.Store) -> None:
    """What this example writes, the reader of the package reads."""
    game = loaded.state(Game("1997-1"))
    (read,) = read_pgn(write_pgn(game, "1997.05.03"))
    assert (read.white, read.black, read.result) == ("kasparov", "deep-blue", "1-0")
    assert (read.moves, read.fen) == (game.moves, game.fen)


def test_only_this_example_imports_the_package_of_the_rules() -> None:
    """Its licence, GPL-3.0, is not that of this project: it is in no extra and in no other module."""
    importing = re.compile(r"^\s*(?:import|from) chess\b", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT).parent)
        for folder in ("src", "examples", "benchmarks", "soak", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        if importing.search(path.read_text("utf-8"))
    }
    assert found == {"examples/fields/chess_match"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = [each for extra in settings["project"]["optional-dependencies"].values() for each in extra]
    assert not [each for each in [*extras, *settings["project"]["dependencies"]] if each.startswith("chess")]
