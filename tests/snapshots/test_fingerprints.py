"""A fold's fingerprint changes as soon as it would fold, or mean, something else; it is the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RULES = """
from decimal import Decimal
RATE = Decimal("1.5")
def fee(amount):
    return amount * RATE
def other(amount):
    return amount
"""
FOLD = """
from __future__ import annotations
import enum, functools
from decimal import Decimal
import msgspec
import eventfold as ef
import fold_rules as rules
from fold_rules import fee as imported

TABLE = {"a": 1, "b": 2}
NAMES = {"x", "y", "z"}

class Kind(enum.Enum):
    SMALL = "s"
    LARGE = "l"

class Money(msgspec.Struct, frozen=True):
    amount: Decimal
    cents: int = 0
    def doubled(self):
        return self.amount * 2

class Line(msgspec.Struct):
    price: Money
    kind: Kind = Kind.SMALL

class Booked(ef.Event, type="fingerprints-booked"):
    account: ef.Tag
    line: Line
    tip: int = 0
    fees: int = 0

class BookedV0(ef.Event, type="fingerprints-booked-v0"):
    account: ef.Tag

@ef.upcast
def lifted(old: BookedV0) -> Booked:
    return Booked(old.account, Line(Money(Decimal(7))))

@functools.singledispatch
def size(value):
    return 1

@size.register
def _(value: int):
    return 2

def made(step):
    def inner(value):
        return value + step
    return inner

plus = made(3)
START = Money(Decimal(5))

class Mixin:
    def mixed(self):
        return 1

class Total(ef.State, Mixin):
    account: ef.Tag
    total: Decimal = Decimal(0)
    seen: list[str] = []

    def evolve(self, event: Booked, factor: int = 1) -> None:
        self.total += event.line.price.doubled() + rules.fee(event.tip) + imported(1) + TABLE["a"]
        self.total += START.amount + size(event.tip) + plus(1) + self.mixed() + factor
        if event.account in {"p", "q", "r"} or event.account in NAMES:
            self.total += event.tip
"""
SAY = "import fold_of, eventfold.core.fingerprint as f; print(f.fingerprint(fold_of.Total))"
CHANGES = {
    "an attribute of another name": ("            self.total += event.tip", "            self.total += event.fees"),
    "a method of a value object": ("return self.amount * 2", "return self.amount * 3"),
    "a default of a nested struct": ("    cents: int = 0", "    cents: int = 1"),
    "a field of a nested struct": ("    cents: int = 0", "    cents: float = 0"),
    "a member of an enum": ('LARGE = "l"', 'LARGE = "xl"'),
    "a constant that is a dict": ('TABLE = {"a": 1', 'TABLE = {"a": 3'),
    "a constant that is a set": ('NAMES = {"x"', 'NAMES = {"w"'),
    "a constant that is a value object": ("START = Money(Decimal(5))", "START = Money(Decimal(6))"),
    "an upcaster": ("Decimal(7)", "Decimal(8)"),
    "a default of an event": ("    tip: int = 0", "    tip: int = 1"),
    "a branch of a singledispatch": ("return 2", "return 4"),
    "what a closure holds": ("plus = made(3)", "plus = made(4)"),
    "a mixin that is no State": ("        return 1\n\nclass Total", "        return 9\n\nclass Total"),
    "a default argument": ("factor: int = 1", "factor: int = 2"),
    "a function of another module": ("rules.fee(", "rules.other("),
}


def said(folder: Path, fold: str = FOLD, rules: str = RULES, seed: str = "0") -> str:
    """Return the fingerprint of the fold, computed in a process of its own."""
    (folder / "fold_of.py").write_text(fold)
    (folder / "fold_rules.py").write_text(rules)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", SAY], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of the unchanged fold."""
    return said(tmp_path_factory.mktemp("fold"))


def test_every_process_computes_the_same_fingerprint(tmp_path: Path, before: str) -> None:
    """The order of sets does not matter; otherwise no snapshot would survive a restart."""
    assert {said(tmp_path, seed=seed) for seed in ("1", "2", "77")} == {before}


@pytest.mark.parametrize("change", CHANGES)
def test_another_meaning_is_another_fingerprint(tmp_path: Path, before: str, change: str) -> None:
    """A snapshot from before the change is not used."""
    old, new = CHANGES[change]
    assert FOLD.count(old) == 1
    assert said(tmp_path, FOLD.replace(old, new)) != before


@pytest.mark.parametrize(("old", "new"), [('"1.5"', '"1.6"'), ("return amount * RATE", "return amount / RATE")])
def test_a_module_of_rules_is_part_of_the_fold(tmp_path: Path, before: str, old: str, new: str) -> None:
    """It counts whether it is used by `import` or by `from … import`."""
    assert said(tmp_path, rules=RULES.replace(old, new)) != before


def test_a_package_that_is_installed_counts_where_the_fold_is_part_of_it(tmp_path: Path) -> None:
    """An installed application has its rules in site-packages."""
    package = tmp_path / "site-packages" / "shop_installed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    found: list[str] = []
    for rate in ("1.5", "1.6"):
        (package / "fold_rules.py").write_text(RULES.replace("1.5", rate))
        (package / "fold_of.py").write_text(FOLD.replace("fold_rules", "shop_installed.fold_rules"))
        path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        say = SAY.replace("fold_of", "shop_installed.fold_of")
        done = subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.strip())
    assert found[0] != found[1]
