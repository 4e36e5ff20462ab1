"""Traces: spans, links and the trace context of events."""
