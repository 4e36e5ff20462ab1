"""A target that logs each message as one line, by Python's logging.

Knows: the name of the logger, levels. Does not know: how a process formats its log.
"""

from __future__ import annotations

import logging

from eventfold.alerts.delivery.message import Message, one_line

LOGGER = "eventfold.alerts"


class LogLine:
    """Lines of the logger `eventfold.alerts`: errors for "page", else warnings. A line has the message's fields."""

    description = f"the logger {LOGGER}"
    secrets: tuple[str, ...] = ()

    def send(self, message: Message) -> None:
        """Log a message. Its fields are attributes of the record: `alert`, `alert_state`, `alert_message`, …."""
        urgent = message.severity == "page" and message.kind in ("raised", "reminder")
        fields = {
            "alert": message.alert,
            "alert_state": message.kind,
            "alert_severity": message.severity,
            "alert_message": message.id,
            "alert_count": message.count,
        }
        line = message.title
        if message.count > 1 and message.entries:
            line += f" (first {message.entries[0].key}: {message.entries[0].reason})"
        logging.getLogger(LOGGER).log(logging.ERROR if urgent else logging.WARNING, "%s", one_line(line), extra=fields)
