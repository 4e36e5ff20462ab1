"""What every sink promises (`eventfold.ports.sink`), as one suite of plain test functions.

    batches         a batch is applied once, all or nothing; a missing one is noticed
    generations     what readers see is what was shown last; a dropped generation is gone
    delivery        a store that sends rows there: lost answers, repeats, losses, rebuilds end in the plain fold

A sink runs the suite with a fixture `sink_under_test` (see `sink_under_test.py`) and two lines in test files:

    from eventfold.testing.conformance.sink.fixtures import *      # in conftest.py, with your fixture
    from eventfold.testing.conformance.sink.all_chapters import *  # in the test file

with `pytest.register_assert_rewrite("eventfold.testing.conformance")` before them, for readable failures.
"""

from __future__ import annotations

CHAPTERS = "batches generations delivery".split()
