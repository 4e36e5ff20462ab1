"""Games in and out as PGN, the text in which chess programs exchange them.

Knows: the package `chess`, the state of a game. Does not know: stores.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import chess
import chess.pgn

from examples.fields.chess_match.app import Game


class Read(NamedTuple):
    """A game read from PGN: who played, the half-moves in the notation of chess, the result, the last position."""

    white: str
    black: str
    moves: list[str]
    result: str
    fen: str


def write_pgn(game: Game, date: str = "????.??.??") -> str:
    """Return a game as PGN; `date`: as PGN writes it, 1997.05.03."""
    tree = chess.pgn.Game()
    tree.headers.update(
        Event=game.game, Site="?", Date=date, Round="?", White=game.white, Black=game.black, Result=game.result or "*"
    )
    board, node = chess.Board(), tree
    for san in game.moves:
        node = node.add_variation(board.push_san(san))
    return str(tree) + "\n"


def read_pgn(text: str) -> Iterator[Read]:
    """Yield the games of a text in PGN."""
    opened = io.StringIO(text)
    while (tree := chess.pgn.read_game(opened)) is not None:
        board = tree.board()
        moves = [board.san_and_push(move) for move in tree.mainline_moves()]
        yield Read(tree.headers["White"], tree.headers["Black"], moves, tree.headers["Result"], board.fen())
