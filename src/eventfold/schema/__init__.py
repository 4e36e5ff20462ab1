"""Schemas of event types: described as JSON Schema, locked in a file, compared, and checked against a whole log.

Knows: declared classes. Does not know: engines, commands, files (the caller reads and writes them).
"""

from __future__ import annotations

from typing import Any

from eventfold.core.renamed import explain_name
from eventfold.schema.compare import Finding, compare
from eventfold.schema.describe import EventDescription, build_lock, describe, event_classes
from eventfold.schema.lint import LintWarning, lint
from eventfold.schema.scan import Misfit, Scan, scan

__all__ = [
    "EventDescription",
    "Finding",
    "LintWarning",
    "Misfit",
    "Scan",
    "build_lock",
    "compare",
    "describe",
    "event_classes",
    "lint",
    "scan",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(explain_name(f"schema.{name}") or f"module {__name__!r} has no attribute {name!r}")
