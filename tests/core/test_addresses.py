"""Addresses: which URL opens which engine, and what the others get."""

from __future__ import annotations

import asyncio
import builtins
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.engines import open_engine
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import InvalidUrl, MissingExtra
from eventfold.targets import open_target
from eventfold.testing import Clock


@pytest.mark.parametrize(
    "address", ["log.db", "sqlite:log.db", "sqlite://log.db", "SQLite:log.db", "file:log.db", "./a:b.db", "x/y:z"]
)
def test_a_path_is_a_sqlite_file(address: str) -> None:
    """A path, with or without sqlite: before it, is a SQLite file; a colon further on is part of the path."""
    engine = open_engine(address, "sync", True, {})
    assert engine.name == "sqlite"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("sqlite:///log.db", "log.db"),
        ("sqlite:////srv/log.db", "/srv/log.db"),
        ("sqlite:/srv/log.db", "/srv/log.db"),
        ("file:///srv/a%20log.db", "/srv/a log.db"),
        ("file://localhost/srv/log.db", "/srv/log.db"),
    ],
)
def test_a_url_of_sqlite_means_what_it_means_elsewhere(
    address: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sqlite:///PATH is relative and sqlite:////PATH absolute, as in SQLAlchemy; file: is a URI. Targets alike."""
    monkeypatch.chdir(tmp_path)
    engine = open_engine(address, "sync", True, {})
    assert getattr(engine, "path", None) == path
    target = open_target(MemoryEngine(Clock()), address, unused)
    assert target.address == f"sqlite:{tmp_path / path}"


@pytest.mark.parametrize("address", [":memory:", "sqlite://", "sqlite:///:memory:", "sqlite::memory:", "file::memory:"])
def test_memory_as_sqlite_writes_it_is_memory(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`:memory:` and SQLAlchemy's names of it make no file of that name, as a store, async too, and as a target."""
    monkeypatch.chdir(tmp_path)
    for mode in ("sync", "async"):
        assert open_engine(address, mode, True, {}).name == "memory"
    assert open_target(MemoryEngine(Clock()), address, unused).address == "sqlite::memory:"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", [None, b"log.db", 5, 1.5, [], object()])
def test_what_is_no_address_is_refused(address: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, bytes, numbers and other objects make no file named by their repr, as a store and as a target."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidUrl, match=r"not an address\. Give "):
        ef.Store(address)
    with pytest.raises(InvalidUrl, match=r"not an address\. Give "):
        asyncio.run(ef.AsyncStore(address).open())
    with pytest.raises(InvalidUrl, match=r"not an address\. Give "):
        open_target(MemoryEngine(Clock()), address, unused)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["file:log.db?mode=ro", "file:///log.db?immutable=1", "sqlite:///log.db?timeout=3"])
def test_parameters_of_a_file_are_refused(address: str) -> None:
    """`?mode=ro` is not part of a file's name, and is not ignored: the error says which option to write."""
    with pytest.raises(InvalidUrl, match="readonly=True"):
        open_engine(address, "sync", True, {})
    with pytest.raises(InvalidUrl, match="readonly=True"):
        open_target(MemoryEngine(Clock()), address, unused)


def unused() -> Any:
    """The store's own target, which no address here asks for."""
    raise AssertionError


def test_a_path_object_is_a_path(tmp_path: Path) -> None:
    """A pathlib.Path may be given where a path is meant."""
    with ef.Store(tmp_path / "log.db") as store:  # type: ignore[arg-type]
        assert store.engine.name == "sqlite"
    assert (tmp_path / "log.db").exists()


def test_a_drive_letter_is_no_scheme() -> None:
    r"""`C:\store.db` is a path."""
    assert open_engine("C:\\store.db", "sync", True, {}).name == "sqlite"


def test_memory_without_a_name_is_new_each_time() -> None:
    """`memory:` is a log of one's own; `memory:NAME` is the process's log of that name."""
    assert open_engine("memory:", "sync", True, {}) is not open_engine("memory:", "sync", True, {})
    name = f"memory:{uuid4().hex}"
    assert open_engine(name, "sync", True, {}) is open_engine(name, "async", True, {})


def test_an_engine_is_its_own_address() -> None:
    """A store can be opened over an engine made by hand."""
    engine = MemoryEngine(Clock())
    assert ef.Store(engine).engine is engine


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("sqllite:x.db", "sqlite"),
        ("postgress://x", "postgres"),
        ("mem:", "memory"),
        ("mysql://x", ""),
        ("memroy:", "memory"),
        ("natz://x", "nats"),
    ],
)
def test_an_unknown_scheme_is_refused(address: str, near: str) -> None:
    """A scheme that means nothing is InvalidUrl, with the one that may have been meant."""
    with pytest.raises(InvalidUrl) as refused:
        ef.Store(address)
    assert refused.value.code == "invalid-url"
    assert refused.value.fields["scheme"] == address.partition(":")[0]
    assert (f"did you mean {near}" in refused.value.what) is bool(near)


@pytest.mark.parametrize(
    ("address", "package", "module", "extra"),
    [
        ("postgresql://localhost/x", "psycopg", "eventfold.engines.postgres", "postgres"),
        ("log.db", "apsw", "eventfold.engines.sqlite", "apsw"),
    ],
)
def test_a_missing_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, module: str, extra: str
) -> None:
    """Where a driver is not installed the error names what to install, and no import error escapes."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for loaded in [name for name in sys.modules if name == package or name.startswith((f"{package}.", module))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra) as refused:
        ef.Store(address)
    assert refused.value.fields["extra"] == extra
    assert "pip install" in refused.value.remedy
