"""Settings from a TOML file, environment variables and flags, each source before the ones that it overrides.

Knows: the three sources, the names of settings. Does not know: what a setting does, flags of a command.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import msgspec

from eventfold.errors import InvalidInput
from eventfold.server.settings import Settings

PREFIX = "EVENTFOLD_"
SEPARATOR = "__"
Key = tuple[str, ...]  # ("server", "port"), written server.port


class Given(msgspec.Struct, frozen=True):
    """A value that a source gives, before it is checked. `place` names it in that source, for people."""

    value: Any
    place: str
    is_text: bool = False  # a text of the environment or of a flag, from which numbers and lists are parsed


class Loaded(msgspec.Struct, frozen=True):
    """Settings, and the place that gave each value; a key that is not in `places` has its default."""

    settings: Settings
    places: dict[Key, str]


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[Key, tuple[str, Any]] | None = None,
) -> Loaded:
    """Settings from a TOML file, then the environment, then flags: a later source replaces values of an earlier one.

    The variable of `server.port` is EVENTFOLD_SERVER__PORT, that of `read_only` EVENTFOLD_READ_ONLY; lists are
    separated by commas. `flags` maps keys to the name of the flag and its value. Raises InvalidInput, which names the
    key, the source and, if a name is unknown, the most similar one.
    """
    given: dict[Key, Given] = {}
    for source in (_of_file(file), _of_environment(environment or {}), _of_flags(flags or {})):
        given |= dict(source)
    values: dict[str, Any] = {}
    for key, each in given.items():
        kind = _kind_of(key, each.place)
        table = values
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = _converted(key, each, kind)
    settings = msgspec.convert(values, Settings)
    return Loaded(settings, {key: each.place for key, each in given.items()})


# ------------------------------------------------------------------------------------------ the three sources


def _of_file(file: Path | None) -> Iterator[tuple[Key, Given]]:
    if file is None:
        return
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(
            f"The settings {file} cannot be read: {(error.strerror or str(error)).lower()}.",
            "Name a TOML file that this user may read.",
            source=str(file),
        ) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidInput(
            f"The settings {file} are not TOML: {str(error)[:1].lower()}{str(error)[1:]}.",
            "Correct the file.",
            source=str(file),
        ) from error
    yield from _leaves(tables, (), str(file))


def _leaves(tables: Mapping[str, Any], prefix: Key, place: str) -> Iterator[tuple[Key, Given]]:
    """Every value of the tables that is a setting: a table is one if its key is not a section."""
    for name, value in tables.items():
        key = (*prefix, name)
        kind = _kind_of(key, place)
        if not _is_section(kind):
            yield key, Given(value, place)
        elif isinstance(value, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", value), key, place)
        else:
            raise InvalidInput(
                f"{_written(key)} in {place} is a section, and it is given one value.",
                f"Write a table: [{_written(key)}].",
                key=_written(key),
                source=place,
            )


def _of_environment(environment: Mapping[str, str]) -> Iterator[tuple[Key, Given]]:
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        parts = name.removeprefix(PREFIX).lower().split(SEPARATOR)
        if len(parts) > 1 or parts[0] in _top_level_values():  # other variables of this project have no section
            yield tuple(parts), Given(text, name, is_text=True)


def _of_flags(flags: Mapping[Key, tuple[str, Any]]) -> Iterator[tuple[Key, Given]]:
    for key, (flag, value) in flags.items():
        yield key, Given(value, flag)


def _top_level_values() -> set[str]:
    return {each.name for each in msgspec.structs.fields(Settings) if not _is_section(each.type)}


# ------------------------------------------------------------------------------------------ names and types


def _is_section(kind: Any) -> bool:
    return _is_struct(kind) or get_origin(kind) is dict


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _kind_of(key: Key, place: str) -> Any:
    """The type of a setting. Raises InvalidInput if there is none of this name, with the most similar one."""
    kind: Any = Settings
    for index, part in enumerate(key):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        names = {each.name: each.type for each in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        if part not in names:
            near = get_close_matches(part, names, 1) or [name for name in names if name in part][:1]
            meant = _name_in(place, (*key[:index], near[0])) if near else None
            raise InvalidInput(
                f"{place} is not a setting."
                if place.startswith(PREFIX)
                else f"{place} has {_written(key)}, which is not a setting.",
                (f"Did you mean {meant}? " if meant else "") + "All settings: eventfold serve --print-config",
                key=_written(key),
                source=place,
            )
        kind = names[part]
    return kind


def _name_in(place: str, key: Key) -> str:
    """A key as it is written in this source."""
    return PREFIX + SEPARATOR.join(key).upper() if place.startswith(PREFIX) else _written(key)


def _written(key: Key) -> str:
    return ".".join(key)


def _converted(key: Key, given: Given, kind: Any) -> Any:
    value = given.value
    if _is_section(kind):
        raise InvalidInput(
            f"{given.place} is a section, and it is given one value.",
            f"Name a setting of it, such as {_name_in(given.place, (*key, 'name'))}.",
            key=_written(key),
            source=given.place,
        )
    if given.is_text and get_origin(kind) in (tuple, list):
        value = [each.strip() for each in value.split(",") if each.strip()]
    try:
        return msgspec.convert(value, kind, strict=not given.is_text)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"{_written(key)} in {given.place} cannot be used: {_reason(error)}.",
            "Correct it. All settings and their values: eventfold serve --print-config",
            key=_written(key),
            source=given.place,
        ) from error


def _reason(error: msgspec.ValidationError) -> str:
    text = str(error).replace(" - at `$`", "").rstrip(".").replace("`", "")
    return text[:1].lower() + text[1:]
