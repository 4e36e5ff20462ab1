"""What every engine promises, as one suite of plain test functions. Read the docstrings top to bottom.

    append          all or nothing, in order, adjacent, and still there after reopening        (P1, P4)
    conditions      refused if an event matching a query was written after its position        (P2)
    group_commit    many requests in one commit, each with a result of its own                 (P1, P2)
    after_pending   a condition that begins after an event still being written                 (P2)
    epochs          a condition from before lost history is refused                            (P2)
    idempotency     the same ids or the same key again: written once                           (P5)
    unconfirmed     an answer that was lost, and a request that was not written: which is which (P5)
    reading         every way to read: queries, bounds, limits, directions, raw                (P3)
    paging          what one page of the port holds, and where it may end                      (P1, P3)
    large_queries   queries with tens of thousands of items, and the limit above               (P2, P3)
    time            recorded time, business time, and the log as of a past time                (P1, P3)
    follow          catch up, then live, without gap or repeat                                 (P7)
    cursors         progress that is verified before it is used                                (P7)
    decide          a decision over states: consistent, retried, once per command              (P2, P5)
    states          folded state now and then, its history, and copies that share nothing      (P3)
    envelopes       states that fold time, metadata and position, as these were written        (P3)
    metadata        actor, reason, cause and correlation
    receipts        what an append returns, and what it proves
    summaries       types, tags, counts, the head
    round_trips     every kind of value is read back equal                                     (P10)
    copying         a log imported by another store is the same log                            (P1, P3, P5)
    snapshots       folded states kept beside the log, trusted or not                          (P3)
    time_zones      times in tags: one meaning, in whatever time zone they were written        (P2, P3)
    locks           advisory locks on a query
    inline          read models folded within every append: rows and events together, or neither (P8)
    bad_input       each mistake gets its own error of two sentences, and nothing is written   (P9, P10)
    capabilities    what an engine declares that it can and cannot do                          (P4, P6, P9)

An engine runs the suite with a fixture `engine_under_test` (see `engine_under_test.py`) and two lines in test files:

    from eventfold.testing.conformance.fixtures import *      # in conftest.py, with your fixture `engine_under_test`
    from eventfold.testing.conformance.all_chapters import *  # in the test file

with `pytest.register_assert_rewrite("eventfold.testing.conformance")` before them, for readable failures.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

CHAPTERS = """
    append conditions group_commit after_pending epochs idempotency unconfirmed reading paging large_queries time follow
    cursors decide states envelopes metadata receipts summaries round_trips copying snapshots time_zones locks inline
    bad_input capabilities
""".split()


def promises() -> Iterator[tuple[str, str, list[str]]]:
    """The contract as text: for each chapter its name, its first sentence, and the sentence of every test."""
    for chapter in CHAPTERS:
        module = importlib.import_module(f"{__name__}.{chapter}")
        tests = [f for name, f in vars(module).items() if name.startswith("test_") and inspect.isfunction(f)]
        sentences = [" ".join((inspect.getdoc(test) or "").split()) for test in tests]
        yield chapter, " ".join((inspect.getdoc(module) or "").split()), sentences
