"""The conformance suite for engines: what every engine promises, as plain test functions with a sentence each.

    append          all or nothing, in order, adjacent, and durable                            (P1, P4)
    conditions      refused if an event matching a query was written after its position        (P2)
    group_commit    many requests in one commit, each with its own outcome                     (P1, P2)
    after_pending   a condition that starts after an event still being written                 (P2)
    epochs          a condition that was read in another epoch is refused                      (P2)
    idempotency     the same ids or the same key again: written once                           (P5)
    unconfirmed     a lost reply: the append may be repeated, and is written once              (P5)
    reading         every way to read: queries, bounds, limits, directions, raw                (P3)
    paging          the events of one page of the port, and where it may end                   (P1, P3)
    large_queries   queries with tens of thousands of items, and the limit                     (P2, P3)
    time            recorded time, the time of occurrence, and the log as of a past time       (P1, P3)
    follow          catch up, then live, without gap or repeat                                 (P7)
    cursors         progress that is verified before it is used                                (P7)
    decide          a decision over states: consistent, retried, once per command              (P2, P5)
    states          current and past states, their history, and copies that share nothing      (P3)
    envelopes       states that fold time, metadata and position, as these were written        (P3)
    metadata        actor, reason, cause and correlation
    receipts        the result of an append, as a proof for later
    summaries       types, tags, counts, the head
    round_trips     every kind of value is read back equal                                     (P10)
    copying         a log imported by another store is the same log                            (P1, P3, P5)
    replica         a copy of a log that is elsewhere: appends judged on it, events imported   (P1, P2, P5)
    snapshots       folded states stored beside the log                                        (P3)
    time_zones      times in tags: equal times are equal tags, whatever their time zones       (P2, P3)
    locks           advisory locks on a query
    inline          read models folded within every append: rows and events together, or neither (P8)
    bad_input       each mistake gets its own error of two sentences, and nothing is written   (P9, P10)
    capabilities    the capabilities that an engine declares, and refusals of the others       (P4, P6, P9)

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
    cursors decide states envelopes metadata receipts summaries round_trips copying replica snapshots time_zones locks
    inline bad_input capabilities
""".split()


def promises() -> Iterator[tuple[str, str, list[str]]]:
    """The contract as text: for each chapter its name, its docstring, and the docstring of every test."""
    for chapter in CHAPTERS:
        module = importlib.import_module(f"{__name__}.{chapter}")
        tests = [f for name, f in vars(module).items() if name.startswith("test_") and inspect.isfunction(f)]
        sentences = [" ".join((inspect.getdoc(test) or "").split()) for test in tests]
        yield chapter, " ".join((inspect.getdoc(module) or "").split()), sentences
