"""`MODULE:State key=value …` as a State: imports the user's class and converts its fields.

Knows: imports, and how to report errors of user code. Does not know: stores.
"""

from __future__ import annotations

import importlib
import linecache
import re
import sys
import traceback
import typing
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import msgspec

from eventfold.core.state import State, state_definition_of
from eventfold.errors import EventfoldError, InvalidState

LIBRARY_FOLDER = str(Path(__file__).parents[1])  # an error raised in the library itself keeps its traceback
STATE_SYNTAX = "Write MODULE:State, for example bank:Account; --import-path says where modules are looked for."


def import_state_class(spec: str, import_path: str) -> type[State]:
    """Import the State class named MODULE:State. Raises InvalidState."""
    module_name, colon, name = spec.partition(":")
    if not colon or not re.fullmatch(r"\w+(\.\w+)*", module_name) or not re.fullmatch(r"\w+(\.\w+)*", name):
        hint = f" If you mean a tag, write --tag {spec}." if colon else ""
        raise InvalidState(f"{spec!r} does not name a class.", STATE_SYNTAX + hint, given=spec)
    folder = str(Path(import_path).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with user_code_errors(f"Importing {module_name}"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise InvalidState(
                    f"There is no module {error.name} in {folder} or among the installed packages.",
                    f"{STATE_SYNTAX} If you mean a tag, write --tag {spec}.",
                    module=module_name,
                ) from error
            raise
    for part in name.split("."):
        if not hasattr(found, part):
            known = ", ".join(n for n, v in cast("dict[str, Any]", vars(found)).items() if _is_state(v)) or "none"
            raise InvalidState(
                f"{module_name} has no {part}.", f"Name one of its State classes: {known}.", module=module_name
            )
        found = getattr(found, part)
    if not _is_state(found):
        raise InvalidState(f"{spec} is not a State.", "Name a class that derives from ef.State.", given=spec)
    state_definition_of(found)
    return found


def _is_state(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, State) and value is not State


def build_question(cls: type[State], words: list[str]) -> State:
    """The State to fold, from values in field order, key=value pairs, or one JSON object. Raises InvalidState."""
    fields = state_definition_of(cls).question
    given = (
        _parse_object(cls, words[0])
        if len(words) == 1 and words[0].startswith("{")
        else _parse_pairs(cls, fields, words)
    )
    if unknown := [name for name in given if name not in fields]:
        raise InvalidState(f"{cls.__name__} has no key {unknown[0]}.", _usage(cls, fields), field=unknown[0])
    if missing := [name for name in fields if name not in given]:
        raise InvalidState(f"{cls.__name__} also needs {', '.join(missing)}.", _usage(cls, fields), missing=missing)
    hints = typing.get_type_hints(cls, include_extras=True)
    with user_code_errors(f"Making {cls.__name__}"):
        return cls(**{name: _convert(cls, name, value, hints[name]) for name, value in given.items()})


def _parse_object(cls: type[State], text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidState(
            f"The key of {cls.__name__} is not a JSON object: {error}.",
            _usage(cls, state_definition_of(cls).question),
        ) from error


def _parse_pairs(cls: type[State], fields: tuple[str, ...], words: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals or (key not in fields and not key.isidentifier()):
            if place >= len(fields):
                raise InvalidState(
                    f"{word!r} is one value more than {cls.__name__} has key fields.", _usage(cls, fields)
                )
            key, value = fields[place], word
        if key in given:
            earlier: Any = given[key]
            given[key] = [*cast("list[Any]", earlier), value] if isinstance(earlier, list) else [earlier, value]
        else:
            given[key] = value
    return given


def _convert(cls: type[State], name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str) and _generic_origin(hint) in (tuple, list, set, frozenset):
        value = [value]
    try:
        return msgspec.convert(value, type=hint, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidState(
            f"{value!r} is not a valid {name} of {cls.__name__}: {error}.",
            _usage(cls, state_definition_of(cls).question),
            field=name,
        ) from error


def _generic_origin(hint: Any) -> Any:
    while get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    return get_origin(hint) or hint


def _usage(cls: type[State], fields: tuple[str, ...]) -> str:
    pairs = " ".join(f"{name}=VALUE" for name in fields)
    return f"Write {cls.__module__}:{cls.__name__} {pairs}." if fields else f"Write {cls.__name__} without values."


@contextmanager
def user_code_errors(what: str) -> Generator[None, None, None]:
    """Turn an exception of user code into InvalidState with its location; errors of the library pass unchanged."""
    try:
        yield
    except EventfoldError:
        raise
    except (Exception, SystemExit) as error:  # a user's class may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith((LIBRARY_FOLDER, "<frozen importlib"))]
        syntax = error if isinstance(error, SyntaxError) else None
        if frames and frames[-1].filename.startswith(LIBRARY_FOLDER) and syntax is None:
            raise
        place = f"{syntax.filename}, line {syntax.lineno}" if syntax else _source_line(theirs)
        raise InvalidState(
            f"{what} failed: {type(error).__name__}: {syntax.msg if syntax else error}.",
            f"Fix it at {place}." if place else "Fix it there.",
            raised=type(error).__name__,
        ) from error


def _source_line(frames: list[traceback.FrameSummary]) -> str:
    foreign = ("site-packages", sys.base_prefix)
    own = [f for f in frames if not any(each in f.filename for each in foreign)] or frames
    if not own:
        return ""
    frame = own[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{Path(frame.filename).name}, line {frame.lineno}{f': {line}' if line else ''}"
