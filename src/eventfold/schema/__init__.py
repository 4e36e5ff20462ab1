"""Event types over the years: described as JSON Schema, locked in a file, compared, held against a whole log.

Knows: declared classes. Does not know: engines, commands, files (those who call it read and write them).
"""

from __future__ import annotations

from eventfold.schema.compare import Finding, compare
from eventfold.schema.describe import EventDescription, build_lock, describe, event_classes
from eventfold.schema.scan import Misfit, Scan, scan

__all__ = [
    "EventDescription",
    "Finding",
    "Misfit",
    "Scan",
    "build_lock",
    "compare",
    "describe",
    "event_classes",
    "scan",
]
