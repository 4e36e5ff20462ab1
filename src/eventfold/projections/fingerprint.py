"""The fingerprint of a projection's code: does a class still mean what it meant when its rows were made?

Formatting, comments and docstrings do not count; the fields, the query and every method do, those it inherits from
the user's own classes too; a function outside a class does not. Knows: source and byte code. Does not know: what is
done about a change.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from types import CodeType
from typing import Any

LIBRARY_MODULES = {
    "abc",
    "builtins",
    "msgspec",
    "msgspec._core",
    "typing",
    "eventfold.projections.classes",
}  # no user's modules


def fingerprint(cls: type, tables: str, more: str) -> str:
    """8 hex digits for its `tables`, a hyphen, 16 for all that it means: its code, and `more` (its query)."""
    code = "\n".join(_code(each) for each in cls.__mro__ if each.__module__ not in LIBRARY_MODULES)
    return f"{_hash(tables)[:8]}-{_hash(tables + more + code)[:16]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _code(cls: type) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # a console, a generated class: what it was compiled to must do
        return f"{sys.implementation.cache_tag}\n{_compiled(cls)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return "".join(ast.unparse(tree).split())


def _compiled(cls: type) -> str:
    parts: list[str] = []
    for name, value in sorted(vars(cls).items()):
        function: Any = getattr(value, "__func__", value)
        if inspect.isfunction(function):
            parts.append(name + _of(function.__code__))
    return "\n".join(parts)


def _of(code: CodeType) -> str:
    doc = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else None
    constants = [_of(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts if each != doc]
    first = code.co_consts[0] if code.co_consts and not code.co_flags & 0x4000000 else ""
    return f"{code.co_code.hex()} {code.co_names} {constants} {first}"
