"""Engines and targets of other distributions: found by their schemes, and refused with what is wrong with them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.cli.options import split_store_argument
from eventfold.engines import open_engine
from eventfold.errors import EventfoldError, InvalidInput, InvalidUrl, MissingExtra, NotSupported, StoreNotFound
from eventfold.ports.services import require
from eventfold.testing.conformance.events import Deposited, amounts, deposits
from tests.support.distributions import declare

MODULE = """
import asyncio
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import StoreNotFound
from eventfold.ports.messages import Capabilities
from eventfold.ports.services import Services
from eventfold.ports.wrapping import Wrapping
from eventfold.targets.sql.target import SqlTarget
from eventfold.targets.sqlite.driver import SqliteDriver
from eventfold.targets.sqlite.statements import SqliteStatements
from tests.targets.receiver import MemorySink

CALLS = []
SINK = MemorySink()

class Bare(Wrapping):
    # The log in memory, without services and without a place for read models.
    name = "bare"
    default_target = None
    services = Services()

    def __init__(self, inner):
        super().__init__(inner)
        self.name = "bare"

def open_engine(address, *, mode, create, medium="red"):
    CALLS.append((address, mode, create, medium))
    if not create:
        raise StoreNotFound(f"There is no store at {address}.", "Create it.")
    return Bare(MemoryEngine.named(address.lower()))

def any_options(address, *, mode, create, **options):
    CALLS.append(options)
    return Bare(MemoryEngine())

def only_on_a_loop(address, *, mode, create):
    engine = Bare(MemoryEngine())
    engine.capabilities = Capabilities(suspends=True)
    return engine

class OnALoop(Bare):
    # As an engine over a network: its coroutines suspend, and in sync mode they block.
    def __init__(self, inner, mode):
        super().__init__(inner)
        self.mode, self.capabilities = mode, Capabilities(suspends=mode == "async", blocks=True)

    async def call(self, method, *args, **named):
        if self.mode == "async":
            await asyncio.sleep(0)
        return await method(*args, **named)

def both_modes(address, *, mode, create):
    CALLS.append((mode, create))
    return OnALoop(MemoryEngine.named(address), mode)

def half_an_engine(address, *, mode, create):
    class Half:
        name, capabilities, services, default_target = "half", Capabilities(), Services(), None
        async def open(self): ...
        async def close(self): ...
        async def append_many(self, requests): ...
    return Half()

def without_mode(address, *, create):
    raise AssertionError

def needs_a_driver(address, *, mode, create):
    import no_such_driver

def refuses(address, *, mode, create):
    raise ValueError("a mistake in the package")

async def coroutine(address, *, mode, create):
    return Bare(MemoryEngine())

def a_class(address, *, mode, create):
    return Bare

nothing = None

def open_target(address):
    driver = SqliteDriver(address.partition(":")[2])
    return SqlTarget(driver, SqliteStatements(driver))

def open_sink(address):
    return SINK

class HalfASink:
    address = "half"
    def write(self, batch): return True

def half_a_target(address):
    class Half:
        address = "half"
    return Half()

def half_a_sink(address):
    return HalfASink()
"""


class Total(ef.Projection, name="entry_points_total"):
    """A read model: how many deposits an account has."""

    account: str
    deposits: int = 0

    def evolve(self, event: Deposited) -> None:
        """Count one deposit."""
        self.deposits += 1


Installer = Callable[..., Any]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """Installs a distribution: `install(ENGINES, scheme, "outside:open_engine")`. Returns the module `outside`."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "outside.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "outside", raising=False)

    def put(group: str, scheme: str, value: str, distribution: str = "eventfold-outside") -> None:
        declare(site, distribution, {f"eventfold.{group}": {scheme: value}})

    yield put
    sys.modules.pop("outside", None)


def calls() -> list[Any]:
    """What the entry points of the module were called with."""
    return sys.modules["outside"].CALLS


def test_an_engine_is_found_by_its_scheme(install: Installer) -> None:
    """In both modes. The entry point gets the address, the mode, whether to create, and the options."""
    install("engines", "bare", "outside:open_engine")
    with ef.Store("bare:one", medium="blue") as store:
        store.append(*deposits(2))
        assert store.engine.name == "bare"

    async def read() -> list[int]:
        async with ef.AsyncStore("BARE:one") as store:
            return amounts([each async for each in store.read()])

    assert asyncio.run(read()) == [1, 2]
    with pytest.raises(StoreNotFound):
        ef.Store("bare:two", create=False)
    assert calls() == [
        ("bare:one", "sync", True, "blue"),
        ("BARE:one", "async", True, "red"),
        ("bare:two", "sync", False, "red"),
    ]


