"""`eventfold history --as-test`: the recorded events of one entity as Python code that replays them.

Knows: how events, states and their values are written in Python. Does not know: any test runner. A value of a class
without known fields is written as its repr.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, cast

from eventfold.core.event import Recorded
from eventfold.core.state import State, Step, state_definition_of
from eventfold.core.tags import tag_fields, tag_values
from eventfold.errors import InvalidInput

MODULE_BY_MARK = {"datetime.": "datetime", "Decimal(": "decimal", "UUID(": "uuid"}
IMPORT_LINES = {
    "datetime": "import datetime",
    "decimal": "from decimal import Decimal",
    "uuid": "from uuid import UUID",
}


def generate_test(spec: str, question: State, steps: Iterable[Step]) -> str:
    """The source of a test module. Raises InvalidInput if the state has no events."""
    taken = list(steps)
    if not taken:
        raise InvalidInput(f"{question!r} has no events.", "Name an entity that has events.")
    answer: State = taken[-1].state
    fields = [name for name in answer.__struct_fields__ if name not in state_definition_of(type(answer)).question]
    expected = {name: getattr(answer, name) for name in fields}
    classes: set[type] = {type(question)}
    body = "\n".join(_test_body(question, taken, expected, classes))
    name = re.sub(r"\W+", "_", " ".join(str(v) for v in _question_values(question))).strip("_").lower() or "it"
    head = [
        f'"""The recorded history of {question!r}, folded by {spec}."""',
        "",
        *_import_lines(body, classes),
        "",
    ]
    return "\n".join([*head, "", f"def test_the_history_of_{name}() -> None:", body, ""])


def _test_body(question: State, steps: list[Step], expected: dict[str, Any], used: set[type]) -> Iterator[str]:
    first, last = steps[0].recorded, steps[-1].recorded
    days = f"{first.time:%Y-%m-%d} to {last.time:%Y-%m-%d}"
    yield f'    """Events {first.position} to {last.position}, recorded from {days}."""'
    yield "    past = ["
    for step in steps:
        yield f"        {_event_code(step.recorded, used)},  # {step.recorded.position}"
    yield "    ]"
    asked = f"{type(question).__name__}({', '.join(_python_code(value, used) for value in _question_values(question))})"
    yield f"    given(*past).state({asked}).has("
    for name, value in expected.items():
        yield f"        {name}={_python_code(value, used)},"
    yield "    )"


def _event_code(recorded: Recorded[Any], used: set[type]) -> str:
    """The code of an event, in a Draft if it has tags that are not fields."""
    event = recorded.event
    hints = typing.get_type_hints(cast("type[Any]", type(event)), include_extras=True)
    own = {f"{key}:{text}" for field, key in tag_fields(hints).items() for text in tag_values(getattr(event, field))}
    more = tuple(tag for tag in recorded.tags if tag not in own and not tag.startswith("$"))
    code = _python_code(event, used)
    return f"Draft({code}, tags={more!r})" if more else code


def _question_values(question: State) -> list[Any]:
    return [getattr(question, name) for name in state_definition_of(type(question)).question]


def _python_code(value: Any, used: set[type]) -> str:
    """A value as Python code; its classes are added to `used`."""
    cls = cast("type[Any]", type(value))
    if isinstance(value, Enum):
        used.add(cls)
        return f"{cls.__qualname__}.{value.name}"
    if cls in (list, tuple, set, frozenset):
        inner = ", ".join(_python_code(each, used) for each in cast("list[Any]", value))
        if cls is tuple:
            return f"({inner},)" if len(cast("tuple[Any, ...]", value)) == 1 else f"({inner})"
        if cls is list:
            return f"[{inner}]"
        return f"{cls.__name__}([{inner}])" if cls is frozenset or not inner else f"{{{inner}}}"
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        return "{" + ", ".join(f"{_python_code(key, used)}: {_python_code(each, used)}" for key, each in pairs) + "}"
    fields = _field_names(cls)
    if fields is None:
        return repr(value)
    used.add(cls)
    return f"{cls.__qualname__}({', '.join(f'{name}={_python_code(getattr(value, name), used)}' for name in fields)})"


def _field_names(cls: type[Any]) -> Iterable[str] | None:
    for kind in ("__struct_fields__", "__dataclass_fields__", "model_fields"):
        names: Iterable[str] | None = getattr(cls, kind, None)
        if names is not None:
            return [*names]
    attributes: Iterable[Any] | None = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else [each.name for each in attributes]


def _import_lines(body: str, classes: set[type]) -> Iterator[str]:
    standard = sorted({IMPORT_LINES[module] for mark, module in MODULE_BY_MARK.items() if mark in body})
    yield from standard
    if standard:
        yield ""
    if "Draft(" in body:
        yield "from eventfold import Draft"
    yield "from eventfold.testing import given"
    by_module: dict[str, list[str]] = {}
    for cls in classes:
        by_module.setdefault(cls.__module__, []).append(cls.__qualname__.partition(".")[0])
    for module, names in sorted(by_module.items()):
        yield f"from {module} import {', '.join(sorted(set(names)))}"
