"""Room: what every engine promises, as one suite of plain test functions. Read the docstrings top to bottom.

    append          all or nothing, in order, adjacent, and still there after reopening        (P1, P4)
    conditions      the one rule of writing: refused if an event matching a query came after   (P2)
    combined        many requests in one commit, each judged for itself                        (P1, P2)
    behind          a condition that begins behind an event still being written                (P2)
    epochs          a condition that was read before history was lost is no condition          (P2)
    idempotency     the same ids or the same key again: written once                           (P5)
    lost            the answer was lost, or nothing was written: which is which                (P5)
    reading         every way of asking: queries, bounds, limits, directions, raw              (P3)
    paging          what one page of the port holds, and where it may end                      (P1, P3)
    large           queries with tens of thousands of items, and the limit above                (P2, P3)
    moments         recorded time, the business's time, and the log as it was                  (P1, P3)
    follow          catch up, then live, without gap or repeat                                 (P7)
    cursors         progress that is verified before it is believed                            (P7)
    decide          a decision over states: consistent, retried, once per command              (P2, P5)
    states          folded state now and then, its history, copies that cannot spoil it        (P3)
    envelopes       states that are folded with time, metadata and position, as these were written (P3)
    metadata        who, why, caused by what
    receipts        what an append returns, and what it proves
    lists           types, tags, counts, the head
    round_trips     every kind of value comes back equal                                       (P10)
    copying         a log taken over by another store is the same log                          (P1, P3, P5)
    snapshots       folded states kept beside the log, believed or not                         (P3)
    time_zones      moments in tags: one meaning, however they were written                   (P2, P3)
    locks           a question kept to oneself for a while, as a courtesy
    inline          read models folded within every append: rows and events together, or neither (P8)
    bad_input       each mistake gets its own error, two sentences, and nothing is written     (P9, P10)
    declared        what an engine says it can and cannot do                                   (P4, P6, P9)

An engine joins by one fixture, `place` (see `place.py`), and two lines in a test file:

    from eventfold.testing.conformance.fixtures import *  # in conftest.py, with your fixture `place`
    from eventfold.testing.conformance.every import *     # in the test file

with `pytest.register_assert_rewrite("eventfold.testing.conformance")` before them, for readable failures.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

CHAPTERS = """
    append conditions combined behind epochs idempotency lost reading paging large moments follow cursors decide states
    envelopes
    metadata receipts lists round_trips copying snapshots time_zones locks inline bad_input declared
""".split()


def promises() -> Iterator[tuple[str, str, list[str]]]:
    """The contract as text: for each chapter its name, its first sentence, and the sentence of every test."""
    for chapter in CHAPTERS:
        module = importlib.import_module(f"{__name__}.{chapter}")
        tests = [f for name, f in vars(module).items() if name.startswith("test_") and inspect.isfunction(f)]
        sentences = [" ".join((inspect.getdoc(test) or "").split()) for test in tests]
        yield chapter, " ".join((inspect.getdoc(module) or "").split()), sentences