def test_options_are_checked_by_its_signature(install: Installer) -> None:
    """An unknown option is refused with the one that may be meant, unless the entry point takes any."""
    install("engines", "bare", "outside:open_engine")
    install("engines", "loose", "outside:any_options", "eventfold-loose")
    with pytest.raises(
        InvalidInput, match=r"no option 'medum' \(did you mean medium\?\)\. Its options are medium\."
    ) as e:
        ef.Store("bare:x", medum="blue")
    assert e.value.fields == {"option": "medum", "engine": "bare"}
    with pytest.raises(InvalidInput, match="no option 'mode'"):
        ef.Store("bare:x", mode="async")
    ef.Store("loose:x", whatever=1).close()
    assert calls() == [{"whatever": 1}]


def test_an_engine_without_a_place_for_read_models_refuses_them(install: Installer, tmp_path: Path) -> None:
    """As the documents say: with NotSupported, unless `target=` names a place."""
    install("engines", "bare", "outside:open_engine")
    with ef.Store("bare:none") as store:
        store.append(*deposits(2))
        with pytest.raises(NotSupported, match=r"Store\(…, target=…\)"):
            store.project(Total)
    with ef.Store("bare:none", target=str(tmp_path / "rows.db")) as store:
        store.project(Total)
        assert [row.deposits for row in store.rows(Total)] == [2]


def test_services_that_it_lacks_are_refused(install: Installer) -> None:
    """Each with a remedy."""
    install("engines", "bare", "outside:open_engine")
    engine = open_engine("bare:services", "sync", True, {})
    for service in ("lookups", "locks", "replication", "inline", "transactions", "maintenance", "backup", "blocking"):
        with pytest.raises(NotSupported) as refused:
            require(engine, service)  # type: ignore[call-overload]
        assert "bare engine" in refused.value.what
        assert refused.value.remedy


def test_an_engine_for_event_loops_is_refused_to_threads(install: Installer) -> None:
    """By its scheme and as an object: a thread could not run its calls."""
    install("engines", "loop", "outside:only_on_a_loop")
    engine = open_engine("loop:x", "async", True, {})
    for address in ("loop:x", engine):
        with pytest.raises(NotSupported, match="Use AsyncStore"):
            ef.Store(address)


def test_an_engine_for_event_loops_is_opened_again_for_read_models(install: Installer, tmp_path: Path) -> None:
    """In sync mode, without creating a store: read models run in threads."""
    install("engines", "both", "outside:both_modes")

    async def use() -> list[int]:
        async with ef.AsyncStore("both:one", target=str(tmp_path / "rows.db")) as store:
            await store.append(*deposits(3))
            await store.project(Total)
            return [row.deposits for row in await store.rows(Total)]

    assert asyncio.run(use()) == [3]
    assert calls() == [("async", True), ("sync", False)]
    with ef.Store("both:one") as store:
        assert store.head() == 3


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "file", "postgres"])
def test_a_built_in_scheme_is_never_replaced(scheme: str, install: Installer, tmp_path: Path) -> None:
    """What a distribution registers under it is not even imported."""
    for group in ("engines", "targets"):
        install(group, scheme, "outside:open_engine", f"eventfold-{group}")
    address = "memory:" if scheme == "memory" else "postgres://nowhere.invalid/x" if scheme == "postgres" else ""
    engine = open_engine(address or f"{scheme}:{tmp_path}/log.db", "sync", True, {})
    assert type(engine).__module__.startswith("eventfold.engines.")
    with ef.Store("memory:", target=f"{scheme}:name" if scheme == "memory" else str(tmp_path / "r.db")) as store:
        if scheme == "memory":
            with pytest.raises(InvalidUrl, match="No target is known by the scheme 'memory'"):
                store.project(Total)
        else:
            store.project(Total)
    assert "outside" not in sys.modules


BROKEN: dict[str, tuple[type[EventfoldError], str]] = {
    "no_such_module:open_engine": (MissingExtra, "cannot be imported: No module named 'no_such_module'"),
    "outside:needs_a_driver": (MissingExtra, "cannot be imported: No module named 'no_such_driver'"),
    "outside:no_such_name": (InvalidUrl, "cannot be loaded (AttributeError: "),
    "outside:nothing": (InvalidUrl, "is a NoneType, and cannot be called"),
    "outside:coroutine": (InvalidUrl, "is an async function: it must return the engine itself"),
    "outside:a_class": (InvalidUrl, "returned the class Bare, not an object of it"),
    "outside:without_mode": (InvalidUrl, "cannot be called with (address, mode, create): got an unexpected keyword"),
    "outside:half_an_engine": (
        InvalidUrl,
        "returned a Half, which is no engine: it lacks read, head, count, position_at, event_id, boundary, "
        "receipt_of, types, tags, stats, watch.",
    ),
}


@pytest.mark.parametrize("value", BROKEN)
def test_an_unusable_entry_point_is_named(value: str, install: Installer) -> None:
    """With its distribution and what is wrong with it, and what to do."""
    install("engines", "broken", value)
    kind, words = BROKEN[value]
    with pytest.raises(kind) as refused:
        ef.Store("broken:x")
    assert words in refused.value.what
    assert f"The distribution eventfold-outside registers the scheme 'broken', and its entry point {value} " in str(
        refused.value
    )
    assert refused.value.fields["entry_point"] == value
    assert "eventfold-outside" in refused.value.remedy


