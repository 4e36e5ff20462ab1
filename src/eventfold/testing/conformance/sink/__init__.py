"""The conformance suite for sinks: what every sink promises (`eventfold.ports.sink`), as plain test functions.

    batches         a batch is applied once, all or nothing; a missing one is noticed
    generations     readers see the generation that was shown last; a dropped one is removed
    delivery        a store with the sink: after lost replies, repeats, losses, rebuilds, readers see the plain fold

A sink runs the suite with a fixture `sink_under_test` (see `sink_under_test.py`) and two lines in test files:

    from eventfold.testing.conformance.sink.fixtures import *      # in conftest.py, with your fixture
    from eventfold.testing.conformance.sink.all_chapters import *  # in the test file

with `pytest.register_assert_rewrite("eventfold.testing.conformance")` before them, for readable failures.
"""

from __future__ import annotations

CHAPTERS = "batches generations delivery".split()
