"""Traces: spans of OpenTelemetry around the calls of a store, and a trace context in the metadata of events."""

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.errors import MissingExtra

if TYPE_CHECKING:
    from eventfold.telemetry.logs import TraceIds
    from eventfold.telemetry.traced import traced

__all__ = ["TraceIds", "traced"]

_MODULES = {"TraceIds": "logs", "traced": "traced"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that an installation without the extra gets a sentence."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(f"eventfold.telemetry.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise MissingExtra(
            "Traces need the package 'opentelemetry-api', which is not installed.",
            "Install the extra: pip install 'eventfold[telemetry]'",
            extra="telemetry",
        ) from error
    globals()[name] = found
    return found
