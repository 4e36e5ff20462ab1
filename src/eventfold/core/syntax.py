"""A function's code as text that is the same on every Python: its syntax tree, without positions, comments, docstrings.

The text comes from the source file only if that file compiles to exactly the function that runs: if the file was edited
since the import, or a tool rewrote the code, the function is described by its byte code instead.
Knows: source files, syntax trees, code objects. Does not know: what a description is used for.
"""

from __future__ import annotations

import ast
import dis
import linecache
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, cast

MAX_PARSE_ATTEMPTS = 20
_Key = tuple[str, int]  # qualified name, first line
_LEFT_OUT = frozenset(("ctx", "type_comment", "kind"))  # without effect at run time, or not in every Python version
_modules: dict[str, tuple[list[str], dict[_Key, list[CodeType]], dict[tuple[int, int], ast.AST]]] = {}


def describe(function: FunctionType) -> str:
    """Return a function's own code as text, without the functions that it calls and the values of its defaults."""
    code = function.__code__
    node = _node(function)
    if node is None:
        return f"{sys.implementation.cache_tag} {_byte_code(code)}"
    return "".join(_text(node))


# Methods that change a list, set, dict or deque.
_CHANGING = frozenset(
    "append appendleft extend extendleft insert add update setdefault pop popleft popitem remove discard clear "
    "difference_update intersection_update symmetric_difference_update move_to_end sort reverse".split()
)


def changed_names(function: FunctionType) -> set[str]:
    """Return the global names that a function rebinds (`global N`) or whose objects it changes (`SEEN.add(…)`)."""
    node = _node(function)
    found: set[str] = set()
    for each in ast.walk(node) if node is not None else ():
        match each:
            case ast.Global(names=names):
                found.update(names)
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)) if attribute in _CHANGING:
                found.add(name)
            case _:
                continue
    return found


def _node(function: FunctionType) -> ast.AST | None:
    """Return the node of a function in the syntax tree of its file, or None if it cannot be determined for certain."""
    code = function.__code__
    found = _module(code.co_filename, function.__globals__)
    if found is None:
        return None
    compiled, nodes = found
    if code not in compiled.get((code.co_qualname, code.co_firstlineno), ()):
        return None
    if code.co_name != "<lambda>":
        return nodes.get((code.co_firstlineno, -1))
    places: list[tuple[int, int]] = []
    for line, last, column, end in code.co_positions():
        if line is not None and column is not None and (line, column) != (last, end):  # not one of frame setup
            places.append((line, column))
    return nodes.get(min(places)) if places else None  # the position at which its body begins


def parsed(parse: Callable[[], ast.Module]) -> ast.Module:
    """Return what `parse` returns: it calls ast.parse, perhaps within inspect.getsource.

    Some versions of CPython (seen with 3.11.7) raise SystemError if another thread builds a tree at the same time.
    """
    for _ in range(MAX_PARSE_ATTEMPTS - 1):
        try:
            return parse()
        except SystemError:
            continue
    return parse()


def _module(
    filename: str, namespace: dict[str, Any]
) -> tuple[dict[_Key, list[CodeType]], dict[tuple[int, int], ast.AST]] | None:
    """Return the code objects that a file compiles to, and the functions of its syntax tree by their positions."""
    lines = linecache.getlines(filename, namespace)
    known = _modules.get(filename)
    if known is not None and known[0] == lines:
        return known[1:]
    try:
        tree = parsed(lambda: ast.parse("".join(lines), filename))
        whole = compile(tree, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    compiled: dict[_Key, list[CodeType]] = {}
    for code in _nested(whole):
        compiled.setdefault((code.co_qualname, code.co_firstlineno), []).append(code)
    nodes: dict[tuple[int, int], ast.AST] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes[min([node.lineno, *(each.lineno for each in node.decorator_list)]), -1] = node
        elif isinstance(node, ast.Lambda):
            nodes.setdefault((node.body.lineno, node.body.col_offset), node)
    _modules[filename] = (lines, compiled, nodes)
    return compiled, nodes


def _nested(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested(constant)


def _text(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from _text(each)
    elif isinstance(node, ast.Constant):
        yield f"({type(node.value).__name__} {node.value!r})"
    elif isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if name in _LEFT_OUT or value is None or value == []:
                continue
            yield f" {name}="
            yield from _text(_without_docstring(value) if name == "body" else value)
        yield ")"
    else:
        yield repr(node)


def _without_docstring(body: Any) -> Any:
    statements: list[Any] = cast("list[Any]", body) if isinstance(body, list) else []
    first = statements[0] if statements else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return statements[1:]
    return cast("Any", body)


def _byte_code(code: CodeType) -> str:
    constants = [_byte_code(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    # The names are part of the description, since byte code refers to them by number.
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants} {code.co_exceptiontable.hex()}"


def _constant(value: Any) -> str:
    if isinstance(value, frozenset):  # their order differs between processes
        return f"frozenset{sorted(map(repr, cast('frozenset[Any]', value)))}"
    return repr(value)


def names_in(code: CodeType) -> set[str]:
    """Return the names that code and its nested functions look up: globals, attributes, imported names."""
    found = set(code.co_names)
    for inner in _nested(code):
        found.update(inner.co_names)
    return found


def globals_in(code: CodeType) -> set[str]:
    """Return the names that code looks up as globals, without attributes of the same names."""
    return {
        each.argval
        for part in (code, *_nested(code))
        for each in dis.get_instructions(part)
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }


def words_in(code: CodeType) -> set[str]:
    """Return `names_in`, and the texts in code, such as names in patterns (`case Paid(amount=…)`) and getattr."""
    found = names_in(code)
    for each in (code, *_nested(code)):
        for constant in each.co_consts:
            several = cast("tuple[Any, ...]", constant if isinstance(constant, tuple) else (constant,))
            found.update(part for part in several if type(part) is str)
    return found
