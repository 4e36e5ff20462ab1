"""The engine among the examples keeps every promise, and is found by its scheme as an installed one is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("eventfold.testing.conformance")

import eventfold as ef
from eventfold.errors import InvalidInput, InvalidUrl, MissingExtra, StoreBusy, StoreDamaged
from eventfold.testing.conformance.all_chapters import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import amounts, deposit, deposits
from eventfold.testing.conformance.fixtures import *
from examples.jsonl_engine import JsonLinesEngine

ROOT = Path(__file__).parents[2]


def install(folder: Path, group: str, scheme: str, value: str, package: str = "theirs") -> None:
    """Put a distribution with one entry point there, as an installer would."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{scheme} = {value}\n")


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example as a package that says its scheme."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "eventfold.engines", "jsonl", "examples.jsonl_engine:JsonLinesEngine", "eventfold_jsonl")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture(params=["sync", "async"])
def engine_under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """An address where nothing is yet, in each mode."""
    given = EngineUnderTest(f"jsonl:{tmp_path / 'log.jsonl'}", request.param, clock=True)
    yield given
    given.close()


def test_events_survive_the_process(tmp_path: Path) -> None:
    """Given as an object; each append is one line behind the store's identity, and a line that was cut off is gone."""
    path = tmp_path / "log.jsonl"
    with ef.Store(JsonLinesEngine(str(path))) as store:
        store.append(*deposits(2), key="k")
        store.append(deposit(amount=3))
        identity = store.engine.store_id
    assert len(path.read_text().splitlines()) == 3
    with path.open("a") as file:
        file.write('{"events":[')
    with ef.Store(f"jsonl:{path}", create=False) as store:
        assert (amounts(store.read()), store.engine.store_id) == ([1, 2, 3], identity)
        assert store.append(deposit(), key="k").repeated
        assert store.append(deposit(amount=4)).first == 4
    with ef.Store(f"jsonl:{path}") as store:
        assert amounts(store.read()) == [1, 2, 3, 4]


def test_a_file_has_one_process(tmp_path: Path) -> None:
    """Another one is refused, whatever it wants to do."""
    path = tmp_path / "log.jsonl"
    program = f"import eventfold as ef\nfrom examples.jsonl_engine import JsonLinesEngine as E\nef.Store(E({str(path)!r}))"
    with ef.Store(JsonLinesEngine(str(path))):
        ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert StoreBusy.__name__ in ran.stderr


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    """And nothing is read."""
    path = tmp_path / "log.jsonl"
    with ef.Store(JsonLinesEngine(str(path))) as store:
        store.append(deposit())
    path.write_text(path.read_text().replace('"events"', '"events'))
    with pytest.raises(StoreDamaged, match="Line 2"):
        ef.Store(JsonLinesEngine(str(path)))


def test_an_option_that_the_engine_lacks_is_named(tmp_path: Path) -> None:
    """As for the engines that are built in."""
    with pytest.raises(InvalidInput, match="clock"):
        ef.Store(f"jsonl:{tmp_path}/log.jsonl", clok=None)


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and what it raised, for engines and for targets; other schemes are unknown."""
    install(tmp_path / "a", "eventfold.engines", "broken", "no_such_module:Engine")
    install(tmp_path / "b", "eventfold.targets", "broken", "examples.jsonl_engine:NoSuchName", "theirs_too")
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    monkeypatch.syspath_prepend(str(tmp_path / "b"))
    with pytest.raises(MissingExtra, match="theirs.*no_such_module"):
        ef.Store("broken:x")
    with ef.Store("memory:", target="broken:x") as store, pytest.raises(MissingExtra, match="theirs_too.*NoSuchName"):
        list(store.follow(name="billing"))
    with pytest.raises(InvalidUrl, match="unknown scheme"):
        ef.Store("unheard:x")


def test_two_packages_of_one_scheme_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them is meant cannot be told."""
    for package in ("one", "two"):
        install(tmp_path / package, "eventfold.engines", "double", "examples.jsonl_engine:JsonLinesEngine", package)
        monkeypatch.syspath_prepend(str(tmp_path / package))
    with pytest.raises(InvalidUrl, match="one and two"):
        ef.Store("double:x")


def test_a_target_is_found_by_its_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the entry point names is called with the address and returns a target."""
    module = tmp_path / "their_target.py"
    module.write_text(
        "from eventfold.targets.sql.target import SqlTarget\n"
        "from eventfold.targets.sqlite.driver import SqliteDriver\n"
        "from eventfold.targets.sqlite.statements import SqliteStatements\n\n"
        "def open_target(address):\n"
        "    driver = SqliteDriver(address.removeprefix('theirs:'))\n"
        "    return SqlTarget(driver, SqliteStatements(driver))\n"
    )
    install(tmp_path, "eventfold.targets", "theirs", "their_target:open_target")
    monkeypatch.syspath_prepend(str(tmp_path))
    with ef.Store("memory:", target=f"theirs:{tmp_path / 'rows.db'}") as store:
        store.append(*deposits(2))
        with store.follow(name="billing") as follower:
            assert next(iter(follower)).position == 1
    assert (tmp_path / "rows.db").exists()
