"""Migrations of a live source: random histories with faults, and MariaDB killed while its changes are captured.

Knows: the shop of the tests, servers. Does not know: how changes are recorded, or rows compared.
"""

from __future__ import annotations

import random
import signal
import threading
import time

from eventfold.errors import CaptureStopped, SourceUnavailable
from eventfold.migrate.session import Session
from soak.rounds import Round
from tests.migrate.random_history import RandomHistory
from tests.migrate.shop import ORDERS, Shop
from tests.support.servers import mariadb

WAYS = ("sqlite", "postgresql-triggers", "postgresql-decoding", "mariadb")
STEPS = 40
KILLS = 5  # in a round
BETWEEN_KILLS_S = (0.2, 1.5)
PATIENCE_S = 60.0


def histories(turn: Round) -> None:
    """Run one history; every fourth has no fault. It ends equal, or the fault was named."""
    ways = WAYS if None not in mariadb.PROGRAMS else WAYS[:-1]
    way = ways[turn.index % len(ways)]
    history = RandomHistory(way, turn.folder, turn.seed, STEPS, faulty=turn.index // len(ways) % 4 != 0)
    try:
        history.run()
    except AssertionError as error:
        turn.findings.add(f"{way}: {str(error)[-3_000:]}")
    turn.count("histories")
    turn.count("faults", len(history.faults))
    turn.count("named by the capture", sum(line.startswith("named") for line in history.log))


def mariadb_kills(turn: Round) -> None:
    """Kill the server again and again while rows are changed and captured: nothing is lost, and nothing stops it."""
    shop = Shop("mariadb", turn.folder)
    shop.fill()
    with shop.session() as session:
        shop.begin(session)
    shop.application.close()
    server, ended = mariadb.shared(), threading.Event()
    writer = threading.Thread(target=_write, args=(shop, turn.seed, ended), daemon=True)
    capturing = threading.Thread(target=_capture, args=(shop, turn, ended), daemon=True)
    for each in (writer, capturing):
        each.start()
    for _ in range(KILLS):
        time.sleep(turn.dice.uniform(*BETWEEN_KILLS_S))
        server.stop(signal.SIGKILL)
        turn.count("server kills")
        server.start()
    ended.set()
    for each in (writer, capturing):
        each.join(PATIENCE_S)
        if each.is_alive():
            turn.findings.add("a thread did not end")
            return
    with shop.session() as session:
        _check(turn, session)


def _write(shop: Shop, seed: str, ended: threading.Event) -> None:
    """Change rows in transactions, and connect again when the server is back."""
    dice = random.Random(f"{seed} writer")
    while not ended.is_set():
        try:
            connection = shop.connect()
            while not ended.is_set():
                connection.begin()
                for _ in range(dice.randrange(1, 5)):
                    order = dice.randrange(ORDERS)
                    connection.run(f"UPDATE orders SET total = {dice.randrange(1_000)}.25 WHERE id = {order}")
                connection.run(f"DELETE FROM line WHERE order_id = {order} AND number > 1")
                connection.run(f"INSERT INTO line VALUES ({order}, {dice.randrange(2, 5)}, 'x', 1)")
                (connection.rollback if dice.random() < 0.1 else connection.commit)()
        except SourceUnavailable:
            time.sleep(0.05)


def _capture(shop: Shop, turn: Round, ended: threading.Event) -> None:
    """Capture, and begin again when the server is back."""
    while not ended.is_set():
        try:
            with shop.session() as session, session.capture() as capture:
                while not ended.is_set():
                    turn.count("changes", capture.once())
        except SourceUnavailable:
            turn.count("lost connections")
            time.sleep(0.05)
        except CaptureStopped as error:
            turn.findings.add(f"a kill of the server stopped the capture: {error.what}")
            return


def _check(turn: Round, session: Session) -> None:
    found = session.compare()
    if not found.equal:
        turn.findings.add(f"{found.verdict}; first {found.differences[:3]}")
    ids = [each.id for each in session.store.read(raw=True)]
    if len(ids) != len(set(ids)):
        turn.findings.add("an event was appended twice")
