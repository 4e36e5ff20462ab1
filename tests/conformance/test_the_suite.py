"""The conformance suite itself: no chapter is left out, and no promise is hidden behind another of the same name."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from pathlib import Path

from eventfold.testing import conformance
from eventfold.testing.conformance import CHAPTERS, all_chapters

NOT_CHAPTERS = {"__init__", "events", "all_chapters", "engine_under_test", "fixtures"}  # modules that the chapters use


def own_tests(module: object) -> list[str]:
    """Return the names of a module's own tests."""
    return [
        name
        for name, found in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("test_") and found.__module__ == getattr(module, "__name__", "")
    ]


def test_every_file_is_a_chapter() -> None:
    """Each file of the suite is listed as a chapter, and described in its table of contents."""
    files = {path.stem for path in Path(conformance.__file__).parent.glob("*.py")} - NOT_CHAPTERS
    assert set(CHAPTERS) == files
    assert all(f"\n    {chapter} " in (conformance.__doc__ or "") for chapter in CHAPTERS)


def test_every_promise_is_in_the_suite() -> None:
    """Every test of every chapter is in the suite, under a name that no other chapter has."""
    names = [
        name for chapter in CHAPTERS for name in own_tests(importlib.import_module(f"{conformance.__name__}.{chapter}"))
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert {name for name in vars(all_chapters) if name.startswith("test_")} == set(names)
