"""Everything that a fold uses counts in its fingerprint; what cannot be compared is reported."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import eventfold as ef
from eventfold.core.fingerprint import fingerprint, fingerprint_of_rules
from eventfold.projections.definition import projection_definition

EVENTS = """
import eventfold as ef
class Sold(ef.Event, type="fingerprint-values-sold"):
    item: ef.Tag
    cents: int = 0
    unused: int = 0
    def doubled(self):
        return self.cents * 2
"""
HEAD = """
import collections, datetime, decimal, fractions, functools, importlib
import msgspec, operator, pathlib, re, threading, types, zoneinfo
import eventfold as ef
from fingerprint_events import Sold
"""
FOLD = (
    HEAD
    + """
{constant}
class Total(ef.State{version}):
    item: ef.Tag
    total: int = 0
    def evolve(self, event: Sold) -> None:
        {body}
class TotalRow(ef.Projection, name="total_row"{version}):
    item: str
    total: int = 0
    def evolve(self, event: Sold) -> None:
        {body}
"""
)
CONSTANTS = {
    "a mapping proxy": ("types.MappingProxyType({'k': 2})", "types.MappingProxyType({'k': 3})"),
    "a fraction": ("fractions.Fraction(2)", "fractions.Fraction(3)"),
    "a range": ("range(2)", "range(3)"),
    "a deque": ("collections.deque([1, 1])", "collections.deque([1, 1, 1])"),
    "a pattern": ("re.compile('a{2}')", "re.compile('a{3}')"),
    "the flags of a pattern": ("re.compile('a')", "re.compile('a', re.I)"),
    "a named tuple": ("collections.namedtuple('N', 'k')(2)", "collections.namedtuple('N', 'k')(3)"),
    "a zone": ("zoneinfo.ZoneInfo('Etc/GMT-2')", "zoneinfo.ZoneInfo('Etc/GMT-3')"),
    "an offset": ("datetime.timezone(datetime.timedelta(0, 7))", "datetime.timezone(datetime.timedelta(0, 8))"),
    "the zone of a moment": (
        "datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('Etc/GMT-2'))",
        "datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('Etc/GMT-3'))",
    ),
    "a getter": ("operator.attrgetter('cents')", "operator.attrgetter('unused')"),
    "a counter": ("collections.Counter({'k': 2})", "collections.Counter({'k': 3})"),
    "a default factory": ("collections.defaultdict(int)", "collections.defaultdict(float)"),
    "a context": ("decimal.Context(prec=2)", "decimal.Context(prec=3)"),
    "a path": ("pathlib.PurePosixPath('a/b')", "pathlib.PurePosixPath('a/b/c')"),
    "a bound method": ("[0, 2].__getitem__", "[0, 3].__getitem__"),
    "a struct": ("msgspec.defstruct('S', [('k', int)])(2)", "msgspec.defstruct('S', [('k', int)])(3)"),
    "a function in a table": ("{'k': lambda: 2}", "{'k': lambda: 3}"),
    "what a closure holds": ("(lambda k: (lambda: k))(2)", "(lambda k: (lambda: k))(3)"),
    "a cached function": ("functools.lru_cache(lambda: 2)", "functools.lru_cache(lambda: 3)"),
    "a partial": ("functools.partial(lambda k, c: k, 2)", "functools.partial(lambda k, c: k, 3)"),
    "a property": ("type('P', (), {'k': property(lambda s: 2)})()", "type('P', (), {'k': property(lambda s: 3)})()"),
    "an attribute of an object": ("types.SimpleNamespace(factory=len, k=2)", "types.SimpleNamespace(factory=len, k=3)"),
    "a metaclass": ("type('M', (type,), {'k': 2})('P', (), {})", "type('M', (type,), {'k': 3})('P', (), {})"),
    "blanks within a text": ("'a b'", "'a  b'"),
    "a float that is an int": ("2", "2.0"),
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A function that makes a module from a text. Two modules of the same text are the same code, moved."""
    monkeypatch.syspath_prepend(str(tmp_path))
    if "fingerprint_events" not in sys.modules:
        (tmp_path / "fingerprint_events.py").write_text(EVENTS)
        importlib.import_module("fingerprint_events")
    made: list[str] = []

    def of(text: str) -> ModuleType:
        name = f"fingerprints_of_{tmp_path.name}_{len(made)}"
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return of


