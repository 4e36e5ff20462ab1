"""Log records with the ids of the current span: a filter for the handlers or loggers of an application.

Knows: logging, the current span. Does not know: how records are written.
"""

from __future__ import annotations

import logging

from opentelemetry.trace import get_current_span


class TraceIds(logging.Filter):
    """Gives each record `trace_id` and `span_id`, in hex as traces show them; both are empty outside of a span.

    `handler.addFilter(TraceIds())`, and `%(trace_id)s` in the handler's format. A filter of a handler sees the records
    of every logger; one of a logger sees those of that logger only, not of loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids to a record. Keeps every record."""
        span = get_current_span().get_span_context()
        record.trace_id = f"{span.trace_id:032x}" if span.is_valid else ""
        record.span_id = f"{span.span_id:016x}" if span.is_valid else ""
        return True
