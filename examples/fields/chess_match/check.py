"""Checks the match: the games are asked a second time of a file in PGN that others wrote, by SQL and by a PGN reader.

DuckDB finds the half-moves and results in the text by patterns, without knowing chess; the reader of the package
`chess` plays them. Besides, every game of the log is played again on one board, move by move, where the rules of app.py
start from the stored position each time: a forged move shows as a position that differs.

    python -m examples.fields.chess_match.check
    python -m examples.fields.chess_match.check --limit 178

Knows: the example, PGN, SQL. Does not know: how the figures are printed.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import chess

import eventfold as ef
from eventfold.demo.data import open_source, unpack
from eventfold.demo.fields import Checked, Comparison, connect, main
from eventfold.demo.fields.plot import bar_plot
from eventfold.demo.fields.report import bars, table
from examples.fields.chess_match.app import Game, GameEnded, GameStarted, MovePlayed, Standing
from examples.fields.chess_match.games import GAMES
from examples.fields.chess_match.load import load
from examples.fields.chess_match.pgn import read_pgn

DISPUTED = ("1997-2", 71)  # 36. axb5, after which the audit asks

_GAMES = """
WITH texts AS (SELECT unnest(string_split(replace(content, chr(13), ''), '[Event ')[2:]) AS game FROM read_text($path)),
parts AS (
    SELECT regexp_extract(game, 'White "([^"]*)"', 1) AS white, regexp_extract(game, 'Result "([^"]*)"', 1) AS result,
           regexp_extract(game, 'Black "([^"]*)"', 1) AS black, split_part(game, chr(10) || chr(10), 2) AS moves
    FROM texts
)
SELECT row_number() OVER () AS number, white, black, result,
       regexp_extract_all(moves, '(?:O-O(?:-O)?|[KQRBN]?[a-h]?[1-8]?x?[a-h][1-8](?:=[QRBN])?)[+#]?') AS moves
FROM parts
"""
_TABLE = """
WITH sides AS (
    SELECT white AS player, CASE result WHEN '1-0' THEN 2 WHEN '0-1' THEN 0 ELSE 1 END AS half_points FROM games
    UNION ALL
    SELECT black, CASE result WHEN '0-1' THEN 2 WHEN '1-0' THEN 0 ELSE 1 END FROM games
)
SELECT player, count(*), sum(half_points)::INTEGER FROM sides GROUP BY player
"""
_NAMES = {"Garry Kasparov": "kasparov", "Deep Blue (Computer)": "deep-blue"}


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare games, results and the table of the match with the PGN, and play every game of the log again."""
    store.project(Standing)
    checked = Checked()
    compared = checked.comparison
    games = {played.name: store.state(Game(played.name)) for played in GAMES}
    _compare_texts(store, games, limit, compared)
    with open_source("chess-games") as opened:
        text = opened.read().decode()
    for (name, game), read in zip(games.items(), read_pgn(text), strict=True):
        if limit is None:
            compared.figure(f"the last position of game {name}", game.fen, read.fen)
            compared.figure(f"the result of game {name}", game.result, read.result)
    checked.figures["half-moves"] = sum(len(game.moves) for game in games.values())
    checked.figures["played again"] = replay_all(store, compared)
    rows = [(row.player, row.games, row.wins, row.half_points / 2) for row in _match_table(store)]
    checked.figures["points"] = {player: points for player, _, _, points in rows}
    checked.add("The match", table(["player", "games", "won", "points"], rows))
    if len(games[DISPUTED[0]].moves) >= DISPUTED[1]:
        checked.add(f"Game {DISPUTED[0]} after half-move {DISPUTED[1]}", board_at(store, *DISPUTED))
    _add_lengths(store, checked)
    return checked


def _compare_texts(store: ef.Store, games: dict[str, Game], limit: int | None, compared: Comparison) -> None:
    """Compare what SQL finds in the text of the PGN."""
    with tempfile.TemporaryDirectory(prefix="eventfold-chess-") as folder:
        path = unpack("chess-games", Path(folder))
        db = connect()
        db.execute(f"CREATE TABLE games AS {_GAMES}", {"path": str(path)})  # noqa: S608 (a constant)
        rows = db.execute("SELECT moves, white, black, result FROM games ORDER BY number").fetchall()
        points = db.execute(_TABLE).fetchall()
        db.close()
    left = sum(len(moves) for moves, *_ in rows) if limit is None else limit
    for (name, game), (moves, white, black, result) in zip(games.items(), rows, strict=True):
        compared.figure(f"the half-moves of game {name}", game.moves, moves[: max(0, left)])
        if left >= len(moves):
            compared.figure(f"the players of game {name}", (game.white, game.black), (_NAMES[white], _NAMES[black]))
            compared.figure(f"the result of game {name} by SQL", game.result, result)
        left -= len(moves)
    if limit is None:
        compared.figures(
            "games and half points of",
            {row.player: (row.games, row.half_points) for row in _match_table(store)},
            {_NAMES[player]: (played, half_points) for player, played, half_points in points},
        )


def _match_table(store: ef.Store) -> list[Standing]:
    """The rows of the players of the match, the best first."""
    return [row for row in store.rows(Standing, order=("-half_points", "player")) if row.player in _NAMES.values()]


def replay_all(store: ef.Store, compared: Comparison) -> int:
    """Play every half-move of the log on a board of its game; return their number. What is illegal is a finding."""
    boards: dict[str, chess.Board] = {}
    played = 0
    for recorded in store.read(ef.Query.of(types=[MovePlayed, GameEnded])):
        event = recorded.event
        if isinstance(event, GameEnded):
            boards.pop(event.game, None)
            continue
        board = boards.setdefault(event.game, chess.Board())
        played += 1
        if event.number != board.ply() + 1:
            compared.finding(
                f"event {recorded.position}: half-move {event.number} of game {event.game} is not next", event
            )
            continue
        try:
            board.push_san(event.san)
        except ValueError:
            compared.finding(f"event {recorded.position}: {event.san} is not legal in game {event.game}", event)
            continue
        if board.fen() != event.fen:
            compared.finding(f"event {recorded.position}: another position follows {event.san} in {event.game}", event)
    return played


def board_at(store: ef.Store, name: str, number: int) -> list[str]:
    """The question about the past: the board after a half-move, with those before it, step by step."""
    steps = [step for step in store.history(Game(name)) if isinstance(step.recorded.event, MovePlayed)][:number]
    played = [step.recorded.event for step in steps[-3:]]
    last = [f"{(each.number + 1) // 2}{'.' if each.number % 2 else '…'} {each.san}" for each in played]
    return [*str(chess.Board(steps[-1].state.fen)).splitlines(), f"the last half-moves: {', '.join(last)}"]


def _add_lengths(store: ef.Store, checked: Checked) -> None:
    """How the games ended, and the plot: half-moves of each of the six."""
    why = Counter(recorded.event.why for recorded in store.read(ef.Query.of(types=[GameEnded])))
    checked.figures["games"] = store.count(ef.Query.of(types=[GameStarted]))
    checked.figures["endings"] = dict(sorted(why.items()))
    checked.add("How the games ended", bars(dict(why.most_common())))
    lengths = {played.name: len(store.state(Game(played.name)).moves) for played in GAMES}
    checked.plot = bar_plot(
        "Half-moves of the six games of 1997",
        f"Bars: {', '.join(f'game {name[-1]} has {length}' for name, length in lengths.items())} half-moves.",
        {f"game {name[-1]}": length for name, length in lengths.items()},
    )


if __name__ == "__main__":
    sys.exit(main("chess_match", load, check))
