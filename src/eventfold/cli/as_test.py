"""Room: a recorded history as a test: what happened to one entity, as code that replays it.

Knows: how events and states are written in Python. Does not know: any test runner. Values that have no
Python form of their own are shown as they print, and the test says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from eventfold.errors import InvalidInput
from eventfold.state import State, Step, plan_of

MODULES = {"datetime.": "datetime", "Decimal(": "decimal", "UUID(": "uuid"}
IMPORTS = {"datetime": "import datetime", "decimal": "from decimal import Decimal", "uuid": "from uuid import UUID"}


def as_test(spec: str, question: State, steps: Iterable[Step]) -> str:
    """A test module. Raises InvalidInput if the question was never answered."""
    taken = list(steps)
    if not taken:
        raise InvalidInput(f"Nothing happened to {question!r}.", "Ask for an entity that has events.")
    events: list[object] = [step.recorded.event for step in taken]
    answer: State = taken[-1].state
    fields = [name for name in answer.__struct_fields__ if name not in plan_of(type(answer)).question]
    expected = {name: getattr(answer, name) for name in fields}
    body = "\n".join(_body(question, taken, expected))
    classes = {type(event) for event in events} | {type(question)} | _classes_in(expected.values())
    name = re.sub(r"\W+", "_", " ".join(str(v) for v in _values(question))).strip("_").lower() or "it"
    head = [f'"""What happened to {question!r}, as {spec} was folded from it."""', "", *_imports(body, classes), ""]
    return "\n".join([*head, "", f"def test_the_history_of_{name}() -> None:", body, ""])


def _body(question: State, steps: list[Step], expected: dict[str, Any]) -> Iterator[str]:
    first, last = steps[0].recorded, steps[-1].recorded
    days = f"{first.time:%Y-%m-%d} to {last.time:%Y-%m-%d}"
    yield f'    """Events {first.position} to {last.position}, recorded from {days}."""'
    yield "    past = ["
    for step in steps:
        yield f"        {step.recorded.event!r},  # {step.recorded.position}"
    yield "    ]"
    yield f"    given(*past).state({_asked(question)}).has("
    for name, value in expected.items():
        yield f"        {name}={value!r},"
    yield "    )"


def _values(question: State) -> list[Any]:
    return [getattr(question, name) for name in plan_of(type(question)).question]


def _asked(question: State) -> str:
    return f"{type(question).__name__}({', '.join(map(repr, _values(question)))})"


def _classes_in(values: Iterable[object]) -> set[type]:
    found: set[type] = set()
    for each in values:
        value: Any = each
        if hasattr(value, "__struct_fields__"):
            found.add(type(each))
            found |= _classes_in(getattr(value, name) for name in value.__struct_fields__)
        elif isinstance(value, dict):
            found |= _classes_in([*value.keys(), *value.values()])  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, (list, tuple, set, frozenset)):
            found |= _classes_in(value)  # pyright: ignore[reportUnknownArgumentType]
    return found


def _imports(body: str, classes: set[type]) -> Iterator[str]:
    standard = sorted({IMPORTS[module] for mark, module in MODULES.items() if mark in body})
    yield from standard
    if standard:
        yield ""
    yield "from eventfold.testing import given"
    by_module: dict[str, list[str]] = {}
    for cls in classes:
        by_module.setdefault(cls.__module__, []).append(cls.__qualname__)
    for module, names in sorted(by_module.items()):
        yield f"from {module} import {', '.join(sorted(names))}"
