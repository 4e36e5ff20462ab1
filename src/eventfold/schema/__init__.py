"""Room: event types over the years: described as JSON Schema, locked in a file, compared, held against a whole log.

Knows: declared classes. Does not know: engines, commands, files (those who call it read and write them).
"""

from __future__ import annotations

from eventfold.schema.compare import Finding, compare
from eventfold.schema.describe import Described, describe, lock_of, types_of
from eventfold.schema.scan import Misfit, Scan, scan

__all__ = ["Described", "Finding", "Misfit", "Scan", "compare", "describe", "lock_of", "scan", "types_of"]
