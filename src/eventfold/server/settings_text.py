"""The settings in use as TOML, with the place that gave each value; secrets and passwords are not shown.

Knows: settings and their places. Does not know: how they were loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast, get_args, get_origin

import msgspec

from eventfold.engines.addresses import without_secrets
from eventfold.server.settings_sources import Key, Loaded

MASK = "(set, not shown)"


def settings_text(loaded: Loaded) -> str:
    """The settings as a TOML file that gives the same settings, except for what is masked."""
    return "\n".join(_table(loaded.settings, (), loaded.places)).strip() + "\n"


def _table(section: msgspec.Struct, prefix: Key, places: Mapping[Key, str]) -> Iterator[str]:
    fields = {field.name: (getattr(section, field.name), field.type) for field in msgspec.structs.fields(section)}
    yield from _entries(fields, prefix, places)


def _entries(fields: Mapping[str, tuple[Any, Any]], prefix: Key, places: Mapping[Key, str]) -> Iterator[str]:
    """Lines for values with their types: single values first, as TOML wants it, then tables."""
    for name, (value, kind) in fields.items():
        if value is None:
            yield f"# {name} is not set"
        elif not isinstance(value, msgspec.Struct | dict):
            shown = MASK if is_secret(kind) else value
            yield f"{_name(name)} = {_value(shown)}  # {places.get((*prefix, name)) or places.get(prefix, 'default')}"
    for name, (value, kind) in fields.items():
        key = (*prefix, name)
        if isinstance(value, msgspec.Struct | dict):
            yield ""
            yield f"[{'.'.join(map(_name, key))}]"
        if isinstance(value, msgspec.Struct):
            yield from _table(value, key, places)
        elif isinstance(value, dict):
            each_kind = _kind_of_values(kind)
            entries = cast("dict[str, Any]", value)
            yield from _entries({entry: (each, each_kind) for entry, each in entries.items()}, key, places)


def _kind_of_values(kind: Any) -> Any:
    """The type of the values of a dict, also of one that may be None."""
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return next(_kind_of_values(each) for each in get_args(kind) if each is not type(None))


def is_secret(kind: Any) -> bool:
    """Whether a type is, or contains, a text that is never printed."""
    if get_origin(kind) is Annotated:
        metas = kind.__metadata__
        return any(isinstance(each, msgspec.Meta) and (each.extra or {}).get("secret") for each in metas)
    return any(is_secret(each) for each in get_args(kind))


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(hide_password(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, cast('list[Any]', value)))}]"
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return "{" + ", ".join(f"{_name(name)} = {_value(each)}" for name, each in entries.items()) + "}"
    if isinstance(value, msgspec.Struct):
        shown = {
            field.name: MASK if is_secret(field.type) else getattr(value, field.name)
            for field in msgspec.structs.fields(value)
            if getattr(value, field.name) is not None
        }
        return _value(shown)
    return _text(str(value))


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def hide_password(url: str) -> str:
    """An address without its password, also one that is a parameter of it, and without the key of a server."""
    return re.sub(r"((?:^|[?&\s])(?:ssl)?password=)[^&\s]*", r"\1…", without_secrets(url))
