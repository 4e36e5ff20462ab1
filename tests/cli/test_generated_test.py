"""A recorded history is exported as a test, and the test passes as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODULE = """
from __future__ import annotations
from datetime import date
from decimal import Decimal
import eventfold as ef

class Paid(ef.Event):
    account: ef.Tag
    amount: Decimal
    day: date

class Account(ef.State):
    account: ef.Tag
    balance: Decimal = Decimal(0)
    days: list[date] = []
    def evolve(self, event: Paid) -> None:
        self.balance += event.amount
        self.days.append(event.day)

if __name__ == "__main__":
    with ef.Store("s.db") as store:
        store.append(Paid("a-1", Decimal("5.50"), date(2026, 1, 2)), Paid("a-2", Decimal(1), date(2026, 1, 2)))
        store.append(Paid("a-1", Decimal(-2), date(2026, 1, 3)))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder."""
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_history_becomes_a_test_that_passes(tmp_path: Path) -> None:
    """Imports, events in order, the expected answer: pytest runs it without a change."""
    (tmp_path / "accounts.py").write_text(MODULE)
    assert run(tmp_path, "accounts.py").returncode == 0
    exported = run(tmp_path, "-m", "eventfold", "history", "s.db", "accounts:Account", "a-1", "--as-test")
    assert exported.returncode == 0, exported.stderr
    assert "def test_the_history_of_a_1() -> None:" in exported.stdout
    assert "balance=Decimal('3.50')" in exported.stdout
    (tmp_path / "test_replayed.py").write_text(exported.stdout)
    replayed = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_replayed.py")
    assert "1 passed" in replayed.stdout, replayed.stdout


RICH = """
from __future__ import annotations
import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID
import msgspec
import eventfold as ef

class Currency(enum.Enum):
    EUR = "eur"

class Money(msgspec.Struct, frozen=True):
    cents: int
    currencies: frozenset[Currency] = frozenset()

class Outer:
    class Inner(msgspec.Struct, frozen=True):
        n: int

@ef.event("rich-paid")
@dataclass(frozen=True)
class Paid:
    account: ef.Tag[UUID]
    money: Money
    at: datetime
    parts: tuple[Outer.Inner, ...]
    by: dict[str, list[Money]]

class Noted(ef.Event):
    text: str

class Account(ef.State):
    account: ef.Tag[UUID]
    last: Money | None = None
    seen: list[Currency] = []
    notes: set[str] = set()
    def query(self) -> ef.Query:
        return ef.Query.of(tags=[f"account:{self.account}"])
    def evolve(self, event: Paid | Noted) -> None:
        if isinstance(event, Noted):
            self.notes.add(event.text)
        else:
            self.last = event.money
            self.seen.extend(event.money.currencies)

if __name__ == "__main__":
    one = UUID(int=1)
    with ef.Store("s.db") as store:
        money = Money(5, frozenset([Currency.EUR]))
        store.append(Paid(one, money, datetime(2026, 1, 2, tzinfo=UTC), (Outer.Inner(3),), {"a": [money]}))
        store.append(ef.Draft(Noted("vip"), tags=(f"account:{one}",)))
"""


def test_every_kind_of_value_has_a_form_that_runs(tmp_path: Path) -> None:
    """Enums, value objects within events, dataclasses, nested classes, tags that no field gives."""
    (tmp_path / "accounts.py").write_text(RICH)
    assert run(tmp_path, "accounts.py").returncode == 0
    key = "00000000-0000-0000-0000-000000000001"
    exported = run(tmp_path, "-m", "eventfold", "history", "s.db", "accounts:Account", key, "--as-test")
    assert exported.returncode == 0, exported.stderr
    (tmp_path / "test_replayed.py").write_text(exported.stdout)
    replayed = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_replayed.py")
    assert "1 passed" in replayed.stdout, exported.stdout + replayed.stdout


def test_an_entity_without_events_makes_no_test(tmp_path: Path) -> None:
    """Nothing happened, and that is said."""
    (tmp_path / "accounts.py").write_text(MODULE)
    run(tmp_path, "accounts.py")
    empty = run(tmp_path, "-m", "eventfold", "history", "s.db", "accounts:Account", "unknown", "--as-test")
    assert empty.returncode == 2
    assert "has no events" in empty.stderr
