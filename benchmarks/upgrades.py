"""How long `eventfold upgrade` stops the writers of a store: stores of the previous layout, of several sizes.

    python -m benchmarks.upgrades [--events 100000 1000000]    measures, and writes the table of the page

Knows: how a store of the previous layout is made from one of this version or from a stored example. Does not know: what
an upgrade does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import apsw
import psycopg

import eventfold as ef
from benchmarks import machine
from benchmarks.availability import PAGE, ROOT, seconds, with_table
from benchmarks.outages import fill
from eventfold.concurrency.run import run
from eventfold.engines import open_engine
from eventfold.engines.sqlite.postings import unpack
from tests.layouts.kept import postgres_store
from tests.support.servers.postgres import own

RESULTS = ROOT / "benchmarks" / "upgrades.json"
BEGIN, END = "<!-- upgrade -->", "<!-- upgrade end -->"
# Layout 5 of a file as layout 3, and layout 3 as layout 2: the steps of an upgrade, backwards.
TO_LAYOUT_3 = (
    "DROP TABLE segment; ALTER TABLE event RENAME COLUMN format TO encoding; DROP TABLE posting; DROP TABLE run;"
    " CREATE TABLE tagged (tag INTEGER NOT NULL, position INTEGER NOT NULL, type INTEGER NOT NULL,"
    " PRIMARY KEY (tag, position, type)) STRICT, WITHOUT ROWID; PRAGMA user_version = 3"
)
TO_LAYOUT_2 = (
    "DROP TABLE indexed; DELETE FROM tagged WHERE tag < 0; ALTER TABLE event RENAME COLUMN encoding TO codec;"
    " CREATE INDEX event_type ON event(type, position); PRAGMA user_version = 2"
)
# Rows beside the few of the stored example: an upgrade compares their hash with that before, and no checksum.
MORE_EVENTS = """
INSERT INTO {s}.event (position, time, version, "offset", size, id, type, codec, tags, data, checksum)
    SELECT n, 1700000000000000 + n, 1, 0, 1, gen_random_uuid(), 'Ordered', 'json', 'customer:c-' || n % 1000,
        convert_to(repeat('x', 150), 'UTF8'), 0
    FROM generate_series((SELECT max(position) + 1 FROM {s}.event), {events}) n;
INSERT INTO {s}.tag (tag, position, type) SELECT tags, position, type FROM {s}.event WHERE checksum = 0;
"""


def file_upgrades(events: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of upgrades of a file: from layouts 3 and 2, with the copy that is made first, and without."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="eventfold-upgrades-") as folder:
        path = Path(folder) / "store.db"
        with ef.Store(str(path)) as store:
            fill(store, events)
        for _ in range(rounds):
            for layout, steps in ((3, TO_LAYOUT_3), (2, f"{TO_LAYOUT_3}; {TO_LAYOUT_2}")):
                for copies in (True, False):
                    _run_on_file(path, steps)
                    name = f"SQLite, from layout {layout}, {'with' if copies else 'without'} the copy"
                    found.setdefault(name, []).append(_upgrade(str(path), copies=copies, layout=layout))
                    for kept in Path(folder).glob("store.db.layout-*"):
                        kept.unlink()
    return found


def _run_on_file(path: Path, steps: str) -> None:
    connection = apsw.Connection(str(path))
    entries = [
        (row[0], position, types if isinstance(types, int) else types[index])
        for row in connection.execute("SELECT tag, last, type, positions FROM posting ORDER BY tag, last").fetchall()
        for positions, types in [unpack(*row[1:])]
        for index, position in enumerate(positions)
    ]
    connection.execute("BEGIN")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    before, dropped, after = steps.partition("STRICT, WITHOUT ROWID;")
    connection.execute(before + dropped)
    connection.executemany("INSERT INTO tagged VALUES (?, ?, ?)", entries)
    connection.execute(after)
    kept = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for _, sql in triggers:
        if sql.split(" ON ")[1].split()[0] in kept:
            connection.execute(sql)
    connection.execute("COMMIT")
    connection.close()


def postgres_upgrades(events: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of upgrades of a schema, from layout 2."""
    found: list[float] = []
    with own() as server:
        for number in range(rounds):
            schema = f"eventfold_{number}"
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(postgres_store(2, schema).encode())
                for table in ("event", "tag"):
                    connection.execute(f"ALTER TABLE {schema}.{table} DISABLE TRIGGER USER".encode())
                connection.execute(MORE_EVENTS.format(s=schema, events=events).encode())
                for table in ("event", "tag"):
                    connection.execute(f"ALTER TABLE {schema}.{table} ENABLE TRIGGER USER".encode())
                connection.execute(f"VACUUM ANALYZE {schema}.event, {schema}.tag".encode())
                connection.execute(b"CHECKPOINT")
            found.append(_upgrade(server.url(schema=schema), copies=False, layout=2))
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    return {"PostgreSQL, from layout 2": found}


def _upgrade(url: str, *, copies: bool, layout: int) -> float:
    maintenance: Any = open_engine(url, "sync", False, {}).services.maintenance
    began = time.monotonic()
    result = run(maintenance.upgrade(copies=copies))
    took = time.monotonic() - began
    if result.had != layout:
        raise RuntimeError(f"the store had layout {result.had}, not {layout}")
    return took


def table(results: dict[str, Any]) -> str:
    """The table, and where its figures come from."""
    sizes = results["sizes"]
    head = ["store", *(f"{int(size):,} events" for size in sizes)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    names = next(iter(sizes.values()))
    lines += [f"| {name} | {' | '.join(seconds(found.get(name)) for found in sizes.values())} |" for name in names]
    return "\n".join([*lines, "", f"Measured: {results['date']}, {results['machine']}, commit {results['commit']}."])


def main(arguments: list[str] | None = None) -> None:
    """Measure each size, and write the table into the page."""
    parser = argparse.ArgumentParser("python -m benchmarks.upgrades", description="How long upgrades take.")
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    facts = machine.machine(Path(tempfile.gettempdir()))
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{facts['processor']}, {facts['cores']} cores",
        "commit": machine.commit()[0],
        "sizes": {},
    }
    for events in asked.events:
        found = file_upgrades(events, asked.rounds) | postgres_upgrades(events, asked.rounds)
        results["sizes"][str(events)] = {name: [round(each, 3) for each in times] for name, times in found.items()}
        print(events, results["sizes"][str(events)], flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), BEGIN, END, table(results)), "utf-8")


if __name__ == "__main__":
    main()
