"""Loads the cracks: 262 readings of 21 specimens, in the order in which the rig gave them, and predicts on the way.

Knows: the numbers. Does not know: how predictions are scored.

- The numbers are facts from C. J. Lu and W. Q. Meeker, "Using degradation measures to estimate a time-to-failure
  distribution", Technometrics 35 (1993): the length every 10,000 cycles, in hundredths of an inch, from 0.90 on.
- A part failed above 1.60 inch; specimen 2 ends exactly on it, and counts as failed. Readings stop at failure or at
  120,000 cycles: 12 parts failed, 9 did not, and a score that forgets these flatters itself.
- Chosen: the rig makes 10,000 cycles a day, from 1993-01-01 on; predictions are made at 80,000 and 100,000 cycles.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.cracks.app import (
    FAILS_AT,
    REMOVED_AT,
    CrackMeasured,
    Line,
    PartFailed,
    PartRemoved,
    Specimen,
    order_inspection,
    predict,
    score,
)

STEP_CYCLES = 10_000
PREDICTED_AT = (80_000, 100_000)  # cycles
MODEL = Line()
LENGTHS = {
    "1": "90 95 100 105 112 119 127 135 148 164",
    "2": "90 94 98 103 108 114 121 128 137 147 160",
    "3": "90 94 98 103 108 113 119 126 135 146 158 177",
    "4": "90 94 98 103 107 112 119 125 134 143 155 173",
    "5": "90 94 98 103 107 112 119 124 134 143 155 171",
    "6": "90 94 98 103 107 112 118 123 133 141 151 168",
    "7": "90 94 98 102 107 111 117 123 132 141 152 166",
    "8": "90 93 97 100 106 111 117 123 130 139 149 162",
    "9": "90 92 97 101 105 109 115 121 128 136 144 155 172",
    "10": "90 92 96 100 104 108 113 119 126 134 142 152 167",
    "11": "90 93 96 100 104 108 113 118 124 131 139 149 165",
    "12": "90 93 97 100 103 107 110 116 122 129 137 148 164",
    "13": "90 92 97 99 103 106 110 114 120 126 131 140 152",
    "14": "90 93 96 100 103 107 112 116 120 126 130 137 145",
    "15": "90 92 96 99 103 106 110 116 121 127 133 140 149",
    "16": "90 92 95 97 100 103 107 111 116 122 126 133 140",
    "17": "90 93 96 97 100 105 108 111 116 120 124 132 138",
    "18": "90 92 94 97 101 104 107 109 114 119 123 128 135",
    "19": "90 92 94 97 99 102 105 108 112 116 120 125 131",
    "20": "90 92 94 97 99 102 105 108 112 116 119 124 129",
    "21": "90 92 94 97 99 102 104 107 111 114 118 122 127",
}


def rows(limit: int | None = None) -> list[tuple[int, str, int]]:
    """Every reading as cycle, specimen, length, in the order of the rig."""
    found = [
        (number * STEP_CYCLES, specimen, int(length))
        for specimen, lengths in LENGTHS.items()
        for number, length in enumerate(lengths.split())
    ]
    return sorted(found, key=lambda row: (row[0], int(row[1])))[:limit]


def moment(cycle: float) -> datetime:
    """When the rig had made so many cycles."""
    return datetime(1993, 1, 1, tzinfo=UTC) + timedelta(days=cycle / STEP_CYCLES)


def drafts(cycle: int, readings: list[tuple[str, int]], before: dict[str, int]) -> Iterator[tuple[ef.Draft, int]]:
    """Yield the events of one inspection of the rig; `before`: the lengths of the one before, which are updated."""
    for specimen, length in readings:
        crack = CrackMeasured(specimen, cycle, length)
        yield ef.Draft(crack, id=id_from(moment(cycle), "fatigue", specimen, cycle), occurred=moment(cycle)), 1
        if length >= FAILS_AT:
            last = before[specimen]
            failed = cycle - STEP_CYCLES + STEP_CYCLES * (FAILS_AT - last) / (length - last)
            at = moment(failed)
            yield ef.Draft(PartFailed(specimen, failed), id=id_from(at, "fatigue", specimen, "failed"), occurred=at), 0
        elif cycle == REMOVED_AT:
            at = moment(cycle)
            removed = PartRemoved(specimen, cycle)
            yield ef.Draft(removed, id=id_from(at, "fatigue", specimen, "removed"), occurred=at), 0
        before[specimen] = length


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append the readings in the order of the rig, predict at 80,000 and 100,000 cycles, score at the end."""
    count, before = LoadCount(), dict[str, int]()
    taken = rows(limit)
    count.read, decided = len(taken), 0
    for cycle in sorted({row[0] for row in taken}):
        readings = [(specimen, length) for at, specimen, length in taken if at == cycle]
        write(store, list(drafts(cycle, readings, before)), count)
        if cycle in PREDICTED_AT:
            decided += predict_all(store, cycle, [specimen for specimen, length in readings if length < FAILS_AT])
    decided += sum(len(store.decide(score, Specimen(specimen)).events) for specimen in LENGTHS)
    count.events, count.made = count.events + decided, count.made + decided
    return count


def predict_all(store: ef.Store, cycle: int, running: list[str]) -> int:
    """Predict the failure of every running part from the log as it is now, and send people where one is due."""
    cursor, written = store.cursor(), 0
    for specimen in running:
        readings = store.state(Specimen(specimen), at=cursor.position).readings
        made = store.decide(predict, Specimen(specimen), MODEL, cycle, str(cursor), readings)
        written += len(made.events)
        if made.events and made.state(Specimen(specimen)).ordered_by is None:
            written += len(store.decide(order_inspection, Specimen(specimen), "planner").events)
    return written
