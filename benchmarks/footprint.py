"""The group "footprint": bytes of an event on disk, the time of an import, memory of an open store.

Knows: folders, fresh interpreters. Does not know: what makes them large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import program
from benchmarks.floor import Prototype, RawApsw
from benchmarks.measure import Figure, Missing, Sample, interleave
from benchmarks.peers import INSTALL, Eventsourcing, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold
from benchmarks.traffic import PAYLOAD

GROUP = "footprint"
BARE = "bare interpreter"
IMPORTS = {
    Eventfold.name: "import eventfold",
    BARE: "pass",
    Eventsourcing.name: "import eventsourcing.application, eventsourcing.sqlite",
    Umadb.name: "import umadb",
}
OPENED = {
    Eventfold.name: "import sys, eventfold; store = eventfold.Store(sys.argv[1] + '/eventfold.db'); store.head()",
    BARE: "pass",
    RawApsw.name: "import sys, apsw; store = apsw.Connection(sys.argv[1] + '/raw.db'); "
    "store.execute('SELECT max(position) FROM event').fetchone()",
    Eventsourcing.name: "import sys; from eventsourcing.application import Application; store = Application("
    "env={'PERSISTENCE_MODULE': 'eventsourcing.sqlite', 'SQLITE_DBNAME': sys.argv[1] + '/eventsourcing.db'}); "
    "store.recorder.max_notification_id()",
}
RESIDENT = "; print(int(open('/proc/self/statm').read().split()[1]) * __import__('os').sysconf('SC_PAGE_SIZE'))"
KINDS = {kind.name: kind for kind in (Eventfold, RawApsw, Prototype, Eventsourcing, Umadb)}
MAX_BYTES = 340


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    announce("bytes on disk")
    yield _disk(stage)
    announce("import")
    yield _imports(stage)
    if Path("/proc/self/statm").exists():
        announce("memory")
        yield _memory(stage)


def _split(found: dict[str, Sample]) -> tuple[Sample, dict[str, Sample | str]]:
    ours = found.pop(Eventfold.name)
    return ours, {name: sample if sample.values else INSTALL for name, sample in found.items()}


def _disk(stage: Stage) -> Figure:
    others: dict[str, Sample | str] = {}
    for name, kind in KINDS.items():
        try:
            files = [p for p in stage.seeded(kind).rglob("*") if p.is_file()]
        except Missing as reason:
            others[name] = str(reason)
            continue
        others[name] = Sample((sum(p.stat().st_size for p in files) / stage.settings.stored,))
    ours = others.pop(Eventfold.name)
    assert isinstance(ours, Sample)
    figure = Figure(GROUP, f"bytes on disk for an event of {PAYLOAD}, store closed", "bytes", ours, others, "lower")
    figure.note = (
        "umadb grows its file in large steps ahead of what it holds; eventsourcing keeps no tags, ids or times"
    )
    figure.key = "bytes"
    return figure.aim(f"≤ {MAX_BYTES}", ours.median <= MAX_BYTES)


def _imports(stage: Stage) -> Figure:
    def cell(code: str) -> Callable[[], float]:
        return lambda: _run(stage, code)[0]

    found = interleave({name: cell(code) for name, code in IMPORTS.items()}, stage.settings.rounds)
    ours, others = _split(found)
    figure = Figure(GROUP, "python -c 'import …', whole process", "ms", ours, others, "lower")
    return figure.aim("< 60 ms", ours.median < 60)


def _memory(stage: Stage) -> Figure:
    def cell(name: str, code: str) -> Callable[[], float]:
        def measured() -> float:
            folder = str(stage.seeded(KINDS[name])) if name in KINDS else ""
            return float(_run(stage, code + RESIDENT, folder)[1]) / 2**20

        return measured

    found = interleave({name: cell(name, code) for name, code in OPENED.items()}, 3)
    ours, others = _split(found)
    figure = Figure(GROUP, "resident memory at an open store, whole process", "MiB", ours, others, "lower")
    return figure.aim("< 20 MB", ours.median * 2**20 < 20e6)


def _run(stage: Stage, code: str, *arguments: Any) -> tuple[float, str]:
    try:
        return program(code, stage.folder / "bytecode", *arguments)
    except RuntimeError as error:
        if "ModuleNotFoundError" in str(error):
            raise Missing(INSTALL) from error
        raise