def test_an_error_of_the_entry_point_itself_is_raised_as_it_is(install: Installer) -> None:
    """It may be a bug: its traceback tells where."""
    install("engines", "broken", "outside:refuses")
    with pytest.raises(ValueError, match="a mistake in the package"):
        ef.Store("broken:x")


def test_two_distributions_with_one_scheme_are_refused(install: Installer) -> None:
    """Which one is meant cannot be known; both are named."""
    install("engines", "twice", "outside:open_engine", "eventfold-b")
    install("engines", "twice", "outside:open_engine", "eventfold-a")
    with pytest.raises(InvalidUrl, match="several distributions: eventfold-a and eventfold-b") as refused:
        ef.Store("twice:x")
    assert refused.value.fields["distributions"] == ["eventfold-a", "eventfold-b"]


@pytest.mark.parametrize(("scheme", "near"), [("bear", "bare"), ("sqllite", "sqlite"), ("zzz", "")])
def test_an_unknown_scheme_names_the_group_and_the_nearest_scheme(scheme: str, near: str, install: Installer) -> None:
    """Those that are built in, and those of installed distributions; for engines and for targets."""
    for group in ("engines", "targets"):
        install(group, "bare", "outside:open_engine", f"eventfold-{group}")
    with pytest.raises(InvalidUrl, match=r"entry point group eventfold\.engines") as refused:
        ef.Store(f"{scheme}:x")
    assert (f"did you mean {near}:" in refused.value.what) is bool(near)
    with ef.Store("memory:", target=f"{scheme}:x") as store:
        with pytest.raises(InvalidUrl, match=r"entry point group eventfold\.targets") as refused:
            store.project(Total)
        assert (f"did you mean {near}:" in refused.value.what) is bool(near)


def test_a_target_is_found_by_its_scheme(install: Installer, tmp_path: Path) -> None:
    """As the place of a whole store, and of one read model; rows and progress are there."""
    install("targets", "rows", "outside:open_target")
    with ef.Store("memory:", target=f"rows:{tmp_path}/all.db") as store:
        store.append(*deposits(2))
        store.project(Total)
        assert [row.deposits for row in store.rows(Total)] == [2]
        with store.follow(name="billing") as follower:
            assert next(iter(follower)).position == 1
    assert (tmp_path / "all.db").exists()

    class Elsewhere(Total, name="entry_points_elsewhere", target=f"ROWS:{tmp_path}/one.db"):
        pass

    with ef.Store("memory:") as store:
        store.append(*deposits(2))
        store.project(Elsewhere)
        assert [row.deposits for row in store.rows(Elsewhere)] == [2]
    assert (tmp_path / "one.db").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("outside:half_a_target", "returned a Half, which is no target: it lacks creates_indexes, forwards, now, "),
        ("outside:half_a_sink", "returned a HalfASink, which is no sink: it lacks held, show, drop, close."),
        ("outside:nothing", "is a NoneType, and cannot be called"),
    ],
)
def test_an_unusable_target_is_named(value: str, words: str, install: Installer) -> None:
    """With what it lacks as a target, or as a sink if it can write batches."""
    install("targets", "broken", value)
    with ef.Store("memory:", target="broken:x") as store, pytest.raises(InvalidUrl) as refused:
        store.project(Total)
    assert words in refused.value.what


def test_a_sink_is_found_by_its_scheme(install: Installer, tmp_path: Path) -> None:
    """Rows and progress are in the store's own database, and rows are sent on to the sink."""
    install("targets", "kept", "outside:open_sink")

    class Sent(Total, name="entry_points_sent", target="kept:x"):
        pass

    with ef.Store(tmp_path / "log.db") as store:  # type: ignore[arg-type]
        store.append(*deposits(2))
        store.project(Sent)
        assert sys.modules["outside"].SINK.readers("entry_points_sent") == [("a-1", 2)]
    with ef.Store("memory:", target="kept:x") as store, pytest.raises(InvalidUrl):
        store.project(Total)


def test_the_command_line_knows_installed_schemes(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With EVENTFOLD_URL set, the first argument is a store if its scheme is registered."""
    install("engines", "bare", "outside:open_engine")
    monkeypatch.setenv("EVENTFOLD_URL", "home.db")
    assert split_store_argument("bare:x", ["account:"]) == ("bare:x", ["account:"])
    assert split_store_argument("account:x", []) == ("home.db", ["account:x"])
    assert "outside" not in sys.modules


def test_a_built_in_scheme_costs_no_look_up(tmp_path: Path) -> None:
    """The metadata of installed distributions is not read, nor its reader imported, for engines and targets alike."""
    program = """
import sys
import eventfold as ef
for url in ("memory:", "log.db"):
    with ef.Store(url) as store, store.follow(name="x"):
        pass
print("importlib.metadata" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("False\n", "")
