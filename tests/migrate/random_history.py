"""A random history of a shop while it is migrated, with faults: it ends equal, or something named the fault.

The application changes rows in transactions of every sort; a capture reads them, ends and begins again, or forgets to
acknowledge; comparisons are made in between. A fault changes rows so that nothing records it. At the end what
`compare` says is compared with the rows as another, slower reading of source and store gives them.
Knows: the shop, sessions. Does not know: how many histories are tried.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventfold.errors import CaptureStopped, SourceUnavailable
from eventfold.migrate.comparison import Comparison
from eventfold.migrate.connection import Connection
from eventfold.migrate.rows import FoldedRows
from eventfold.migrate.session import Session
from tests.migrate.shop import CUSTOMERS, ORDERS, Shop

LOCK_WAIT = {
    "postgresql": "SET lock_timeout = '200ms'",
    "mariadb": "SET innodb_lock_wait_timeout = 1",
    "sqlite": "PRAGMA foreign_keys = ON",
}
EXTRA_KEYS = 6  # beyond the rows that are loaded


class RandomHistory:
    """One history. `faulty`: whether faults are planted; `log`: what was done, for people."""

    def __init__(self, way: str, folder: Path, seed: int | str, steps: int = 30, faulty: bool = True) -> None:
        self.dice, self._steps, self._faulty = random.Random(f"{way} {seed}"), steps, faulty
        self.shop = Shop(way, folder)
        self.shop.run(LOCK_WAIT[self.shop.dialect])
        if self.shop.dialect == "sqlite":  # by which REPLACE deletes another row without a trigger
            self.shop.run("CREATE UNIQUE INDEX one_email ON customer (email)")
        self._held: Connection | None = None
        self.faults: list[str] = []
        self.log: list[str] = []

    def run(self) -> None:
        """Load, go through the steps, and check the end. Raises AssertionError with the whole history."""
        self.shop.fill()
        try:
            with self.shop.session() as session:
                self.shop.begin(session)
                try:
                    self._go(session)
                    self._check_end(session)
                except Exception as error:
                    raise AssertionError("\n".join([str(error), *self.log])) from error
        finally:
            self._release()
            self.shop.application.close()

    def _go(self, session: Session) -> None:
        faults = {self.dice.randrange(self._steps) for _ in range(2)} if self._faulty else set[int]()
        actions = [self._transaction] * 7 + [self._capture] * 2 + [self._forget, self._compare, self._hold]
        for step in range(self._steps):
            if step in faults:
                self._plant(session)
            elif not self._attempt(self.dice.choice(actions), session):
                return

    def _attempt(self, action: Callable[[Session], None], session: Session) -> bool:
        """Take a step. Returns False if a fault was named, after which nothing goes on by itself."""
        try:
            action(session)
        except CaptureStopped as error:
            self._named(error.what)
            return False
        return True

    def _named(self, what: str) -> None:
        self.log.append(f"named: {what}")
        assert self.faults, "a capture was stopped without a fault"

    # What the application does

    def _transaction(self, session: Session) -> None:
        del session
        self._within(self.shop.application, self.dice.random() < 0.1)

    def _within(self, connection: Connection, is_rolled_back: bool = False) -> None:
        statements = [self._statement() for _ in range(self.dice.choice((1, 1, 2, 5)))]
        try:
            connection.begin()
            for sql in statements:
                connection.run(sql)
            (connection.rollback if is_rolled_back else connection.commit)()
            self.log.append(f"{'rolled back' if is_rolled_back else 'committed'}: {'; '.join(statements)}")
        except SourceUnavailable as error:  # a constraint, a lock
            connection.rollback()
            self.log.append(f"refused: {'; '.join(statements)}: {error.what}")

    def _statement(self) -> str:
        dice = self.dice
        customer, order, number = dice.randrange(CUSTOMERS + EXTRA_KEYS), dice.randrange(ORDERS), dice.randrange(1, 4)
        word, amount = dice.choice(("", "x", "é😀", "it''s", "a\\\\b")), dice.choice(("0", "-1.5", "99999999.99", "3"))
        some = [
            f"UPDATE orders SET note = '{word}' WHERE id = {order}",
            f"UPDATE orders SET total = {amount}, status = 'paid' WHERE id = {order}",
            f"UPDATE orders SET shipped_at = '2024-03-01 12:00:00.0000{number}1' WHERE id = {order}",
            f"UPDATE orders SET note = NULL WHERE customer_id = {order % CUSTOMERS}",
            f"UPDATE orders SET customer_id = {order % CUSTOMERS} WHERE id < {order}",
            f"INSERT INTO customer VALUES ({customer}, '{word}', '{customer}.{number}@example.com')",
            f"UPDATE customer SET email = NULL WHERE id = {customer}",
            f"DELETE FROM customer WHERE id = {CUSTOMERS + dice.randrange(EXTRA_KEYS)}",
            f"UPDATE customer SET id = {CUSTOMERS + dice.randrange(EXTRA_KEYS)} WHERE id = {max(customer, CUSTOMERS)}",
            f"INSERT INTO line VALUES ({order}, {number}, '{word}', {customer})",
            f"UPDATE line SET number = {number} WHERE order_id = {order}",
            f"DELETE FROM line WHERE order_id = {order}",
            f"DELETE FROM line WHERE order_id = {order} AND number = 1",
        ]
        if self.shop.dialect == "postgresql":
            some.append("TRUNCATE line")
        if self.shop.dialect == "sqlite":
            some.append(f"REPLACE INTO customer VALUES ({customer}, 'replaced', NULL)")
        return dice.choice(some)

    def _hold(self, session: Session) -> None:
        """Open a transaction that stays open over the next steps, or end it."""
        if self.shop.dialect == "sqlite":  # one writer at a time
            return self._transaction(session)
        if self._held is not None:
            self.log.append("the open transaction is committed")
            return self._release()
        self._held = self.shop.connect()
        self._held.run(LOCK_WAIT[self.shop.dialect])
        self._held.begin()
        sql = self._statement()
        try:
            self._held.run("UPDATE orders SET note = 'open' WHERE id = 19" if sql.startswith("TRUNCATE") else sql)
            self.log.append(f"open: {sql}")
        except SourceUnavailable:
            self._held.rollback()
            self._held.close()
            self._held = None
        return None

    def _release(self) -> None:
        if self._held is not None:
            self._held.commit()
            self._held.close()
            self._held = None

    # What the migration does meanwhile

    def _capture(self, session: Session) -> None:
        with session.capture() as capture:
            self.log.append(f"captured {capture.drain(3)}")

    def _forget(self, session: Session) -> None:
        """Capture, and end before what was captured is acknowledged."""
        with session.capture() as capture:
            capture._recorder.acknowledge = lambda transactions: None  # pyright: ignore[reportAttributeAccessIssue]
            self.log.append(f"captured {capture.once()}, and forgot it")

    def _compare(self, session: Session) -> None:
        """Compare while the application goes on; not while a transaction is open, for which MariaDB would wait."""
        if self._held is not None:
            return self._transaction(session)

        def catch_up() -> None:
            self._within(self.shop.application)
            with session.capture() as capture:
                capture.drain(3)

        found = session.compare(catch_up=catch_up)
        self.log.append(f"compared: {found.verdict}")
        assert found.equal or self.faults, f"it differs without a fault: {found.differences[:3]}"
        return None

    # Faults

    def _plant(self, session: Session) -> None:
        """Change rows so that nothing records it."""
        plant = self.dice.choice([self._bypass, self._bypass, self._lose])
        if self.shop.dialect == "sqlite" and self.dice.random() < 0.3:
            plant = self._replace
        if not self._attempt(self._capture, session):
            return
        plant(session)

    def _bypass(self, session: Session) -> None:
        """A writer for which recording is off."""
        if self.shop.dialect == "postgresql" and self._held is not None:
            self._release()  # ALTER TABLE would wait for it
        before = self._rows(session)
        switch = {
            "postgresql-triggers": ("ALTER TABLE {} DISABLE TRIGGER USER", "ALTER TABLE {} ENABLE ALWAYS TRIGGER USER"),
            "postgresql-decoding": ("ALTER PUBLICATION {slot} DROP TABLE {}", "ALTER PUBLICATION {slot} ADD TABLE {}"),
        }
        way = f"{self.shop.dialect}-{self.shop.way}" if self.shop.way else self.shop.dialect
        if way not in switch:
            self._within(self.shop.application)
            self._pass_over(session)
        else:
            with session.recorder() as recorder:
                slot = getattr(recorder, "slot", "")
            off, on = switch[way]
            for label in session.plan.tables:
                self.shop.run(off.format(label, slot=slot))
            self._within(self.shop.application)
            for label in session.plan.tables:
                self.shop.run(on.format(label, slot=slot).replace("TRIGGER USER", "TRIGGER eventfold_record"))
                if way == "postgresql-triggers":
                    self.shop.run(f"ALTER TABLE {label} ENABLE ALWAYS TRIGGER eventfold_record_truncate")
        self._add_fault("nothing recorded it", before, session)

    def _lose(self, session: Session) -> None:
        """Recorded changes that disappear."""
        before = self._rows(session)
        for _ in range(3):
            self._within(self.shop.application)
        self._pass_over(session)
        self._add_fault("its record was lost", before, session)

    def _replace(self, session: Session) -> None:
        """A row that SQLite deletes for another one, without a trigger."""
        before = self._rows(session)
        self.shop.run("PRAGMA foreign_keys = OFF")
        self.shop.run("REPLACE INTO customer VALUES (77, 'other', '1@example.com')")
        self.shop.run("PRAGMA foreign_keys = ON")
        self._add_fault("REPLACE deleted a row", before, session)

    def _pass_over(self, session: Session) -> None:
        with session.recorder() as recorder:
            found = recorder.changes(1_000)
            recorder.acknowledge(found)

    def _add_fault(self, what: str, before: Any, session: Session) -> None:
        if before != self._rows(session):
            self.faults.append(what)
            self.log.append(f"FAULT: {what}")

    # The end

    def _rows(self, session: Session) -> dict[str, dict[str, Any]]:
        return {
            label: {session.plan.events[label].key(row): row for row in self.shop.rows(session, label)}
            for label in session.plan.tables
        }

    def _check_end(self, session: Session) -> None:
        """What `compare` says is what a slow reading of both sides says; after reading again it says equal."""
        self._release()
        try:
            found = session.compare(shown=1_000)
        except CaptureStopped as error:
            self._named(error.what)
        else:
            self.log.append(f"at the end: {found.verdict}")
            assert _keys(found) == self._differing(session)
            assert found.equal or self.faults, "it differs without a fault"
        session.reread([], "tried")
        assert session.compare().equal and not self._differing(session)

    def _differing(self, session: Session) -> set[tuple[str, str]]:
        rows, folded = self._rows(session), FoldedRows(session.store, session.plan.events)
        differing: set[tuple[str, str]] = set()
        for label, theirs in rows.items():
            ours = {key: row.values for key, row in folded.table(label).items() if row.values is not None}
            differing |= {(label, key) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        return differing


def _keys(found: Comparison) -> set[tuple[str, str]]:
    return {(each.table, each.key) for each in found.differences}
