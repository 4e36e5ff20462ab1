"""`MODULE:State key=value …` as a State: imports the user's class and converts its fields.

Knows: imports, the syntax of words. Does not know: stores, how a word is converted to the type of a field.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any, cast

import msgspec

from eventfold.core.questions import question_of
from eventfold.core.state import State, state_definition_of
from eventfold.core.user_code import user_code_errors
from eventfold.errors import InvalidState

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
    return question_of(cls, given, _usage(cls, fields))


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


def _usage(cls: type[State], fields: tuple[str, ...]) -> str:
    pairs = " ".join(f"{name}=VALUE" for name in fields)
    return f"Write {cls.__module__}:{cls.__name__} {pairs}." if fields else f"Write {cls.__name__} without values."
