"""Rebuilds next to the live rows: compared, switched, rolled back, of the past, with concurrent writers."""

from __future__ import annotations

import ast
from typing import Any

import pytest

import eventfold as ef
from eventfold.projections.definition import class_fingerprint
from tests.projections.flights import Departed


def test_formatting_and_comments_are_no_change() -> None:
    """The fingerprint depends on the meaning of the code, not on blanks, comments and docstrings."""
    from eventfold.projections import projection_definition

    class One(ef.Projection, name="same"):
        """A docstring."""

        carrier: str
        count: int = 0

        def evolve(self, event: Departed) -> None:
            """Another."""
            self.count += 1  # a comment

    first = projection_definition(One).fingerprint

    class One(ef.Projection, name="same"):  # type: ignore[no-redef]
        carrier: str
        count: int = 0

        def evolve(self, event: Departed) -> None:
            self.count += 1

    assert projection_definition(One).fingerprint == first


def test_a_class_without_source_has_a_fingerprint_whatever_its_code_is_like() -> None:
    """Code without any constant, such as a comprehension's, counts as well."""
    space: dict[str, Any] = {"__name__": "typed_at_a_prompt"}
    exec("class Typed:\n    def keys(self, event):\n        return [(x,) for x in event]\n", space)  # noqa: S102
    assert len(class_fingerprint(space["Typed"], "", "")) == 8 + 1 + 16


def test_a_class_keeps_its_fingerprint_while_another_thread_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ast.parse raises the SystemError that this causes, the class is parsed again."""
    expected = class_fingerprint(Departed, "tables", "more")
    parse, calls = ast.parse, 0

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 2, 4):
            raise SystemError("AST constructor recursion depth mismatch (before=78, after=65)")
        return parse(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", disturbed)
        found = class_fingerprint(Departed, "tables", "more")
    assert found == expected
    assert calls >= 2