def prints(module: ModuleType) -> tuple[str, str]:
    """Return the fingerprints of the module's State and read model."""
    return fingerprint(module.Total).digest, projection_definition(module.TotalRow).fingerprint


def fold(constant: str = "", body: str = "self.total += event.cents", version: str = "") -> str:
    """Return the text of a module."""
    return FOLD.format(constant=constant, body=body, version=version)


@pytest.mark.parametrize("kind", CONSTANTS)
def test_a_changed_constant_is_another_fingerprint(module: Callable[[str], ModuleType], kind: str) -> None:
    """This holds for a State and a read model; the same constant in another module is the same code."""
    before, after = CONSTANTS[kind]
    first, same, other = (module(fold(f"C = {each}", "self.total = C")) for each in (before, before, after))
    assert prints(first) == prints(same)
    assert prints(first)[0] != prints(other)[0]
    assert prints(first)[1] != prints(other)[1]
    assert not fingerprint(first.Total).unknown


def test_a_global_of_the_name_of_an_attribute_does_not_count(module: Callable[[str], ModuleType]) -> None:
    """`self.total` and `event.cents` are not the module's `total` and `cents`; a global that is used counts."""
    one, other = (module(fold(f"cents = total = {value}")) for value in (1, 2))
    assert prints(one) == prints(other)
    used, changed = (module(fold(f"cents = {value}", "self.total = [cents for _ in '1'][0]")) for value in (1, 2))
    assert prints(used)[0] != prints(changed)[0]
    assert prints(used)[1] != prints(changed)[1]


HELPER = "RATE = 2\ndef price(cents):\n    return cents * RATE"
REACHED = {
    "a helper": (HELPER, "cents * RATE", "cents + RATE"),
    "a helper's constant": (HELPER, "RATE = 2", "RATE = 5"),
    "a helper's inner function": (
        "def price(c):\n    def one():\n        return c\n    return one()",
        "return c\n",
        "return -c\n",
    ),
}


@pytest.mark.parametrize("what", REACHED)
def test_a_changed_helper_is_another_fingerprint(module: Callable[[str], ModuleType], what: str) -> None:
    """The change is in a function that evolve calls, or in what that function uses."""
    text, old, new = REACHED[what]
    body = "self.total += price(event.cents)"
    first, other = module(fold(text, body)), module(fold(text.replace(old, new), body))
    assert all(one != another for one, another in zip(prints(first), prints(other), strict=True))


MEMOS = {
    "a dict": (
        "MEMO = {}\ndef price(c):\n    if c not in MEMO:\n        MEMO[c] = c\n    return MEMO[c]",
        "MEMO[7] = 1",
    ),
    "a set": ("MEMO = set()\ndef price(c):\n    MEMO.add(c)\n    return c", "MEMO.add(7)"),
    "a count": ("MEMO = 0\ndef price(c):\n    global MEMO\n    MEMO += 1\n    return c", "MEMO = 7"),
    "changed elsewhere": (
        "MEMO = []\ndef note(c):\n    MEMO.append(c)\ndef price(c):\n    note(c)\n    return len(MEMO) * 0 + c",
        "MEMO.append(7)",
    ),
}


@pytest.mark.parametrize("kind", MEMOS)
def test_values_that_the_code_changes_at_run_time_do_not_count(module: Callable[[str], ModuleType], kind: str) -> None:
    """The content of a cache differs between processes, and is no rule; the function that fills it is."""
    text, filled = MEMOS[kind]
    body = "self.total += price(event.cents)"
    empty, full = module(fold(text, body)), module(fold(f"{text}\n{filled}", body))
    assert prints(empty) == prints(full)
    other = module(fold(text.replace("return ", "return 1 + "), body))
    assert all(one != another for one, another in zip(prints(empty), prints(other), strict=True))


