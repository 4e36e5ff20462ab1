"""Processes through kill -9: many lives, each ended at a random moment, and what is left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from tests.processes.shop import OrderPlaced, Paid, Payment, Reminded, ReminderDue, Reserved, mail
from tests.support.repetitions import repetitions
from tests.support.servers.postgres import shared

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("engine", "lives", "longest"), [("sqlite", repetitions(45, 120), 0.08), ("postgres", repetitions(40, 110), 0.2)]
)
def test_nothing_is_lost_or_done_twice_through_kill_9(
    engine: str, lives: int, longest: float, tmp_path: Path, mails: Path
) -> None:
    """Every timer fires once, every command is decided once, every effect happens at least once with the same key."""
    url = str(tmp_path / "shop.db") if engine == "sqlite" else shared().url(schema=f"s{uuid4().hex[:12]}")
    command = [sys.executable, "-W", "ignore", "-m", "tests.processes.killed", url, str(lives), "7", str(longest)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=160)
    assert ran.stdout.strip() == str(lives), ran.stderr[-4000:]

    with ef.Store(url) as store:
        time.sleep(0.1)  # until the last timer is due
        store.run_until_idle(Payment, mail)
        orders = {r.event.order for r in store.read(ef.Query.of(types=[OrderPlaced]))}
        paid = {r.event.order for r in store.read(ef.Query.of(types=[Paid]))}
        reserved = Counter(r.event.order for r in store.read(ef.Query.of(types=[Reserved])))
        fired = Counter(r.event.order for r in store.read(ef.Query.of(types=[ReminderDue])))
        reminded = {str(r.id): r.event.order for r in store.read(ef.Query.of(types=[Reminded]))}
        store.projections.verify()
    assert len(orders) >= lives / 10, "the lives were too short to prove anything"
    assert reserved == Counter(orders)
    assert set(fired.values()) <= {1} and orders - paid <= set(fired) <= orders
    assert Counter(reminded.values()).most_common(1)[0][1] == 1 and orders - paid <= set(reminded.values())
    sent = dict(line.split() for line in mails.read_text().splitlines())
    assert sent == reminded
