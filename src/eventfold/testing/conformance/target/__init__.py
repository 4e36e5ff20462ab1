"""The conformance suite for targets: what every target promises (`eventfold.ports.target`), as plain test functions.

    records         projections recorded under their names: created, listed, switched, removed
    checkpoints     progress and its rows are written together, or neither; parked events, ledger marks
    leases          one holder at a time, fencing tokens, runners that share partitions
    tables          rows by key, filters, order, pages, digests: on the port itself
    commands        an operator's command: read under locks, changed at once, recorded for the log
    keyed_rows      read models equal the plain fold of the log, in one partition or several
    values          rows compare by value: decimals, times, dates, UUIDs, enums
    generations     rebuilt beside the live rows, compared, switched, rolled back, discarded
    failures        a handler that fails: stop, park, retry, skip, without losing events

A target runs the suite with a fixture `target_under_test` (see `target_under_test.py`) and two lines in test files:

    from eventfold.testing.conformance.target.fixtures import *      # in conftest.py, with your fixture
    from eventfold.testing.conformance.target.all_chapters import *  # in the test file

with `pytest.register_assert_rewrite("eventfold.testing.conformance")` before them, for readable failures.
"""

from __future__ import annotations

CHAPTERS = "records checkpoints leases tables commands keyed_rows values generations failures".split()
