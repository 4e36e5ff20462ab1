"""The whole sink suite in one namespace, for a test file to import.

Knows: its chapters. Does not know: anything else.
"""
# ruff: noqa: F403

from __future__ import annotations

from eventfold.testing.conformance.sink.batches import *
from eventfold.testing.conformance.sink.delivery import *
from eventfold.testing.conformance.sink.generations import *