def test_an_import_within_a_function_counts(module: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """This holds for an imported module and for a name imported from it."""
    helper = f"rules_of_{tmp_path.name}".replace("-", "_")
    for body in (
        f"from {helper} import price; self.total += price(event.cents)",
        f"import {helper} as rules; self.total += rules.price(event.cents)",
    ):
        found: list[tuple[str, str]] = []
        for rate in (2, 3):
            (tmp_path / f"{helper}.py").write_text(f"def price(cents):\n    return cents * {rate}{' ' * rate}\n")
            sys.modules.pop(helper, None)
            importlib.invalidate_caches()
            found.append(prints(module(fold(body=body))))
        assert found[0][0] != found[1][0]
        assert found[0][1] != found[1][1]


def test_comments_docstrings_and_formatting_do_not_count(module: Callable[[str], ModuleType]) -> None:
    """Moving the class to another module does not count either."""
    plain = fold(HELPER, "self.total += price(event.cents)")
    dressed = fold(
        'RATE   = 2  # a rate\ndef price(cents):\n    """The price."""\n    return (cents\n        * RATE)',
        '"""Take one."""\n        self.total += price(  event.cents  )  # a comment',
    )
    assert prints(module(plain)) == prints(module(dressed))


def test_a_read_model_looks_at_the_fields_of_events_that_it_names(module: Callable[[str], ModuleType]) -> None:
    """An event that gains a field, or another default, changes only read models that use that field."""
    import fingerprint_events as events

    def print_of(body: str, text: str) -> str:
        space = module(
            text + HEAD.replace("from fingerprint_events import Sold", "") + fold(body=body).partition(HEAD)[2]
        )
        return projection_definition(space.TotalRow).fingerprint

    def changed(old: str, new: str) -> str:
        assert EVENTS.count(old) == 1
        return EVENTS.replace(old, new)

    for body, old, new, same in (
        ("self.total += event.cents", "unused: int = 0", "unused: int = 1", True),
        ("self.total += event.cents", "    unused: int = 0\n", "    unused: int = 0\n    more: int = 7\n", True),
        ("self.total += event.cents", "cents: int = 0", "cents: int = 1", False),
        ("self.total += event.doubled()", "self.cents * 2", "self.cents * 3", False),
        ("match event:\n            case Sold(unused=1): self.total += 1", "unused: int = 0", "unused: int = 1", False),
    ):
        assert (print_of(body, EVENTS) == print_of(body, changed(old, new))) == same, (body, new)
    assert events.Sold


@pytest.mark.parametrize(
    "body",
    ["globals()['RATE']", "eval('RATE')", "__import__('math').pi", "importlib.import_module('math').pi"],
)
def test_an_object_found_by_a_text_is_reported(module: Callable[[str], ModuleType], body: str) -> None:
    """Code or a value found by a text is known only at run time; a name of the module itself counts as that name."""
    found = module(fold("RATE = 2", f"self.total += {body}"))
    name = body.partition("(")[0].rpartition(".")[2]
    assert fingerprint(found.Total).unknown == (f"{name}() in Total.evolve",)
    plan = projection_definition(found.TotalRow)
    assert fingerprint_of_rules(plan.cls, plan.events, (), None).unknown == (f"{name}() in TotalRow.evolve",)
    own = module(fold("def eval(text):\n    return 2", "self.total += eval('RATE')"))
    assert fingerprint(own.Total).unknown == ()


def test_code_that_cannot_be_compared_is_reported_and_not_trusted(
    module: Callable[[str], ModuleType], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No snapshot of such a State is stored, which is logged once, by name; with version= one is stored."""
    constant, body = "C = threading.Lock()", "self.total += event.cents + C.locked()"
    unsure, versioned = module(fold(constant, body)), module(fold(constant, body, ", version=1"))
    assert fingerprint(unsure.Total).unknown == ("an object of _thread.lock in Total.evolve",)
    assert fingerprint(versioned.Total).unknown == ()
    assert fingerprint(module(fold(constant, body, ", version=2")).Total) != fingerprint(versioned.Total)
    url = str(tmp_path / "store.db")
    with caplog.at_level(logging.WARNING, "eventfold"):
        for of in (unsure, versioned):
            for _ in range(2):
                with ef.Store(url, snapshots=5) as store:
                    store.append(*[of.Sold("x", 1) for _ in range(10)])
                    store.state(of.Total("x"))
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 1
    assert (
        "Total uses objects that cannot be compared between releases: an object of _thread.lock in Total.evolve."
        in texts[0]
    )
    assert "version=1" in texts[0]
    with ef.Store(url, snapshots=5) as store:
        assert store.state(versioned.Total("x")).total == 40
        (kept,) = store.engine._file.reader().execute("SELECT key FROM snapshot").fetchall()  # type: ignore[attr-defined]
        assert versioned.__name__ in kept[0]


def test_a_file_edited_since_its_import_does_not_count(module: Callable[[str], ModuleType]) -> None:
    """The code that runs counts, not the file's present text."""
    from eventfold.core.syntax import describe

    made = module(fold())
    path = Path(made.__file__ or "")
    before = describe(made.Total.evolve)
    assert before.startswith("(FunctionDef")
    path.write_text(fold(body="self.total -= event.cents"))
    import linecache

    linecache.checkcache(str(path))
    assert not describe(made.Total.evolve).startswith("(FunctionDef")


def test_rows_under_a_fingerprint_of_an_older_release_go_on(tmp_path: Path) -> None:
    """Unchanged code neither stops nor is rebuilt; the new fingerprint is stored from then on."""

    class Sale(ef.Event, type="fingerprint-values-sale"):
        item: str

    class Sales(ef.Projection, name="fingerprint_sales"):
        item: str
        count: int = 0

        def evolve(self, event: Sale) -> None:
            self.count += 1

    url = str(tmp_path / "store.db")
    with ef.Store(url) as store:
        store.append(Sale("a"))
        store.project(Sales)
        (held,) = store.projections.checkpoints(Sales)
        first = projection_definition(Sales)._fingerprints()[1]  # type: ignore[attr-defined]
        assert first != held.fingerprint
        with store.projections.target(Sales).control(held.place.name) as tx:
            tx.update_checkpoint(held.place, fingerprint=first)
    with ef.Store(url) as store:
        store.append(Sale("a"))
        store.project(Sales)
        assert [row.count for row in store.rows(Sales)] == [2]
        assert [each.fingerprint for each in store.projections.checkpoints(Sales)] == [held.fingerprint]


def test_common_classes_are_comparable(module: Callable[[str], ModuleType]) -> None:
    """Default factories, value objects of common libraries, loggers, type variables, caches: nothing is reported."""
    made = module(
        HEAD
        + """
import dataclasses, enum, logging, typing
import attrs, pydantic
T = typing.TypeVar("T")
LOG = logging.getLogger(__name__)
@dataclasses.dataclass
class Line:
    price: decimal.Decimal = decimal.Decimal(1)
    parts: list[int] = dataclasses.field(default_factory=list)
@attrs.define
class Note:
    text: str = attrs.field(factory=str)
class Model(pydantic.BaseModel):
    name: str = "x"
class Mood(enum.Flag):
    GOOD = 1
class Base(typing.Generic[T]):
    @functools.cached_property
    def cached(self): return 1
    @classmethod
    def made(cls): return cls()
    @staticmethod
    def plain(value): return value
class Total(ef.State):
    item: ef.Tag
    seen: list[str] = []
    lines: dict[str, Line] = {}
    mood: Mood = Mood.GOOD
    when: datetime.date = datetime.date(2026, 1, 1)
    notes: set[int] = msgspec.field(default_factory=set)
    def evolve(self, event: Sold) -> None:
        LOG.debug("taken")
        self.lines["x"] = Line(); Note(); Model(name="y"); Base.made().plain(typing.cast(int, event.cents))
        self.seen.append(str(re.sub("a", "b", event.item)))
class TotalRow(ef.Projection, name="total_row"):
    item: str
    seen: list[str] = []
    def evolve(self, event: Sold) -> None:
        LOG.debug("taken")
        Total("x").evolve(event)
"""
    )
    assert fingerprint(made.Total).unknown == ()
    plan = projection_definition(made.TotalRow)
    assert fingerprint_of_rules(plan.cls, plan.events, (plan.key,), None).unknown == ()
