"""The grammar of the filter language, from text to a tree of clauses, in time linear in the text.

    or     = and { "OR" and }                 and  = term { ["AND"] term }
    term   = ("-" | "NOT") term | "(" or ")" | clause | word          (of rows: no words, and also "~" for "-")
    clause = key op value { "," value }       op   = : = != > >= < <= ~       value = bare | "quoted" | a..b
    key    = bare | "quoted", its op follows  word = bare | "quoted"

Knows: characters, words. Does not know: what a key means (columns.py, conditions.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from eventfold.errors import InvalidFilter

MAX_DEPTH = 50  # of nested parentheses and negations
MAX_CHARACTERS = 10_000
MAX_CLAUSES = 500  # clauses and words
ROW_SYNTAX = (
    "Write comparisons such as total>5, owner:ann,bob, owner:an*, total:5..10, has:closed, closed=null; combine them "
    "by spaces (and), OR, NOT or - before one, and parentheses; put quotes around a text with blanks."
)
EVENT_SYNTAX = (
    "Write clauses such as type:Paid, customer:42, since:7d, data.amount>100, has:data.refund, or words of payloads; "
    "combine them by spaces (and), OR, NOT or - before one, and parentheses; put quotes around a text with blanks."
)
OPERATORS = (":", "=", "!=", ">", ">=", "<", "<=", "~")
CONNECTIVES = ("AND", "OR", "NOT")
_BLANKS = re.compile(r"\s*")
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<operator>!=|>=|<=|[:=><~,()])|(?P<word>[^\s"():=!<>~,]+)""", re.DOTALL
)
_VALUE = re.compile(r"""(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[^\s",()]+)""", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Operator = Literal[":", "=", "!=", ">", ">=", "<", "<=", "~"]


class Value(msgspec.Struct, frozen=True):
    """A value as text. `quoted`: it was in quotes, so `*`, `..` and null have no meaning in it."""

    text: str
    quoted: bool = False
    at: int = 0  # the number of its first character in the text of the filter, from 1


class Clause(msgspec.Struct, frozen=True):
    """A key compared with one value, or with any of several."""

    key: str
    operator: str
    values: Sequence[Value]
    at: int = 0


class Word(msgspec.Struct, frozen=True):
    """A text alone, without a key."""

    text: str
    quoted: bool = False
    at: int = 0


class Not(msgspec.Struct, frozen=True):
    """What the part does not select."""

    part: Node


class Group(msgspec.Struct, frozen=True):
    """All parts, or any of them."""

    operator: Literal["and", "or"]
    parts: tuple[Node, ...]


Node = Clause | Word | Not | Group


def parse(text: str, *, words: bool = False) -> Node:
    """Return the tree of a text. `words`: a text without a key is a Word, not a mistake. Raises InvalidFilter."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidFilter(f"The filter is longer than {MAX_CHARACTERS:,} characters.", "Shorten it.")
    if (bad := next((at for at, each in enumerate(text, 1) if "\ud800" <= each <= "\udfff"), 0)) > 0:
        raise InvalidFilter(f"The filter has a character at {bad} that is no text in UTF-8.", "Remove it.", at=bad)
    parser = _Parser(text, words)
    found = parser.either(0)
    if not parser.is_at_end():
        raise parser.error("nothing that can follow here")
    return found


class _Parser:
    """A cursor in the text; it stands on no blank after each step."""

    def __init__(self, text: str, words: bool) -> None:
        self._text, self._words = text, words
        self._syntax = EVENT_SYNTAX if words else ROW_SYNTAX
        self._at = self._clauses = 0
        self._move_to(0)

    def _move_to(self, at: int) -> None:
        found = _BLANKS.match(self._text, at)
        self._at = at if found is None else found.end()

    def is_at_end(self) -> bool:
        return self._at >= len(self._text)

    def error(self, what: str) -> InvalidFilter:
        rest = self._text[self._at : self._at + 30].strip()
        where = f"at {rest!r}, character {self._at + 1}" if rest else "at its end"
        return InvalidFilter(f"The filter {self._text[:200]!r} has {what} {where}.", self._syntax, at=self._at + 1)

    def either(self, depth: int) -> Node:
        parts = [self._both(depth)]
        while self._skip_word("OR"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Group("or", tuple(parts))

    def _both(self, depth: int) -> Node:
        parts = [self._term(depth)]
        while self._skip_word("AND") or not (self.is_at_end() or self._peek() in (")", "OR")):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else Group("and", tuple(parts))

    def _term(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise InvalidFilter(
                f"The filter is nested deeper than {MAX_DEPTH} levels.", "Write it flatter.", at=self._at + 1
            )
        if self._skip_word("NOT") or self._skip("-") or (not self._words and self._skip("~")):
            return Not(self._term(depth + 1))
        if self._skip("("):
            found = self.either(depth + 1)
            if not self._skip(")"):
                raise self.error("no closing parenthesis")
            return found
        return self._clause()

    def _clause(self) -> Node:
        at = self._at
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise InvalidFilter(f"The filter has more than {MAX_CLAUSES} clauses.", "Shorten it.", at=at + 1)
        found = _TOKEN.match(self._text, at)
        if found is None or found["operator"] is not None or (found["quoted"] is not None and not self._words):
            unclosed = self._words and self._text.startswith('"', at)
            missing = "no clause or word" if self._words else "no name of a column"
            raise self.error("a quote that is not closed" if unclosed else missing)
        quoted = found["quoted"] is not None
        key = _unquote(found["quoted"]) if quoted else found["word"]
        self._move_to(found.end())
        sign = _TOKEN.match(self._text, self._at)
        is_apart = self._words and self._at > found.end() and self._text.startswith("~", self._at)
        if sign is None or sign["operator"] not in OPERATORS or is_apart:
            if self._words and (quoted or key not in CONNECTIVES) and (sign is None or sign[0] != ","):
                return Word(key, quoted, at + 1)
            raise self.error(f"no comparison after {key!r}")
        self._move_to(sign.end())
        values = [self._value()]
        while self._skip(","):
            values.append(self._value())
        return Clause(key, sign["operator"], tuple(values), at + 1)

    def _value(self) -> Value:
        at = self._at
        found = _VALUE.match(self._text, at)
        if found is None:
            unclosed = self._text.startswith('"', at)
            raise self.error("a quote that is not closed" if unclosed else "no value")
        self._at = found.end()
        if self._text.startswith('"', self._at):
            raise self.error("a quote within a value")
        self._move_to(self._at)
        if found["quoted"] is not None:
            return Value(_unquote(found["quoted"]), quoted=True, at=at + 1)
        return Value(found["word"], at=at + 1)

    def _peek(self) -> str:
        found = _TOKEN.match(self._text, self._at)
        return "" if found is None else found[0]

    def _skip_word(self, word: str) -> bool:
        if not self._text.startswith(word, self._at) or self._peek() != word:
            return False
        self._move_to(self._at + len(word))
        return True

    def _skip(self, character: str) -> bool:
        if not self._text.startswith(character, self._at):
            return False
        self._move_to(self._at + 1)
        return True


def _unquote(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1])


_BARE_WORD = re.compile(r"""[^\s"():=!<>~,-][^\s"():=!<>~,]*""")


def print_tree(node: Node) -> str:
    """Return a text whose tree is this one (with other values of `at`)."""
    match node:
        case Clause():
            values = ",".join(_quote(value.text) if value.quoted else value.text for value in node.values)
            return f"{_bare(node.key)}{node.operator}{values}"
        case Word():
            return _quote(node.text) if node.quoted else node.text
        case Not():
            return f"-{_print_part(node.part)}"
        case Group():
            return (" " if node.operator == "and" else " OR ").join(map(_print_part, node.parts))


def _print_part(node: Node) -> str:
    return f"({print_tree(node)})" if isinstance(node, Group) else print_tree(node)


def _bare(key: str) -> str:
    return key if _BARE_WORD.fullmatch(key) and key not in CONNECTIVES else _quote(key)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
