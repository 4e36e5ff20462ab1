"""A match of chess: a move is legal, its player is on move and has time, and of two tabs of one player one moves.

The rules of chess come from the package `chess`. A position is stored with each move, so that a state need not replay
the game; the check plays every game again and compares. A clock that runs out is a timer in the log.

Knows: events, states, decisions, the process of the clock, read models. Does not know: which games there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chess

import eventfold as ef
from eventfold.processes import after, cancel, decide


class GameStarted(ef.Event):
    """A game begins; `clock_ms`: the time of each player, or None if it is played without a clock."""

    game: ef.Tag
    white: ef.Tag
    black: ef.Tag
    clock_ms: int | None = None


class MovePlayed(ef.Event):
    """A half-move: its number from 1, in the notation of chess, the position after it, the time that is left."""

    game: ef.Tag
    player: ef.Tag
    number: int
    san: str
    fen: str
    left_ms: int | None = None


class DrawOffered(ef.Event):
    game: ef.Tag
    player: ef.Tag


class DrawAgreed(ef.Event):
    game: ef.Tag


class Resigned(ef.Event):
    game: ef.Tag
    player: ef.Tag


class ClockRanOut(ef.Event):
    game: ef.Tag
    player: ef.Tag


class GameEnded(ef.Event):
    """The result as it is written, "1-0", "0-1" or "1/2-1/2", and why."""

    game: ef.Tag
    white: ef.Tag
    black: ef.Tag
    result: str
    why: str


class CheatFlagged(ef.Event):
    game: ef.Tag
    player: ef.Tag
    by: str
    why: str


class Refused(Exception):
    """The rules of the game forbid it."""


class Game(ef.State):
    game: ef.Tag
    white: str = ""
    black: str = ""
    moves: list[str] = []
    fen: str = chess.STARTING_FEN
    clocks_ms: dict[str, int] = {}
    offered_by: str | None = None
    out_of_time: str | None = None
    result: str | None = None

    def evolve(self, event: GameStarted | MovePlayed | DrawOffered | ClockRanOut | GameEnded) -> None:
        match event:
            case GameStarted():
                self.white, self.black = event.white, event.black
                if event.clock_ms is not None:
                    self.clocks_ms = {event.white: event.clock_ms, event.black: event.clock_ms}
            case MovePlayed():
                self.moves.append(event.san)
                self.fen, self.offered_by = event.fen, None
                if event.left_ms is not None:
                    self.clocks_ms[event.player] = event.left_ms
            case DrawOffered():
                self.offered_by = event.player
            case ClockRanOut():
                self.out_of_time = event.player
            case GameEnded():
                self.result = event.result

    @property
    def on_move(self) -> str:
        return self.black if len(self.moves) % 2 else self.white

    def require_player(self, player: str) -> None:
        if self.result is not None or self.out_of_time is not None:
            raise Refused(f"game {self.game} is over")
        if player not in (self.white, self.black):
            raise Refused(f"{player} does not play game {self.game}")

    def end(self, result: str, why: str) -> GameEnded:
        return GameEnded(self.game, self.white, self.black, result, why)

    def won_by_other(self, player: str, why: str) -> GameEnded:
        return self.end("0-1" if player == self.white else "1-0", why)


def start(game: Game, white: str, black: str, clock_ms: int | None = None) -> GameStarted:
    if game.white:
        raise Refused(f"game {game.game} has begun")
    return GameStarted(game.game, white, black, clock_ms)


def play(game: Game, player: str, number: int, san: str, spent_ms: int = 0) -> list[ef.Event]:
    """Play the half-move with this number; a player who sends it twice, from two tabs, is refused once."""
    game.require_player(player)
    if number != len(game.moves) + 1 or player != game.on_move:
        raise Refused(f"{player} is not on move {number} of game {game.game}")
    left = game.clocks_ms.get(player)
    if left is not None and not 0 <= spent_ms <= left:
        raise Refused(f"{player} has {left} ms, not {spent_ms}")
    board = chess.Board(game.fen)
    try:
        san = board.san_and_push(board.parse_san(san))
    except ValueError:
        raise Refused(f"{san} is not legal at move {number} of game {game.game}") from None
    played = MovePlayed(game.game, player, number, san, board.fen(), None if left is None else left - spent_ms)
    outcome = board.outcome()
    return [played] if outcome is None else [played, game.end(outcome.result(), outcome.termination.name.lower())]


def offer_draw(game: Game, player: str) -> DrawOffered:
    game.require_player(player)
    return DrawOffered(game.game, player)


def agree_to_draw(game: Game, player: str) -> list[ef.Event]:
    game.require_player(player)
    if game.offered_by in (None, player):
        raise Refused(f"no draw was offered to {player}")
    return [DrawAgreed(game.game), game.end("1/2-1/2", "agreed")]


def resign(game: Game, player: str) -> list[ef.Event]:
    game.require_player(player)
    return [Resigned(game.game, player), game.won_by_other(player, "resigned")]


def lose_on_time(game: Game) -> list[ef.Event]:
    return [] if game.result or not game.out_of_time else [game.won_by_other(game.out_of_time, "out of time")]


class ChessClock(Game, ef.Process, start="beginning"):
    """Runs the clock of the player on move, as a timer in the log that any runner continues after a crash."""

    def react(self, event: GameStarted | MovePlayed | ClockRanOut | GameEnded) -> Iterator[Any]:
        yield cancel(ClockRanOut)
        if isinstance(event, ClockRanOut):
            yield decide(lose_on_time, Game(self.game))
        elif self.result is None and self.on_move in self.clocks_ms:
            yield after(ClockRanOut(self.game, self.on_move), seconds=self.clocks_ms[self.on_move] / 1000)


class Standing(ef.Projection):
    """The table of the match: games and half points of a player."""

    player: str
    games: int = 0
    half_points: int = 0
    wins: int = 0

    @staticmethod
    def key(event: GameEnded) -> list[str]:
        return [event.white, event.black]

    def evolve(self, event: GameEnded) -> None:
        won = {"1-0": event.white, "0-1": event.black}.get(event.result)
        self.games += 1
        self.wins += won == self.player
        self.half_points += 1 if won is None else 2 * (won == self.player)
