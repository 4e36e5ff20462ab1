"""Loads the six games, and 2,000 random ones, through the rules: what the rules refuse is counted, not written.

The moves of the real games stand in games.py; when each was played is known to the day. The random games are generated:
legal moves chosen by chance from a seed, 25 seconds for each player, of which a move takes up to four; a player
whose time is over loses, and a game that nothing ended is agreed to be drawn after 40 half-moves.

Knows: games, rules. Does not know: read models, how the figures are asked again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import chess

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.chess_match.app import (
    ClockRanOut,
    Game,
    Refused,
    agree_to_draw,
    lose_on_time,
    offer_draw,
    play,
    resign,
    start,
)
from examples.fields.chess_match.games import GAMES, Played

SEED = 1997
RANDOM_GAMES = 2_000
CLOCK_MS = 25_000
SLOWEST_MOVE_MS = 4_000
LONGEST_GAME = 40  # half-moves
RANDOM_DAY = datetime(2026, 1, 1, tzinfo=UTC)
FOLDED = {"GameStarted", "MovePlayed", "DrawOffered", "ClockRanOut", "GameEnded"}  # into the state of a game


def load(store: ef.Store, limit: int | None = None, random_games: int | None = None) -> LoadCount:
    """Append the games; `limit`: only the first so many half-moves of the six, and no random games."""
    count = LoadCount()
    write(store, real_games(count, limit), count)
    wanted = random_games if random_games is not None else RANDOM_GAMES if limit is None else 0
    write(store, (drawn for number in range(wanted) for drawn in random_game(number)), count)
    return count


def real_games(count: LoadCount, limit: int | None = None) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield the events of the six games; a half-move that the rules refuse ends its game."""
    for played in GAMES:
        moves = played.moves.split()
        taken = moves if limit is None else moves[: max(0, limit - count.read)]
        count.read += len(taken)
        if taken:
            yield from _replay(played, taken, len(taken) == len(moves), count)


def _replay(played: Played, moves: list[str], is_whole: bool, count: LoadCount) -> Iterator[tuple[ef.Draft[Any], int]]:
    game = Game(played.name)
    day = datetime.fromisoformat(played.day).replace(tzinfo=UTC)
    yield from _applied(game, [start(game, played.white, played.black)], day)
    for number, san in enumerate(moves, start=1):
        try:
            yield from _applied(game, play(game, game.on_move, number, san), day, rows=1)
        except Refused as refused:
            count.reject(f"are not legal, or follow a move that is not: {refused}", len(moves) - number + 1)
            return
    if is_whole and played.ending == "agreed":
        yield from _applied(game, [offer_draw(game, game.white)], day)
        yield from _applied(game, agree_to_draw(game, game.black), day)
    elif is_whole:
        loser = played.black if played.result == "1-0" else played.white
        yield from _applied(game, resign(game, loser), day)


def random_game(number: int) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield the events of one random game, the same for the same number."""
    chance = random.Random(f"{SEED}/{number}")  # noqa: S311 (chance, not a secret)
    game, board = Game(f"random-{number}"), chess.Board()
    yield from _applied(
        game, [start(game, f"player-{number % 50}", f"player-{50 + number % 49}", CLOCK_MS)], RANDOM_DAY
    )
    while game.result is None and len(game.moves) < LONGEST_GAME:
        spent, player = int(chance.random() ** 3 * SLOWEST_MOVE_MS), game.on_move
        if spent > game.clocks_ms[player]:
            yield from _applied(game, [ClockRanOut(game.game, player)], RANDOM_DAY)
            yield from _applied(game, lose_on_time(game), RANDOM_DAY)
            return
        legal = list(board.legal_moves)
        move = legal[int(chance.random() * len(legal))]
        san = board.san_and_push(move)
        yield from _applied(game, play(game, player, len(game.moves) + 1, san, spent), RANDOM_DAY)
    if game.result is None:
        yield from _applied(game, [offer_draw(game, game.white)], RANDOM_DAY)
        yield from _applied(game, agree_to_draw(game, game.black), RANDOM_DAY)


def _applied(game: Game, events: list[Any], day: datetime, rows: int = 0) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield events as drafts, and fold those into the game that it is folded from."""
    for event in events:
        number = getattr(event, "number", len(game.moves))
        id = id_from(day, "chess", game.game, type(event).__name__, number)
        yield ef.Draft(event, id=id, occurred=day), rows if event is events[0] else 0
        if type(event).__name__ in FOLDED:
            game.evolve(event)
