"""The grammar of the filter language, from text to a tree of clauses.

    or     = and { "OR" and }                 and  = term { ["AND"] term }
    term   = ("-" | "~" | "NOT") term | "(" or ")" | clause
    clause = key op value { "," value }       op   = : = != > >= < <= ~       value = bare | "quoted" | a..b

Knows: characters, words. Does not know: what a key means (see columns.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from eventfold.errors import InvalidFilter

MAX_DEPTH = 50  # of nested parentheses and negations
MAX_CHARACTERS = 10_000
SYNTAX = (
    "Write comparisons such as total>5, owner:ann,bob, owner:an*, total:5..10, has:closed, closed=null; combine them "
    "by spaces (and), OR, NOT or - before one, and parentheses; put quotes around a text with blanks."
)
OPERATORS = (":", "=", "!=", ">", ">=", "<", "<=", "~")
TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<operator>!=|>=|<=|[:=><~,()])|(?P<word>[^\s"():=!<>~,]+))""", re.DOTALL
)
VALUE = re.compile(r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[^\s",()]+))""", re.DOTALL)

Operator = Literal[":", "=", "!=", ">", ">=", "<", "<=", "~"]


class Value(msgspec.Struct, frozen=True):
    """A value as text. `quoted`: it was in quotes, so `*`, `..` and null have no meaning in it."""

    text: str
    quoted: bool = False


class Clause(msgspec.Struct, frozen=True):
    """A key compared with one value, or with any of several."""

    key: str
    operator: str
    values: Sequence[Value]


class Not(msgspec.Struct, frozen=True):
    """What the part does not select."""

    part: Node


class Group(msgspec.Struct, frozen=True):
    """All parts, or any of them."""

    operator: Literal["and", "or"]
    parts: tuple[Node, ...]


Node = Clause | Not | Group


def parse(text: str) -> Node:
    """Return the tree of a text. Raises InvalidFilter."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidFilter(f"The filter is longer than {MAX_CHARACTERS:,} characters.", "Shorten it.")
    parser = _Parser(text)
    found = parser.either(0)
    if not parser.at_end():
        raise parser.error("nothing that can follow here")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def at_end(self) -> bool:
        return not self._text[self._at :].strip()

    def error(self, what: str) -> InvalidFilter:
        rest = self._text[self._at :].strip()
        at = f"at {rest[:30]!r}" if rest else "at its end"
        return InvalidFilter(f"The filter {self._text[:200]!r} has {what} {at}.", SYNTAX)

    def either(self, depth: int) -> Node:
        parts = [self._both(depth)]
        while self._word("OR"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Group("or", tuple(parts))

    def _both(self, depth: int) -> Node:
        parts = [self._term(depth)]
        while self._word("AND") or not (self.at_end() or self._peek() == ")" or self._peek() == "OR"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else Group("and", tuple(parts))

    def _term(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"The filter is nested deeper than {MAX_DEPTH} levels.", "Write it flatter.")
        if self._word("NOT") or self._character("-") or self._character("~"):
            return Not(self._term(depth + 1))
        if self._character("("):
            found = self.either(depth + 1)
            if not self._character(")"):
                raise self.error("no closing parenthesis")
            return found
        return self._clause()

    def _clause(self) -> Node:
        found = TOKEN.match(self._text, self._at)
        if found is None or found["word"] is None:
            raise self.error("no name of a column")
        key, self._at = found["word"], found.end()
        sign = TOKEN.match(self._text, self._at)
        if sign is None or sign["operator"] not in OPERATORS:
            raise self.error(f"no comparison after {key!r}")
        self._at = sign.end()
        values = [self._value()]
        while self._character(","):
            values.append(self._value())
        return Clause(key, sign["operator"], tuple(values))

    def _value(self) -> Value:
        found = VALUE.match(self._text, self._at)
        if found is None:
            unclosed = self._text[self._at :].lstrip().startswith('"')
            raise self.error("a quote that is not closed" if unclosed else "no value")
        self._at = found.end()
        if (quoted := found["quoted"]) is not None:
            return Value(re.sub(r"\\(.)", r"\1", quoted[1:-1], flags=re.DOTALL), quoted=True)
        return Value(found["word"])

    def _peek(self) -> str:
        found = TOKEN.match(self._text, self._at)
        return "" if found is None else found[0].strip()

    def _word(self, word: str) -> bool:
        found = TOKEN.match(self._text, self._at)
        if found is None or found["word"] != word:
            return False
        self._at = found.end()
        return True

    def _character(self, character: str) -> bool:
        at = self._at + len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
        if not self._text.startswith(character, at):
            return False
        self._at = at + 1
        return True
