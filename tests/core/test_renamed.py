"""Old public names: each is refused with the name to write instead, by the error that Python raises there."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold import testing
from eventfold.core import renamed
from eventfold.core.renamed import ATTRIBUTES, KEYWORDS, MODULES, NAMES, RenamedModules
from eventfold.engines.memory import MemoryEngine
from eventfold.processes import effect, webhook
from eventfold.processes.actions import Decision
from eventfold.processes.effects import Effect
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.async_admin import AsyncProjectionAdmin
from tests.cli.commands import run

CLASSES: dict[str, list[type]] = {
    "Decision": [Decision],
    "Effect": [Effect],
    "EventfoldError": [ef.EventfoldError],
    "Store": [ef.Store, ef.AsyncStore],
    "ProjectionAdmin": [ProjectionAdmin],
    "AsyncProjectionAdmin": [AsyncProjectionAdmin],
    "Faulty": [testing.Faulty],
    "Query": [ef.Query],
}


@pytest.mark.parametrize("old", MODULES)
def test_an_old_module_names_the_new_one(old: str) -> None:
    """`import eventfold.record` and whatever stands below an old folder."""
    assert importlib.util.find_spec(f"eventfold.{MODULES[old]}"), "the new module exists"
    finder = RenamedModules()
    for name in (f"eventfold.{old}", f"eventfold.{old}.below"):
        with pytest.raises(ImportError, match=rf"eventfold\.{MODULES[old]}\b"):
            finder.find_spec(name)
    parent = old.rpartition(".")[0]
    if not parent or parent not in MODULES:
        with pytest.raises(ImportError, match=rf"eventfold\.{MODULES[old]}\b"):
            importlib.import_module(f"eventfold.{old}")


@pytest.mark.parametrize("old", NAMES)
def test_an_old_name_of_a_module_is_refused_in_both_ways_to_ask(old: str) -> None:
    """`from eventfold import Unknown` is an ImportError, `ef.Unknown` an AttributeError."""
    package, _, name = f"eventfold.{old}".rpartition(".")
    new = NAMES[old].rpartition(".")[2]
    with pytest.raises(ImportError, match=rf"{new}\.$"):
        exec(f"from {package} import {name}")
    with pytest.raises(AttributeError, match=rf"{new}\.$"):
        getattr(importlib.import_module(package), name)
    assert hasattr(importlib.import_module(package), new)


def test_other_unknown_names_keep_pythons_own_words() -> None:
    """Only old names are answered for: everything else is missing as it always was."""
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'eventfold\.nothing'"):
        importlib.import_module("eventfold.nothing")
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from eventfold import nothing")
    with pytest.raises(AttributeError, match="module 'eventfold' has no attribute 'nothing'"):
        _ = ef.nothing  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError, match=r"module 'eventfold\.testing' has no attribute 'nothing'"):
        _ = testing.nothing


@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [(cls, old, new) for key, names in ATTRIBUTES.items() for cls in CLASSES[key] for old, new in names.items()],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_old_attribute_names_the_new_one(cls: type, old: str, new: str) -> None:
    """Of the class and of its objects; the new one is there."""
    with pytest.raises(AttributeError, match=rf"^{cls.__name__}\.{old} was renamed. Write {cls.__name__}\.{new}\.$"):
        getattr(cls, old)
    with pytest.raises(AttributeError, match=f"{new}"):
        getattr(cls(*[()] * len(cls.__struct_fields__)) if issubclass(cls, msgspec.Struct) else cls.__new__(cls), old)
    assert hasattr(cls, new) or new == "remedy"
    assert not hasattr(cls, old)


def test_an_engine_that_injects_faults_refuses_its_old_name() -> None:
    """It forwards other calls to the engine that it wraps: this name is refused by the wrapper itself."""
    faulty = testing.Faulty(MemoryEngine())
    with pytest.raises(AttributeError, match=r"^Faulty\.forgive was renamed\. Write Faulty\.clear\.$"):
        getattr(faulty, *ATTRIBUTES["Faulty"])
    assert faulty.clear() is faulty


def test_an_old_keyword_names_the_new_one() -> None:
    """TypeError, before anything is done; the functions keep their signatures."""
    never: Any = None
    calls = {
        "EventfoldError": lambda words: ef.EventfoldError("It happened.", **words),
        "copy_to": lambda words: ef.Store.copy_to(never, never, **words),
        "effect": lambda words: effect(start="now", **words),
        "webhook": lambda words: webhook("https://example.org", secret="", start="now", name="x", **words),
        "Process": lambda words: type(ef.Process)("Looping", (ef.Process,), {"__module__": __name__}, **words),
        "PostgresEngine": lambda words: importlib.import_module("eventfold.engines.postgres").PostgresEngine(
            "postgresql://nowhere", **words
        ),
    }
    assert calls.keys() == KEYWORDS.keys()
    for function, names in KEYWORDS.items():
        for old, new in names.items():
            with pytest.raises(TypeError, match=rf"{function}\(\): the argument {old}= was renamed. Write {new}=…\."):
                calls[function]({old: 1})
    with pytest.raises(TypeError, match="keep_identity"):
        ef.AsyncStore.copy_to(never, never, succeed=True).send(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"missing the argument remedy\. Write remedy=…"):
        ef.AppendConflict("It happened.", position=3)  # pyright: ignore[reportCallIssue]
    assert ef.AppendConflict("It happened.", "Do this.", now=3).fields == {"now": 3}
    assert [*inspect.signature(ef.AppendConflict).parameters] == ["what", "remedy", "fields"]
    assert inspect.signature(ef.AppendConflict).parameters["remedy"].default is inspect.Parameter.empty
    assert [*inspect.signature(ef.Store.copy_to).parameters] == [
        "self",
        "target",
        "keep_identity",
        "verify",
        "progress",
    ]
    assert inspect.iscoroutinefunction(ef.AsyncStore.copy_to)


@pytest.mark.parametrize(
    ("words", "new"),
    [
        *((old.split(), new) for old, new in renamed.COMMANDS.items()),
        *(
            (f"{command} a.db b.db {old}".split(), new)
            for command, all in renamed.OPTIONS.items()
            for old, new in all.items()
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_old_word_of_the_command_line_ends_with_2_and_the_new_word(words: list[str], new: str) -> None:
    """A command or an option."""
    refused = run(*words)
    assert refused.code == 2
    assert new in " ".join(refused.err.replace("│", " ").split())


def test_the_finder_is_there_once() -> None:
    """However often the package is loaded in a process."""
    import sys

    renamed.refuse_old_imports()
    assert sum(type(each).__name__ == "RenamedModules" for each in sys.meta_path) == 1
    assert RenamedModules().find_spec("elsewhere.record") is None  # pyright: ignore[reportFunctionMemberAccess]
